"""Fits of a few steps, and what every stage must keep when one of them is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import (
    Callback,
    LightningDataModule,
    LightningModule,
    Trainer,
    seed_everything,
)

from talkhead import cli
from talkhead.stages.base import Stage

S = TypeVar("S", bound=Stage)
STEPS = 6


class Losses(Callback):
    """The loss of every step, in order."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self.values.append(float(trainer.callback_metrics["train/loss"]))


def trainer(folder: Path, steps: int, *callbacks: Callback, **options: Any) -> Trainer:
    cli.quieten(["fit"])
    return Trainer(
        default_root_dir=folder, max_steps=steps, accelerator="cpu", devices=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=False, callbacks=list(callbacks), **options,
    )  # fmt: skip


def interrupted(
    make: Callable[[], S], data: Callable[[], LightningDataModule], folder: Path
) -> tuple[S, Path]:
    """A stage stopped half-way and its checkpoint, which goes on with the very losses of a whole fit."""

    def fit(steps: int, **options: Any) -> tuple[S, Trainer, list[float]]:
        seed_everything(5)
        made, noted = make(), Losses()
        run = trainer(folder, steps, noted, limit_val_batches=0)
        run.fit(made, datamodule=data(), **options)
        return made, run, noted.values

    _, _, whole = fit(STEPS)
    half, run, first = fit(STEPS // 2)
    path = folder / "last.ckpt"
    run.save_checkpoint(path)
    _, _, rest = fit(STEPS, ckpt_path=path, weights_only=True)
    assert len(whole) == STEPS
    assert first + rest == whole
    return half, path
