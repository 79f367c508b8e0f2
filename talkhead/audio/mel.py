"""Mel spectrogram on the video clock: four steps a frame, each centred on its own samples."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from talkhead.errors import ShapeError
from talkhead.specs import AudioSpec, samples_to_frames, window_start_step

TARGET_RMS = 0.1
RMS_FLOOR = 1e-4
AMPLITUDE_FLOOR = 1e-5
REFERENCE_DB = 20.0
RANGE_DB = 100.0


def mel_spectrogram(
    wave: Tensor, spec: AudioSpec | None = None, *, rms: float | None = None
) -> Tensor:
    """Log-mel spectrogram of a clip, aligned to its video frames.

    The wave is scaled to an RMS of 0.1 (so that loudness drops out), framed so that step ``m`` is
    centred on sample ``hop * m + hop / 2``, and mapped to
    ``clip((20 log10(max(1e-5, mel)) - 20 + 100) / 100, 0, 1)``. Silence and everything outside the
    clip is 0. With 640 samples a frame, frame ``f`` owns the steps ``4 f .. 4 f + 3``.

    Args:
        wave: Mono samples in [-1, 1], ``(S,)``; samples beyond the last whole frame are dropped.
        spec: Clock and filter bank, by default :class:`AudioSpec`.
        rms: Level of the whole recording, when ``wave`` is a piece of it; measured by default.

    Returns:
        ``(4 T, F)`` float32 in [0, 1] with ``T = S // 640``.

    Raises:
        ShapeError: Not one axis of floating-point samples.

    Source: PC-AVS numbers (reference-facts 2.1); deviates: a centred Hann window in place of lws,
        whose lead-in shifts its windows by 30 ms.
    """
    spec = spec or AudioSpec()
    if wave.ndim != 1 or not wave.is_floating_point():
        raise ShapeError(
            f"expected float samples (S,) in [-1, 1], got {wave.dtype} {tuple(wave.shape)}; "
            "mix down to mono and divide 16-bit samples by 32768."
        )
    frames = samples_to_frames(wave.shape[0], spec)
    steps = frames * spec.steps_per_frame
    if steps == 0:
        return wave.new_zeros(0, spec.n_mels, dtype=torch.float32)
    wave = wave[: frames * spec.samples_per_frame].float()
    level = float(wave.square().mean().sqrt()) if rms is None else rms
    magnitude = _magnitude(wave * (TARGET_RMS / max(level, RMS_FLOOR)), steps, spec)
    mel = magnitude @ _filter_bank(spec).to(wave.device)
    decibel = 20.0 * mel.clamp_min(AMPLITUDE_FLOOR).log10() - REFERENCE_DB
    return ((decibel + RANGE_DB) / RANGE_DB).clamp(0.0, 1.0)


def mel_windows(mel: Tensor, frames: Tensor, spec: AudioSpec | None = None) -> Tensor:
    """The 0.2 s of sound around each of the given frames.

    The window of frame ``f`` holds the steps ``[4 (f - 2), 4 (f - 2) + 20)``; steps outside the
    clip are 0, which is the value of silence.

    Args:
        mel: Spectrogram of the whole clip, ``(4 T, F)``.
        frames: Frame numbers ``(n,)``, integers in ``[0, T)``.
        spec: Clock, by default :class:`AudioSpec`.

    Returns:
        ``(n, 1, F, M)`` with ``M = 20``, same type as ``mel``.

    Raises:
        ShapeError: ``mel`` has not two axes, or ``frames`` not one axis of integers.
    """
    spec = spec or AudioSpec()
    if mel.ndim != 2:
        raise ShapeError(f"expected a spectrogram (4 T, F), got {tuple(mel.shape)}; pass one clip.")
    if frames.ndim != 1 or frames.is_floating_point():
        raise ShapeError(
            f"expected frame numbers (n,) of an integer type, got {frames.dtype} "
            f"{tuple(frames.shape)}."
        )
    start = spec.steps_per_frame * frames.to(mel.device) + window_start_step(0, spec)
    steps = start[:, None] + torch.arange(spec.window_steps, device=mel.device)
    inside = (steps >= 0) & (steps < mel.shape[0])
    if mel.shape[0] == 0:
        return mel.new_zeros(len(frames), 1, mel.shape[1], spec.window_steps)
    picked = mel[steps.clamp(0, mel.shape[0] - 1)] * inside[..., None].to(mel.dtype)
    return picked.transpose(1, 2).unsqueeze(1)


def _magnitude(wave: Tensor, steps: int, spec: AudioSpec) -> Tensor:
    """STFT magnitudes ``(steps, n_fft / 2 + 1)`` of windows centred on ``hop * m + hop / 2``."""
    lead = spec.n_fft // 2 - spec.hop // 2
    tail = (steps - 1) * spec.hop + spec.n_fft - lead - wave.shape[0]
    window = torch.hann_window(spec.n_fft, device=wave.device)
    spectrum = torch.stft(
        F.pad(wave, (lead, tail)),
        spec.n_fft,
        spec.hop,
        window=window,
        center=False,
        return_complex=True,
    )
    return spectrum.abs().T


@lru_cache(maxsize=4)
def _filter_bank(spec: AudioSpec) -> Tensor:
    """Slaney mel filters ``(n_fft / 2 + 1, F)``."""
    # A tensor made under inference_mode would poison every later use that needs a gradient.
    with torch.inference_mode(False):
        bank: Tensor = melscale_fbanks(
            n_freqs=spec.n_fft // 2 + 1,
            f_min=spec.f_min_hz,
            f_max=spec.f_max_hz,
            n_mels=spec.n_mels,
            sample_rate=spec.sample_rate_hz,
            norm="slaney",
            mel_scale="slaney",
        )
    return bank
