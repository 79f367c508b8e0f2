"""Features of frozen encoders, computed once for each prepared set and kept as flat half floats.

``ROOT/features/<name>-<digest12>/<shard>.npy`` holds one row for every frame of a shard. The digest
covers the encoder's weights and spec, the folder's ``feature.json`` the prepared data: when either
changes, the features are computed again, never reused.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from datamodules.shard_io import write_array_atomic
from datamodules.shards import OPEN_SHARDS, ClipRow, PreparedSet
from talkhead.audio.mfcc import FULL_SCALE
from talkhead.batch import FeatureSource, to_float
from talkhead.errors import ConfigError, DataError, ShapeError
from talkhead.text_files import write_text_atomic

log = logging.getLogger(__name__)

FEATURE_FILE = "feature.json"
KINDS = ("frames", "mel", "landmarks", "wave")
DIGEST_DIGITS = 12


def feature_folder(prepared: PreparedSet, source: FeatureSource) -> Path:
    """``ROOT/features/<name>-<digest12>``."""
    return prepared.root / "features" / f"{source.name}-{source.digest[:DIGEST_DIGITS]}"


class FeatureStore:
    """Reads cached features of some sources as memory maps; safe to send to loader workers.

    Args:
        prepared: The set the features belong to.
        sources: Which features, by the name they get in batches.

    Raises:
        DataError: A feature is not cached yet, or for other data.
    """

    def __init__(self, prepared: PreparedSet, sources: Mapping[str, FeatureSource]) -> None:
        """Check that everything is there; files open when they are needed."""
        self.folders = {name: feature_folder(prepared, source) for name, source in sources.items()}
        self.dims = {name: source.dim for name, source in sources.items()}
        self._frames = _shard_frames(prepared)
        self._maps: OrderedDict[tuple[str, int], NDArray[np.float16]] = OrderedDict()
        for name, source in sources.items():
            missing = missing_shards(prepared, source)
            if missing:
                raise DataError(
                    f"feature {name}: expected {len(self._frames)} shards in {self.folders[name]}, "
                    f"{len(missing)} are missing; call ensure_features first "
                    "(the datamodule does so before training)."
                )

    def __getstate__(self) -> dict[str, Any]:
        """Memory maps stay behind when the store is sent to another process."""
        return {**self.__dict__, "_maps": OrderedDict()}

    def view(self, name: str, row: ClipRow, start: int = 0, stop: int | None = None) -> Tensor:
        """Frames ``[start, stop)`` of a clip without copying, ``(n, D)`` float16.

        Do not write into it: the map is private, so changes would linger in this process.
        """
        rows = self._map(name, row.shard)
        end = row.stop if stop is None else row.start + min(stop, row.frames)
        return torch.from_numpy(rows[row.start + start : end])

    def window(self, name: str, row: ClipRow, start: int = 0, stop: int | None = None) -> Tensor:
        """Frames ``[start, stop)`` of a clip as float32, ``(n, D)``."""
        return self.view(name, row, start, stop).float()

    def _map(self, name: str, shard: int) -> NDArray[np.float16]:
        """Memory map of one shard's features."""
        key = (name, shard)
        if key not in self._maps:
            # Copy-on-write, because torch warns about tensors over read-only memory.
            path = self.folders[name] / f"{shard:05d}.npy"
            self._maps[key] = np.load(path, mmap_mode="c").view(np.ndarray)
            while len(self._maps) > OPEN_SHARDS * len(self.folders):
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]


def ensure_features(
    prepared: PreparedSet,
    sources: Mapping[str, FeatureSource],
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> FeatureStore:
    """Compute whatever is missing, then open the store.

    Processes that want the same feature take turns, and begin with what no other is computing; a killed
    run keeps the shards it finished.

    Args:
        prepared: The set.
        sources: Features to have, by name.
        device: Where the encoders run; they are moved back afterwards.
        batch_size: Frames or windows in one call of an encoder.

    Raises:
        ConfigError: Unknown kind of source.
        ShapeError: An encoder returns another width than its source says.
        DataError: An encoder returns values that are not finite or leave the range of half floats.
    """
    for source in sources.values():
        if source.kind not in KINDS:
            raise ConfigError(
                f"feature {source.name}: expected kind {' or '.join(KINDS)}, got {source.kind!r}."
            )
    # What another process is computing comes last: two that want the same features share the work.
    for wait in (False, True):
        for source in sources.values():
            if not missing_shards(prepared, source):
                continue
            with _lock(feature_folder(prepared, source), wait) as mine:
                if mine:
                    _compute(prepared, source, torch.device(device), batch_size)
    return FeatureStore(prepared, sources)


def missing_shards(prepared: PreparedSet, source: FeatureSource) -> list[int]:
    """Shards whose features are not there, or were computed from other data."""
    folder = feature_folder(prepared, source)
    frames = _shard_frames(prepared)
    if _recorded(folder) != _record(prepared, source):
        return sorted(frames)
    return [shard for shard in sorted(frames) if not (folder / f"{shard:05d}.npy").is_file()]


def _record(prepared: PreparedSet, source: FeatureSource) -> dict[str, Any]:
    """What ``feature.json`` says about valid features."""
    return {
        "name": source.name,
        "digest": source.digest,
        "kind": source.kind,
        "dim": source.dim,
        "size": source.size if source.kind == "frames" else None,
        "data_fingerprint": prepared.data_fingerprint,
    }


def _recorded(folder: Path) -> dict[str, Any] | None:
    """The folder's record, None where there is none or a damaged one."""
    try:
        record: dict[str, Any] = json.loads((folder / FEATURE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return record


def _shard_frames(prepared: PreparedSet) -> dict[int, int]:
    """Shard -> frames up to the end of its last clip."""
    frames: dict[int, int] = {}
    for row in prepared.all_rows:
        frames[row.shard] = max(frames.get(row.shard, 0), row.stop)
    return frames


@contextmanager
def _lock(folder: Path, wait: bool) -> Iterator[bool]:
    """Hold an exclusive lock beside the folder; the system frees it when the process dies.

    Yields:
        False when another process has it and ``wait`` is False.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _compute(
    prepared: PreparedSet, source: FeatureSource, device: torch.device, batch_size: int
) -> None:
    """Fill the folder shard by shard, with a progress bar over frames."""
    folder = feature_folder(prepared, source)
    record = _record(prepared, source)
    if folder.exists() and _recorded(folder) != record:
        log.info("features in %s belong to other data and are computed again", folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / FEATURE_FILE, json.dumps(record, indent=2) + "\n")
    frames = _shard_frames(prepared)
    # Asked again under the lock: another process may have finished meanwhile.
    missing = missing_shards(prepared, source)
    by_shard: dict[int, list[ClipRow]] = {shard: [] for shard in missing}
    for row in prepared.all_rows:
        if row.shard in by_shard:
            by_shard[row.shard].append(row)
    total = sum(row.frames for rows in by_shard.values() for row in rows)
    with _running(source.module, device), Progress(transient=True) as progress:
        task = progress.add_task(f"features {source.name}", total=total)
        for shard, rows in by_shard.items():
            features = np.zeros((frames[shard], source.dim), np.float16)
            for row in rows:
                # Sound is only understood as a whole.
                step = row.frames if source.kind == "wave" else batch_size
                for begin in range(0, row.frames, step):
                    at = range(begin, min(begin + step, row.frames))
                    block = _run(prepared, source, row, at, device)
                    features[row.start + begin : row.start + begin + len(at)] = block
                    progress.advance(task, len(at))
            write_array_atomic(folder / f"{shard:05d}.npy", features)


def _run(
    prepared: PreparedSet, source: FeatureSource, row: ClipRow, at: range, device: torch.device
) -> NDArray[np.float16]:
    """Features of some frames of one clip, checked for shape and range."""
    out = source.module(_inputs(prepared, source, row, at, device))
    if not isinstance(out, Tensor) or out.shape != (len(at), source.dim):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ShapeError(
            f"feature {source.name}: expected {(len(at), source.dim)} from the encoder, got {got}."
        )
    half = out.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise DataError(
            f"feature {source.name}: clip {row.id} gives values that are not finite in half "
            "precision; check the encoder's checkpoint."
        )
    block: NDArray[np.float16] = half.cpu().numpy()
    return block


def _inputs(
    prepared: PreparedSet, source: FeatureSource, row: ClipRow, at: range, device: torch.device
) -> Tensor:
    """What an encoder of the source's kind eats."""
    if source.kind == "frames":
        return to_float(prepared.frames(row, at, source.size).to(device))
    if source.kind == "landmarks":
        return torch.from_numpy(prepared.landmarks(row, at)).to(device)
    if source.kind == "wave":
        return torch.from_numpy(prepared.audio(row)).float().div_(FULL_SCALE).to(device)
    return prepared.mel_windows(row, at).to(device)


@contextmanager
def _running(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Encoder on the device, in eval mode, without gradients; all put back afterwards."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    home = next((tensor.device for tensor in tensors), torch.device("cpu"))
    modes = {part: part.training for part in module.modules()}
    module.to(device).eval()
    try:
        # Not inference_mode: an encoder may cache tensors that training reads later.
        with torch.no_grad():
            yield
    finally:
        module.to(home)
        for part, training in modes.items():
            part.training = training
