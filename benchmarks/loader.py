"""How fast training samples load, against the routes other projects take; ratios of one run.

Every route is measured in this process, one after the other in turns, by CPU time, first turn
dropped, median of the others. Absolute numbers depend on the machine; ratios hold.

    python benchmarks/loader.py [--frames 250] [--rounds 4]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.datasets import SequenceDataset
from datamodules.features import ensure_features
from datamodules.jpeg import decode_jpeg, encode_jpeg
from datamodules.shards import (
    ClipRow,
    MotionStats,
    PreparedSet,
    ShardWriter,
    write_prepared,
)
from talkhead.audio.mel import mel_spectrogram, mel_windows
from talkhead.batch import FeatureSource, Sequences
from talkhead.geometry.motion import MotionModel
from talkhead.specs import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

CLIPS = 8
SIZE = 224


class Projection(nn.Module):
    """A stand-in encoder: mel windows to features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Linear(80 * 20, dim)

    def forward(self, windows: Tensor) -> Tensor:
        return self.net(windows.flatten(1))


def pictures(rng: np.random.Generator, count: int) -> list[bytes]:
    """Smooth pictures with some grain, about as many JPEG bytes as faces have."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    out = []
    for _ in range(count):
        phase = rng.uniform(0, 6, 6)
        waves = [np.sin(5 * x + phase[2 * c]) * np.cos(7 * y + phase[2 * c + 1]) for c in range(3)]
        picture = 128 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 3, (SIZE, SIZE, 1))
        out.append(encode_jpeg(picture.clip(0, 255).astype(np.uint8)))
    return out


def build(folder: Path, frames: int) -> PreparedSet:
    """One prepared set, and the same data as loose files."""
    rng = np.random.default_rng(0)
    pool = pictures(rng, 64)
    model = MotionModel(np.zeros(1434), rng.normal(size=(16, 1434)), 16)
    rows = []
    with ShardWriter(folder) as writer:
        for clip in range(CLIPS):
            jpegs = [pool[i] for i in rng.integers(64, size=frames)]
            audio = (3000 * rng.normal(size=frames * SAMPLES_PER_FRAME)).astype(np.int16)
            mel = mel_spectrogram(torch.from_numpy(audio / np.float32(32768))).numpy()
            motion = rng.normal(size=(frames, model.dim)).astype(np.float32)
            landmarks = rng.uniform(size=(frames, 478, 3)).astype(np.float32)
            shard, start = writer.add(str(clip), jpegs, mel, landmarks, motion, audio)
            box = (0.0, 0.0, float(SIZE), float(SIZE))
            split = "train" if clip else "val"
            row = ClipRow(
                str(clip), str(clip), str(clip), split, shard, start, frames, "", 25.0, box
            )
            rows.append(row)
            loose(folder / "loose" / str(clip), jpegs, audio)
    stats = MotionStats(np.zeros(model.dim, np.float32), np.ones(model.dim, np.float32))
    meta = {"dataset": "benchmark", "synthetic": True, "raw_root": "", "landmarker": "none"}
    write_prepared(folder, meta, rows, [], model, stats, {})
    return PreparedSet(folder)


def loose(
    folder: Path, jpegs: list[bytes], audio: np.ndarray[tuple[int, ...], np.dtype[np.int16]]
) -> None:
    """A folder of numbered pictures and a wav file."""
    folder.mkdir(parents=True)
    for number, data in enumerate(jpegs):
        (folder / f"{number:05d}.jpg").write_bytes(data)
    with wave.open(str(folder / "audio.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(audio.tobytes())


def read_loose(folder: Path, frame: int) -> Tensor:
    """The Wav2Lip route: a picture, the whole wav, the mel of the whole clip, one window of it."""
    decode_jpeg((folder / f"{frame:05d}.jpg").read_bytes())
    with wave.open(str(folder / "audio.wav"), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    mel = mel_spectrogram(torch.from_numpy(samples / np.float32(32768)))
    return mel_windows(mel, torch.tensor([frame]))


def measure(routes: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    """CPU seconds of one call of each route."""
    times: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(rounds + 1):
        for name, (call, count) in routes.items():
            begin = time.process_time()
            for _ in range(count):
                call()
            times[name].append((time.process_time() - begin) / count)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def table(title: str, seconds: dict[str, float], base: str) -> None:
    """Milliseconds, rate and ratio to the base route."""
    print(f"\n{title}\n{'route':44s} {'ms':>9s} {'per core-s':>11s} {'x':>8s}")
    for name, value in seconds.items():
        print(f"{name:44s} {1e3 * value:9.3f} {1 / value:11.0f} {value / seconds[base]:8.2f}")


def samples(prepared: PreparedSet, frames: int, rounds: int) -> None:
    """A frame and its mel window."""
    rng = np.random.default_rng(1)
    root = prepared.root / "loose"

    def pick() -> tuple[int, int]:
        return int(rng.integers(CLIPS)), int(rng.integers(frames))

    def flat() -> None:
        clip, frame = pick()
        prepared.frames(str(clip), [frame])
        prepared.mel_windows(str(clip), [frame])

    def bare() -> None:
        clip, frame = pick()
        row = prepared.row(str(clip))
        decode_jpeg(prepared.shard(row.shard).picture(row.start + frame))

    def files() -> None:
        clip, frame = pick()
        read_loose(root / str(clip), frame)

    seconds = measure(
        {
            "flat shard: frame + mel window": (flat, 300),
            "bare JPEG decode of the same bytes": (bare, 300),
            "loose jpg + wav + mel of the clip": (files, 15),
        },
        rounds,
    )
    table(f"image samples ({SIZE} px, {frames}-frame clips)", seconds, next(iter(seconds)))


def windows(prepared: PreparedSet, rounds: int) -> None:
    """Batches of 64 runs of 128 frames with 512 + 42 feature values."""
    sources = {
        name: FeatureSource(name, name * 12, "mel", Projection(dim), dim)
        for name, dim in (("a", 512), ("n", 42))
    }
    store = ensure_features(prepared, sources)
    dataset = SequenceDataset(prepared, prepared.all_rows, Sequences(128), store)
    folder = prepared.root / "npz"
    folder.mkdir()
    for row in prepared.all_rows:
        arrays = {name: store.view(name, row).numpy() for name in sources}
        np.savez(folder / f"{row.id}.npz", motion=prepared.motion(row), **arrays)
    rng = np.random.default_rng(2)

    def memmap() -> None:
        dataset.__getitems__([int(i) for i in rng.integers(1 << 30, size=64)])

    def npz() -> None:
        parts = []
        for clip in rng.integers(CLIPS, size=64):
            with np.load(folder / f"{clip}.npz") as arrays:
                start = int(rng.integers(len(arrays["motion"]) - 127))
                cut = {k: arrays[k][start : start + 128].astype(np.float32) for k in arrays.files}
            parts.append({k: torch.from_numpy(v) for k, v in cut.items()})
        for name in parts[0]:
            torch.stack([part[name] for part in parts])

    seconds = measure({"memory maps": (memmap, 15), "npz of each clip": (npz, 4)}, rounds)
    table("feature windows (64 x 128 x (512 + 42))", seconds, next(iter(seconds)))


def main() -> None:
    """Build the data in a temporary folder and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=250, help="frames of each clip")
    parser.add_argument("--rounds", type=int, default=4, help="turns measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = build(Path(folder) / "set", options.frames)
        samples(prepared, options.frames, options.rounds)
        windows(prepared, options.rounds)


if __name__ == "__main__":
    main()
