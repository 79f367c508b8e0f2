"""The checkpoint an interrupted run resumes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from talkhead.errors import ConfigError


class LastCheckpoint(Checkpoint):
    """Overwrite ``last.ckpt`` every so many steps and after each epoch, atomically.

    Lightning's ``ModelCheckpoint(save_last=True)`` writes it only together with a best checkpoint,
    or after the last epoch, when weight averaging has already replaced the raw weights a resumed
    fit needs.
    """

    def __init__(self, dirpath: str, every_n_steps: int = 500) -> None:
        """Configure the callback.

        Args:
            dirpath: Folder of ``last.ckpt``.
            every_n_steps: Optimiser steps between two writes within an epoch.

        Raises:
            ConfigError: ``every_n_steps`` is below 1.
        """
        if every_n_steps < 1:
            raise ConfigError(
                f"checkpoint_every_n_steps: expected at least 1, got {every_n_steps}."
            )
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._saved_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not rewrite the checkpoint that was just resumed from."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in the middle of an epoch."""
        if trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the epoch's validation."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        """Save unless this step was saved already; every rank takes part."""
        if trainer.global_step > self._saved_step and not getattr(trainer, "fast_dev_run", False):
            self._saved_step = trainer.global_step
            trainer.save_checkpoint(self.path, weights_only=False)
