"""What silence sounds like to an expert."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.errors import DataError
from talkhead.media.decode import read_audio
from talkhead.specs import SAMPLE_RATE_HZ
from talkhead.stages.speech_features import SpeechFront


def silence_window(front: SpeechFront, length: int, file: str | None = None) -> Tensor:
    """Features of silence.

    Args:
        front: The speech features.
        length: Steps ``L`` of a window, 50 a second.
        file: Sound file that begins with silence; None is a second of digital silence.

    Returns:
        The first steps, ``(L, D)``.

    Raises:
        ConfigError: The features need weights that are missing.
        DataError: A file that cannot be read or is shorter than a window.

    Source: ControlTalk's released code takes the first 18 steps of an example file, with an option for
        zeros that is off (reference-facts 7.5). Deviates: zeros by default, as that file is not ours.
    """
    if file is None:
        wave = torch.zeros(max(SAMPLE_RATE_HZ, length * SAMPLE_RATE_HZ // 25))
    else:
        wave = torch.from_numpy(read_audio(file, end_s=max(1.0, length / 25)))
    with torch.no_grad():
        found = front.features(wave)[:length]
    if len(found) < length:
        raise DataError(
            f"silence: expected a file of at least {length / 50:.2f} s, {file} gives {len(found)} of "
            f"{length} steps; give a longer one, or none for digital silence."
        )
    return found
