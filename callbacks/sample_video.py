"""Pictures of what a stage makes, once per validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray

from talkhead.errors import ConfigError, ShapeError
from talkhead.media.encode import write_video
from talkhead.report.contact_sheet import contact_sheet


class SampleVideo(Callback):
    """Save the stage's samples of the first validation batch as an mp4 and a contact sheet.

    A stage takes part by offering ``sample_frames(batch)``, which returns ``(n, H, W, 3)`` uint8
    RGB frames as a tensor or array; for other stages the callback does nothing. The files go to
    ``<run folder>/samples`` and, when a W&B logger is there, to W&B by path (H.264, which browsers
    show; W&B's own encoder would need another library). Sampling uses a fixed seed and leaves the
    training's random numbers alone, so that epochs can be compared.
    """

    def __init__(
        self, every_n_epochs: int = 1, max_frames: int = 64, sheet_columns: int = 8
    ) -> None:
        """Configure the callback.

        Args:
            every_n_epochs: Epochs between two samples.
            max_frames: Frames kept of what the stage returns.
            sheet_columns: Columns of the contact sheet.

        Raises:
            ConfigError: A number is below 1.
        """
        if min(every_n_epochs, max_frames, sheet_columns) < 1:
            raise ConfigError(
                "SampleVideo: expected every_n_epochs, max_frames and sheet_columns of at least 1, got "
                f"{every_n_epochs}, {max_frames} and {sheet_columns}."
            )
        self.every_n_epochs = every_n_epochs
        self.max_frames = max_frames
        self.sheet_columns = sheet_columns

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Sample from the first batch, on rank 0."""
        sample = getattr(pl_module, "sample_frames", None)
        skip = batch_idx or dataloader_idx or trainer.sanity_checking or not trainer.is_global_zero
        if sample is None or skip or trainer.current_epoch % self.every_n_epochs:
            return
        cuda = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(0)
            frames = as_frames(sample(batch))[: self.max_frames]
        stem = Path(trainer.default_root_dir) / "samples" / f"step_{trainer.global_step:08d}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        video, sheet = stem.with_suffix(".mp4"), stem.with_suffix(".png")
        write_video(video, frames)
        contact_sheet(frames, sheet, count=self.max_frames, columns=self.sheet_columns)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                log_to_wandb(logger, video, sheet)


def as_frames(frames: Any) -> NDArray[np.uint8]:
    """Frames as an array with even sides, which H.264 needs.

    Raises:
        ShapeError: Not ``(n, H, W, 3)`` uint8.
    """
    array = frames.cpu().numpy() if isinstance(frames, torch.Tensor) else np.asarray(frames)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or len(array) == 0:
        raise ShapeError(
            f"sample_frames: expected (n, H, W, 3) uint8 with n > 0, got {array.shape} {array.dtype}."
        )
    height, width = array.shape[1] // 2 * 2, array.shape[2] // 2 * 2
    return np.ascontiguousarray(array[:, :height, :width])


def log_to_wandb(logger: WandbLogger, video: Path, sheet: Path) -> None:
    """Send finished files; the step is W&B's own, as Lightning's logger counts it."""
    import wandb

    logger.experiment.log(
        {
            "samples/video": wandb.Video(str(video), format="mp4"),
            "samples/sheet": wandb.Image(str(sheet)),
        }
    )
