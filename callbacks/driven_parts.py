"""What each of the two codes moves, added to the test of the disentanglement GAN."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from talkhead.errors import ConfigError
from talkhead.ranks import gather_rows


class DrivenParts(Callback):
    """Drive test clips by one code while the other stands still, track the faces and score them.

    Adds ``<mode>/<score>[retracked:generator]`` to the test of ``lip_disentangle``, with the modes
    ``both``, ``lip_only`` and ``nonlip_only``; see :class:`talkhead.driving.DrivingScores`. Needs
    mediapipe; about 30 ms a frame.
    """

    def __init__(
        self, clips: int = 16, frames: int = 150, still: Literal["zero", "first"] = "zero"
    ) -> None:
        """Configure the measurement.

        Args:
            clips: Test clips that are rendered, the first of the split (of each rank).
            frames: Frames of each clip.
            still: What the other code stands still at: ``zero``, or ``first``, its value at the clip's first
                frame (paper 1 says "fixed" and its supplement "zeros"; reference-facts 10 reads zeros).

        Raises:
            ConfigError: An option is out of range.
        """
        if clips < 1 or frames < 2:
            raise ConfigError(
                f"DrivenParts: expected at least 1 clip and 2 frames, got {clips} and {frames}."
            )
        if still not in ("zero", "first"):
            raise ConfigError(f"DrivenParts: expected still to be zero or first, got {still!r}.")
        self.clips, self.frames, self.still = clips, frames, still

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Render, track, score and log the means over clips.

        Raises:
            ConfigError: The stage is not ``lip_disentangle``.
        """
        from talkhead.driving import DrivingScores
        from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh

        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by every talkhead command
        score = DrivingScores(pl_module, data, MediaPipeMesh(), self.still, self.frames)
        rows = data.prepared.rows("test")[trainer.global_rank :: trainer.world_size][: self.clips]
        here: list[dict[str, Any]] = [{"clip": row.id, **score(row)} for row in rows]
        pl_module.per_clip_results = here  # type: ignore[assignment]  # for MetricsJson
        everywhere = gather_rows(here)
        names = sorted({name for clip in everywhere for name in clip if name != "clip"})
        for name in names:
            known = [clip[name] for clip in everywhere if name in clip]
            pl_module.log(f"test/{name}", sum(known) / len(known), rank_zero_only=True)
