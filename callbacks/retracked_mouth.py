"""Mouths of drawn faces tracked again, added to the test of the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from talkhead.errors import ConfigError


class RetrackedMouth(Callback):
    """Give the test of ``audio2exp`` a face tracker.

    Adds mouth opening, mouth motion in silence and their rank correlation with alpha on tracked pictures,
    ``…[retracked:renderer]``; see :class:`talkhead.stages.adapter_scores.AdapterScores`. Needs mediapipe;
    about 10 ms for each drawn frame, of which the test makes ``test_frames`` for every clip, mode and alpha.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the tracker.

        Raises:
            ConfigError: The stage tracks nothing.
        """
        stage: Any = pl_module
        if not hasattr(stage, "tracker"):
            raise ConfigError(
                f"RetrackedMouth: expected stage audio2exp, got {type(pl_module).__name__}; remove the "
                "callback from this stage's config."
            )
        stage.tracker = _Retracking()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the stage as it was."""
        stage: Any = pl_module
        stage.tracker = None


class _Retracking:
    """Landmarks of pictures ``(T, 3, H, W)`` uint8, enlarged for the tracker."""

    def __init__(self) -> None:
        from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh

        self._landmarker = MediaPipeMesh()

    def __call__(self, pictures: Tensor) -> tuple[NDArray[np.float32] | None, float]:
        from talkhead.retracking import track_rendered

        return track_rendered(self._landmarker, _enlarged(pictures))


def _enlarged(pictures: Tensor) -> Iterator[NDArray[np.uint8]]:
    from talkhead.generation.portrait import resized
    from talkhead.retracking import RENDER_SIZE

    for picture in pictures:
        yield resized(picture.permute(1, 2, 0).numpy(), RENDER_SIZE)
