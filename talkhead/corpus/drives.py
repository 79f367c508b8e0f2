"""What in the speech moves the head: three fixed linear filters of the prosody."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talkhead.corpus.autoregression import Real
from talkhead.corpus.prosody import PROSODY_FEATURES
from talkhead.errors import ShapeError
from talkhead.specs import FPS

DRIVES = ("accent", "lift", "engagement")
_MARGIN_FRAMES = 40


def _gauss(width_s: float, delay_s: float) -> NDArray[np.float64]:
    """Gaussian kernel of unit sum over ``-40..40`` frames, delayed."""
    times = np.arange(-_MARGIN_FRAMES, _MARGIN_FRAMES + 1) / FPS
    bell = np.exp(-0.5 * ((times - delay_s) / width_s) ** 2)
    return np.asarray(bell / bell.sum())


def _kernels() -> NDArray[np.float64]:
    """Kernel of every drive and feature, ``(3, P, 81)``."""
    energy, pitch, pause = (PROSODY_FEATURES.index(n) for n in ("energy", "pitch", "pause"))
    out = np.zeros((len(DRIVES), len(PROSODY_FEATURES), 2 * _MARGIN_FRAMES + 1))
    bump = _gauss(0.09, 0.04) - _gauss(0.4, 0.04)
    out[0, energy], out[0, pitch] = 0.8 * bump, 0.6 * bump
    out[1, pitch], out[1, energy] = _gauss(0.22, 0.06), 0.25 * _gauss(0.22, 0.06)
    out[2, energy], out[2, pause] = 0.7 * _gauss(0.5, 0.2), -0.7 * _gauss(0.5, 0.2)
    return out


KERNELS = _kernels()
"""``(3, P, 81)``: response of each drive to each feature from 40 frames (1.6 s) before to after."""

DRIVE_GAINS = np.array([1.73, 1.34, 2.14])
"""Makes the mean square of each drive one over the embedded corpus (measured, see the tests)."""

DRIVE_CORRELATION = np.array([[1.0, 0.62, 0.32], [0.62, 1.0, 0.48], [0.32, 0.48, 1.0]])
"""``E[d d']`` over the embedded corpus after the gains (measured, see the tests)."""


def prosody_drives(features: Real) -> NDArray[np.float64]:
    """Drives of every frame: a linear, time-invariant function of the z-scored prosody.

    - ``accent``: difference of Gaussians (90 ms and 400 ms wide, 40 ms late) of 0.8 energy + 0.6
      pitch: stressed syllables.
    - ``lift``: Gaussian (220 ms, 60 ms late) of pitch + 0.25 energy: phrase melody.
    - ``engagement``: Gaussian (500 ms, 200 ms late) of 0.7 energy - 0.7 pause: speaking or not.

    Each is multiplied with its :data:`DRIVE_GAINS`. Beyond its ends a clip counts as silent in the
    statistical sense: the features are 0, their mean.

    Args:
        features: ``(T, P)``, see :class:`talkhead.corpus.prosody.Prosody`.

    Returns:
        ``(T, 3)`` in the order of :data:`DRIVES`.

    Raises:
        ShapeError: Not ``(T, P)``.
    """
    if features.ndim != 2 or features.shape[1] != len(PROSODY_FEATURES):
        raise ShapeError(
            f"prosody features must be (T, {len(PROSODY_FEATURES)}), got {features.shape}; "
            "use measure_prosody(wave).features."
        )
    frames = len(features)
    out = np.zeros((frames, len(DRIVES)))
    for d, per_feature in enumerate(KERNELS):
        for f, kernel in enumerate(per_feature):
            if kernel.any():
                full = np.convolve(features[:, f].astype(np.float64), kernel)
                out[:, d] += full[_MARGIN_FRAMES : _MARGIN_FRAMES + frames]
    return np.asarray(out * DRIVE_GAINS)
