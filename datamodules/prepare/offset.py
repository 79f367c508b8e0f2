"""How many frames picture and sound of a clip are apart, without a trained network.

A ridge regression from mel frames to mouth opening, fitted on *other* clips, predicts when the
mouth should open; where the prediction fits the picture best is the offset. An estimate for sorting
out badly synchronised material, good to about two frames: a syncer does better.

Sign: positive means the video lags, so the mouth opens after its sound is heard.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ShapeError

FloatArray = NDArray[np.floating[Any]]

MAX_SHIFT_FRAMES = 10
CLEAR = 0.15
"""An estimate is trusted if its peak leads all offsets over three frames away by this much."""
_BANDS = 20
_CONTEXT = 3
_FOLDS = 5
_RIDGE = 10.0


@dataclass(frozen=True)
class Offset:
    """An estimate.

    Attributes:
        frames: Video frames by which the video lags (+) or leads (-) the sound.
        confidence: Correlation at that offset minus the best one more than three frames away.
        correlation: Correlation of predicted and seen mouth opening at that offset.
    """

    frames: int
    confidence: float
    correlation: float

    @property
    def clear(self) -> bool:
        """Whether the estimate can be trusted."""
        return self.confidence >= CLEAR


def _standard(values: FloatArray) -> FloatArray:
    """Zero mean and unit deviation over time."""
    rows = np.asarray(values, np.float64)
    out: FloatArray = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
    return out


def audio_features(mel: FloatArray) -> FloatArray:
    """Mel bands of each video frame with three frames of context on either side.

    Args:
        mel: Log-mel, ``(4T, 80)``.

    Returns:
        ``(T, 140)`` float64, standardised within the clip.

    Raises:
        ShapeError: Not whole video frames, or another number of bands.
    """
    values = np.asarray(mel, np.float64)
    if values.ndim != 2 or len(values) % 4 or values.shape[1] % _BANDS:
        raise ShapeError(f"expected a mel (4T, 80), got {values.shape}.")
    frames = len(values) // 4
    pooled = _standard(values.reshape(frames, 4, _BANDS, -1).mean(axis=(1, 3)))
    padded = np.pad(pooled, ((_CONTEXT, _CONTEXT), (0, 0)), mode="edge")
    return np.concatenate([padded[i : i + frames] for i in range(2 * _CONTEXT + 1)], axis=1)


def best_shift(expected: FloatArray, seen: FloatArray) -> Offset:
    """Shift of ``seen`` against ``expected``, both ``(T,)``, with the highest correlation.

    ``seen[t] = expected[t - 2]`` gives ``frames == 2``.
    """
    span = min(MAX_SHIFT_FRAMES, max(0, (len(seen) - 10) // 2))
    shifts = np.arange(-span, span + 1)
    scores = np.array([_correlation(expected, seen, int(k)) for k in shifts])
    peak = int(np.argmax(scores))
    far = scores[np.abs(shifts - shifts[peak]) > 3]
    confidence = float(scores[peak] - far.max()) if far.size else 0.0
    return Offset(int(shifts[peak]), confidence, float(scores[peak]))


def _correlation(expected: FloatArray, seen: FloatArray, shift: int) -> float:
    """Correlation of ``expected[t]`` with ``seen[t + shift]`` over the overlap."""
    a = expected[max(0, -shift) : len(expected) - max(0, shift)]
    b = seen[max(0, shift) : len(seen) - max(0, -shift)]
    return float((_standard(a) * _standard(b)).mean())


class OffsetEstimator:
    """Ridge regression from sound to mouth opening, cross-fitted over speakers.

    First :meth:`add` every clip, then :meth:`estimate` each; memory does not grow with the clips. A
    clip is always predicted from clips of other groups, so that its own offset cannot hide itself.

    Args:
        by_speaker: Keep speakers apart; with few speakers, clips are kept apart instead.
    """

    def __init__(self, *, by_speaker: bool = True) -> None:
        """Empty sums."""
        width = _BANDS * (2 * _CONTEXT + 1)
        self._by_speaker = by_speaker
        self._gram = np.zeros((_FOLDS, width, width))
        self._moment = np.zeros((_FOLDS, width))
        self._weights: dict[int, FloatArray | None] = {}

    def _fold(self, clip: str, speaker: str) -> int:
        name = speaker if self._by_speaker else clip
        return hashlib.sha256(name.encode()).digest()[0] % _FOLDS

    def add(self, clip: str, speaker: str, mel: FloatArray, mouth: FloatArray) -> None:
        """Learn from a clip: log-mel ``(4T, 80)`` and mouth opening ``(T,)``."""
        fold = self._fold(clip, speaker)
        features = audio_features(mel)
        self._gram[fold] += features.T @ features
        self._moment[fold] += features.T @ _standard(mouth)
        self._weights.clear()

    def estimate(
        self, clip: str, speaker: str, mel: FloatArray, mouth: FloatArray
    ) -> Offset | None:
        """Offset of a clip, or None when there is no other clip to learn from."""
        fold = self._fold(clip, speaker)
        if fold not in self._weights:
            gram = self._gram.sum(axis=0) - self._gram[fold]
            moment = self._moment.sum(axis=0) - self._moment[fold]
            empty = not np.abs(moment).max() > 0
            scale = np.trace(gram) / len(gram)
            ridge = gram + (_RIDGE + 1e-2 * scale) * np.eye(len(gram))
            self._weights[fold] = None if empty else np.linalg.solve(ridge, moment)
        weights = self._weights[fold]
        if weights is None:
            return None
        return best_shift(audio_features(mel) @ weights, np.asarray(mouth, np.float64))


def shift_audio(audio: NDArray[np.int16], samples: int) -> NDArray[np.int16]:
    """Delay sound by some samples (earlier if negative), keeping the length; ends are silent."""
    out = np.zeros_like(audio)
    keep = len(audio) - abs(samples)
    if keep > 0:
        out[max(0, samples) : max(0, samples) + keep] = audio[max(0, -samples) :][:keep]
    return out
