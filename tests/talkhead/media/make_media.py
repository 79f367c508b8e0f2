"""Small media files whose frames say their own number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

BITS = 10
CELL = 16
RATE = 16_000
_CLOCK = 90_000


def numbered(number: int) -> NDArray[np.uint8]:
    """A picture with a number written in black and white cells, ``(64, 160, 3)``."""
    bits = np.array([(number >> b) & 1 for b in range(BITS)], np.uint8) * 255
    row = np.repeat(bits, CELL)
    return np.repeat(np.repeat(row[None, :, None], 64, axis=0), 3, axis=2)


def read_number(picture: NDArray[np.uint8]) -> int:
    """The number in a picture of :func:`numbered`."""
    middle = picture[32, CELL // 2 :: CELL, 1]
    return int(sum(1 << b for b in range(BITS) if middle[b] > 127))


def write_media(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    times_s: Sequence[float],
    wave: NDArray[np.float32] | None = None,
    *,
    audio_start_s: float = 0.0,
    rate: float = 25.0,
) -> Path:
    """An mp4 with any presentation times and optional mono sound at 16 kHz."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.time_base = Fraction(1, _CLOCK)
        video.codec_context.time_base = Fraction(1, _CLOCK)
        video.options = {"crf": "12", "preset": "ultrafast", "bf": "0"}
        sound = None
        if wave is not None:
            sound = container.add_stream("aac", rate=RATE)
            sound.layout = "mono"
        for picture, time in zip(pictures, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = round(time * _CLOCK)
            frame.time_base = Fraction(1, _CLOCK)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None and wave is not None:
            for start in range(0, len(wave), 1024):
                block = wave[start : start + 1024].astype(np.float32)[None]
                chunk = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                chunk.sample_rate = RATE
                chunk.pts = start + round(audio_start_s * RATE)
                chunk.time_base = Fraction(1, RATE)
                container.mux(sound.encode(chunk))
            container.mux(sound.encode(None))
    return path


def expected_numbers(times_s: Sequence[float], frames: int) -> list[int]:
    """Frame on screen in the middle of each 25 fps slot, by a plain search."""
    out = []
    for t in range(frames):
        now = (t + 0.5) / 25 + times_s[0]
        out.append(max(i for i, start in enumerate(times_s) if start <= now + 1e-6))
    return out


def tone_bursts(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Noise that comes and goes: loud enough to count as sound."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 2.3 * time)
    return np.asarray(0.2 * envelope * rng.standard_normal(len(time)), np.float32)
