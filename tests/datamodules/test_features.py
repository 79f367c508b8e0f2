from __future__ import annotations

import fcntl
import multiprocessing
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.features import FeatureStore, ensure_features, feature_folder, missing_shards
from datamodules.shards import PreparedSet
from talkhead.batch import FeatureSource, to_float
from talkhead.errors import ConfigError, DataError, ShapeError


class Mean(nn.Module):
    """Mean of each channel of a picture, or of a mel window, times a weight."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.calls += len(x)
        return self.weight * x.mean(dim=(-2, -1))


def _source(kind: str = "frames", digest: str = "a" * 16, **options: Any) -> FeatureSource:
    module = Mean(**options)
    return FeatureSource("f", digest, kind, module, 3 if kind == "frames" else 1, 32)


def test_features_are_the_encoders_output_for_every_frame(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    sources = {"v": _source(), "a": _source("mel")}
    sources["a"].name = "g"
    sources["v"].module.train()
    store = ensure_features(prepared, sources, batch_size=7)
    assert sources["v"].module.training
    for row in (prepared.all_rows[0], prepared.all_rows[-1]):
        pictures = to_float(prepared.frames(row, range(row.frames)))
        expected = pictures.mean(dim=(-2, -1))
        torch.testing.assert_close(store.window("v", row), expected, rtol=0, atol=1e-3)
        windows = prepared.mel_windows(row, range(10, 20)).mean(dim=(-2, -1))
        torch.testing.assert_close(store.window("a", row, 10, 20), windows, rtol=0, atol=1e-3)
    assert store.window("v", row).dtype == torch.float32
    assert store.window("v", row, 55, 99).shape == (5, 3)


class Half(nn.Module):
    """Mean landmark of each frame, or the loudest sample of each frame of a wave, and its length."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        assert x.dtype == torch.float32
        if x.ndim == 3:
            return x.mean(dim=1)
        return x.reshape(-1, 640).abs().amax(dim=1, keepdim=True).expand(-1, 3)


def test_landmarks_come_in_batches_and_sound_as_a_whole(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    sources = {
        kind: FeatureSource(kind, "a" * 16, kind, Half(), 3) for kind in ("landmarks", "wave")
    }
    store = ensure_features(prepared, sources, batch_size=25)
    row = prepared.all_rows[3]
    mesh = torch.from_numpy(prepared.landmarks(row)).mean(dim=1)
    torch.testing.assert_close(store.window("landmarks", row), mesh, rtol=1e-3, atol=1e-3)
    loudest = np.abs(prepared.audio(row).reshape(60, 640).astype(np.int32)).max(axis=1) / 32768
    torch.testing.assert_close(
        store.window("wave", row)[:, 0], torch.from_numpy(loudest).float(), rtol=1e-3, atol=0
    )
    shapes = {kind: source.module.shapes for kind, source in sources.items()}
    assert shapes["landmarks"] == [(25, 478, 3), (25, 478, 3), (10, 478, 3)] * 8
    assert shapes["wave"] == [(640 * 60,)] * 8


def test_second_use_computes_nothing_and_other_digest_everything(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    ensure_features(prepared, {"v": _source()})
    again = _source()
    ensure_features(prepared, {"v": again})
    assert isinstance(again.module, Mean)
    assert again.module.calls == 0
    other = _source(digest="b" * 16, weight=2.0)
    store = ensure_features(prepared, {"v": other})
    row = prepared.all_rows[0]
    old = FeatureStore(prepared, {"v": again})
    torch.testing.assert_close(store.window("v", row), 2 * old.window("v", row), rtol=0, atol=2e-3)


def test_resumes_per_shard(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    ensure_features(prepared, {"v": _source()})
    folder = feature_folder(prepared, _source())
    (folder / "00001.npy").unlink()
    assert missing_shards(prepared, _source()) == [1]
    with pytest.raises(DataError, match="1 are missing"):
        FeatureStore(prepared, {"v": _source()})
    source = _source()
    ensure_features(prepared, {"v": source})
    assert isinstance(source.module, Mean)
    assert source.module.calls == sum(r.frames for r in prepared.all_rows if r.shard == 1)


def test_changed_data_makes_the_cache_stale(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    ensure_features(prepared, {"v": _source()})
    prepared.meta["data_fingerprint"] = "changed"
    assert missing_shards(prepared, _source()) == [0, 1, 2]
    source = _source()
    ensure_features(prepared, {"v": source})
    assert isinstance(source.module, Mean)
    assert source.module.calls == 480


def test_bad_encoders_are_named(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    wrong = _source()
    wrong.dim = 5
    with pytest.raises(ShapeError, match=r"feature f: expected \(60, 5\)"):
        ensure_features(prepared, {"v": wrong})
    with pytest.raises(DataError, match="not finite in half"):
        ensure_features(prepared, {"v": _source(digest="c" * 16, weight=1e9)})
    with pytest.raises(ConfigError, match="frames or mel"):
        ensure_features(prepared, {"v": _source("video")})


def _cache(root: Path, queue: Any) -> None:
    torch.set_num_threads(1)
    source = _source()
    ensure_features(PreparedSet(root), {"v": source})
    assert isinstance(source.module, Mean)
    queue.put(source.module.calls)


def test_two_processes_do_the_work_once(own_set: Path) -> None:
    # Never "fork": OpenMP threads of the tests before are gone in a forked child, which then hangs.
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    processes = [
        context.Process(target=_cache, args=(own_set, queue), daemon=True) for _ in range(2)
    ]
    for process in processes:
        process.start()
    calls = sorted(queue.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    assert calls == [0, 480]


def test_store_travels_to_workers(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    store = ensure_features(prepared, {"v": _source()})
    row = prepared.all_rows[2]
    expected = store.window("v", row)
    data = pickle.dumps(store)
    assert len(data) < 5000
    torch.testing.assert_close(pickle.loads(data).window("v", row), expected)
    on_disk = np.load(store.folders["v"] / f"{row.shard:05d}.npy")
    assert on_disk.dtype == np.float16


def test_what_another_process_computes_comes_last(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    sources = {"v": _source(), "a": _source("mel")}
    sources["a"].name = "g"
    held = feature_folder(prepared, sources["v"]).with_suffix(".lock")
    held.parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool, held.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        both = pool.submit(ensure_features, prepared, sources)
        while missing_shards(prepared, sources["a"]) and not both.done():
            time.sleep(0.01)
        assert not both.done()
        assert missing_shards(prepared, sources["v"])
        fcntl.flock(other, fcntl.LOCK_UN)
        both.result()
    assert not missing_shards(prepared, sources["v"])
