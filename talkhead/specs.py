"""The one time base of the suite and every conversion between its clocks.

Video runs at 25 frames a second and audio at 16 kHz mono, so one video frame is exactly 640 samples,
four mel steps (100 a second) and two HuBERT steps (50 a second). Frame ``f`` covers the samples
``[640 f, 640 (f + 1))`` and its centre is sample ``640 f + 320``.

Source: ``reference-facts.md`` sections 2.1 and 11 (a common 25 fps / 16 kHz clock makes the four
papers interoperable).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from talkhead.errors import SpecError

FPS = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS
N_LANDMARKS = 478
"""MediaPipe face mesh with refined irises: 468 mesh points, then 5 points for each iris."""


@dataclass(frozen=True)
class VideoSpec:
    """Frame clock, picture size in pixels (square crops) and crop policy.

    The policy is that of :mod:`talkhead.geometry.crop`; a stage takes it over from its data.
    """

    fps: int = FPS
    size: int = 224
    crop: str = "fixed_box:0.5"


@dataclass(frozen=True)
class AudioSpec:
    """Sample clock and the mel front end of the audio encoders (PC-AVS numbers, centred windows)."""

    sample_rate_hz: int = SAMPLE_RATE_HZ
    samples_per_frame: int = SAMPLES_PER_FRAME
    n_mels: int = 80
    n_fft: int = 1280
    hop: int = 160
    f_min_hz: float = 125.0
    f_max_hz: float = 7600.0
    window_frames: int = 5

    @property
    def steps_per_frame(self) -> int:
        """Mel steps in one video frame (4)."""
        return self.samples_per_frame // self.hop

    @property
    def window_steps(self) -> int:
        """Mel steps in one encoder window (20, that is 0.2 s)."""
        return self.window_frames * self.steps_per_frame


def frames_to_samples(frames: int, audio: AudioSpec | None = None) -> int:
    """Length in samples of ``frames`` whole video frames; ``frames_to_samples(25) == 16000``."""
    return frames * (audio or AudioSpec()).samples_per_frame


def samples_to_frames(samples: int, audio: AudioSpec | None = None) -> int:
    """Whole video frames that ``samples`` cover, rounding down; ``samples_to_frames(16639) == 25``."""
    return samples // (audio or AudioSpec()).samples_per_frame


def frame_time_s(frame: int, fps: int = FPS) -> float:
    """Start time of a frame in seconds; ``frame_time_s(25) == 1.0``."""
    return frame / fps


def nearest_frame(time_s: float, fps: int = FPS) -> int:
    """Frame on screen at ``time_s`` (floor with a guard for rounding); ``nearest_frame(0.04) == 1``."""
    return int(time_s * fps + 1e-6)


def window_start_step(frame: int, audio: AudioSpec | None = None) -> int:
    """First mel step of the window centred on a frame; ``window_start_step(2) == 0``, can be negative."""
    spec = audio or AudioSpec()
    return spec.steps_per_frame * (frame - spec.window_frames // 2)


def spec_dict(spec: VideoSpec | AudioSpec) -> dict[str, Any]:
    """Plain dictionary of a spec, as written into checkpoints and prepared sets."""
    return asdict(spec)


def check_same_clock(where: str, expected: dict[str, Any], got: dict[str, Any]) -> None:
    """Refuse to mix two parts whose clocks differ.

    Args:
        where: What is being read, for the message.
        expected: Spec dictionary of the reader.
        got: Spec dictionary found.

    Raises:
        SpecError: A shared key differs, other than the picture size, which networks may choose.
    """
    wrong = {
        k: (v, got[k]) for k, v in expected.items() if k in got and k != "size" and got[k] != v
    }
    if wrong:
        found = ", ".join(f"{k}: expected {e}, got {g}" for k, (e, g) in wrong.items())
        raise SpecError(
            f"{where} was made with another clock or crop ({found}); "
            "make it again with the current settings (talkhead prepare, or re-train the stage)."
        )
