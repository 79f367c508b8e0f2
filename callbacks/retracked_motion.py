"""Motion scored as it is seen, added to the test of a prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from talkhead.errors import ConfigError

RENDERERS = ("mesh", "generator")
MIN_FRAMES = 8
"""Shorter runs have no second moments to compare."""


class RetrackedMotion(Callback):
    """Render test samples, track the faces again and score what was tracked.

    Adds ``var``, ``fid_fm``, ``fid_dfm``, ``snd`` and ``found`` ``[retracked:<renderer>]`` to the test of
    a motion prior, for the model, the real codes (``gt/``) and the training mean (``mean/``). Needs
    mediapipe; about 10 ms a frame and renderer.
    """

    def __init__(
        self,
        renderers: Sequence[str] = ("mesh", "generator"),
        clips: int = 16,
        frames: int | None = None,
    ) -> None:
        """Configure the measurement.

        Args:
            renderers: ``mesh``, ``generator`` or both; ``generator`` needs a prior that carries one.
            clips: Runs of frames that are rendered, the first of the test split (of each rank).
            frames: Frames of each run, from its beginning; all of them when None.

        Raises:
            ConfigError: Unknown renderer, no clip, or too few frames to score.
        """
        unknown = sorted(set(renderers) - set(RENDERERS))
        if unknown or not renderers:
            raise ConfigError(
                f"RetrackedMotion: expected renderers among {', '.join(RENDERERS)}, got "
                f"{', '.join(unknown) or 'none'}."
            )
        if clips < 1:
            raise ConfigError(f"RetrackedMotion: expected at least 1 clip, got {clips}.")
        self.renderers: list[Any] = list(dict.fromkeys(renderers))
        if frames is not None and frames < MIN_FRAMES:
            raise ConfigError(
                f"RetrackedMotion: expected at least {MIN_FRAMES} frames, got {frames}."
            )
        self.clips, self.frames = clips, frames

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add one evaluator for each renderer.

        Raises:
            ConfigError: The stage is no motion prior.
        """
        from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh
        from talkhead.retracking import RetrackedScores

        stage: Any = pl_module
        if not hasattr(stage, "clip_evaluators"):
            raise ConfigError(
                f"RetrackedMotion: expected a motion prior, got {type(pl_module).__name__}; remove the "
                "callback from this stage's config."
            )
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by every talkhead command
        tracker = MediaPipeMesh()
        stage.clip_evaluators += [
            RetrackedScores(stage, data, renderer, tracker, self.clips, self.frames)
            for renderer in self.renderers
        ]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the stage as it was."""
        stage: Any = pl_module
        stage.clip_evaluators.clear()
