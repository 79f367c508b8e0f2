from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from talkhead.errors import DataError, ShapeError
from talkhead.readout import FloatArray, Readout

LAYOUT = {"rotation": slice(0, 3), "mouth": slice(3, 4)}


def clips(
    count: int = 6, frames: int = 50, seed: int = 0
) -> tuple[list[FloatArray], list[FloatArray]]:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(8, 4)).astype(np.float32)
    codes = [rng.normal(size=(frames, 8)).astype(np.float32) for _ in range(count)]
    motion = [(c @ mix + 2.0).astype(np.float32) for c in codes]
    for m in motion:
        m[:, 3] += 30.0 * rng.normal(size=frames).astype(np.float32)
    return codes, motion


def test_reads_what_is_linear_and_reports_it_by_group() -> None:
    readout = Readout.fit(*clips(), layout=LAYOUT)
    codes, motion = clips(seed=1)
    scores = readout.r2(codes, motion)
    assert scores["rotation"] > 0.999
    assert scores["mouth"] < 0.1
    assert scores["all"] == pytest.approx((3 * scores["rotation"] + scores["mouth"]) / 4)
    np.testing.assert_allclose(readout.predict(codes[0])[:, :3], motion[0][:, :3], atol=0.15)


def test_r2_equals_the_plain_formula() -> None:
    readout = Readout.fit(*clips())
    codes, motion = clips(seed=1)
    x, y = np.concatenate(codes), np.concatenate(motion).astype(np.float64)
    error = ((y - readout.predict(x)) ** 2).sum(0)
    expected = 1 - error / ((y - y.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(readout.r2_per_dim(codes, motion), expected, atol=1e-6)


def test_context_sees_neighbours_and_repeats_the_ends() -> None:
    rng = np.random.default_rng(0)
    codes = [rng.normal(size=(40, 3)).astype(np.float32) for _ in range(5)]
    after = [np.concatenate([c[1:], c[-1:]]) for c in codes]
    assert Readout.fit(codes, after).r2(codes, after)["all"] < 0.2
    wide = Readout.fit(codes, after, context=1)
    assert wide.code_dim == 3
    assert wide.r2(codes, after)["all"] > 0.999
    np.testing.assert_allclose(wide.predict(codes[0]), after[0], atol=1e-3)


def test_batches_of_sequences_equal_single_sequences() -> None:
    readout = Readout.fit(*clips(), context=2)
    codes, _ = clips(seed=1)
    batch = torch.from_numpy(np.stack(codes))
    np.testing.assert_allclose(
        readout.predict_tensor(batch)[2].numpy(), readout.predict(codes[2]), rtol=1e-5, atol=1e-5
    )


def test_survives_a_file_and_names_what_is_wrong(tmp_path: Path) -> None:
    readout = Readout.fit(*clips(), layout=LAYOUT, context=1)
    path = tmp_path / "readout.npz"
    readout.save(path)
    again = Readout.load(path)
    assert again.spec == readout.spec
    assert again.layout == LAYOUT
    np.testing.assert_array_equal(again.weight, readout.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["readout.npz"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="no read-out"):
        Readout.load(path)
    with pytest.raises(DataError, match="no read-out"):
        Readout.load(tmp_path / "absent.npz")


def test_wrong_shapes_are_refused() -> None:
    codes, motion = clips()
    with pytest.raises(ShapeError, match="at least 2 clips"):
        Readout.fit(codes[:1], motion[:1])
    with pytest.raises(ShapeError, match="clip 1"):
        Readout.fit(codes, [motion[0], motion[1][:-1], *motion[2:]])
    with pytest.raises(ShapeError, match="same encoder"):
        Readout.fit(codes, motion).predict(np.zeros((4, 9), np.float32))
