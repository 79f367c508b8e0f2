"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from talkhead.errors import ConfigError


class EMA(WeightAveraging):
    """Average the weights while fitting, validate with the average, and save it.

    After the run, checkpoints carry the average in ``state_dict`` (what test, predict and later
    stages read) and the raw weights in ``current_model_state`` (what a resumed fit continues from).
    Buffers (batch-norm statistics, counters) are copied, not averaged: an averaged integer counter
    stands still.

    With ``modules``, only the named top-level parts are averaged; the others follow the raw
    weights. A GAN averages its generator and encoders (``modules: [generator]``), since a
    discriminator is only meaningful against the generator it was trained with. The memory of one
    copy of the stage is used either way.

    Source: Lightning's ``WeightAveraging``; the multi-tensor average, as the per-tensor one of
    ``EMAWeightAveraging`` is about five times slower on the CPU.
    """

    def __init__(
        self, decay: float = 0.999, start_step: int = 0, modules: Sequence[str] | None = None
    ) -> None:
        """Configure the average.

        Args:
            decay: Share of the old average kept at each optimiser step, in [0, 1).
            start_step: The average follows the raw weights exactly until this step.
            modules: Top-level attribute names of the stage to average, all of them when None.

        Raises:
            ConfigError: ``decay`` is out of range.
        """
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"EMA: expected 0 <= decay < 1, got {decay}.")
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.start_step = start_step
        self.modules = list(modules) if modules is not None else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the copy when a fit begins.

        Raises:
            ConfigError: The stage has no part of a given name.
        """
        children = dict(pl_module.named_children())
        unknown = [name for name in self.modules or [] if name not in children]
        if unknown:
            raise ConfigError(
                f"EMA: {type(pl_module).__name__} has no part {', '.join(unknown)}; "
                f"expected some of {', '.join(children)}."
            )
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every optimiser step."""
        return step_idx is not None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, then let what is not averaged follow the raw weights."""
        before = self._latest_update_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._latest_update_step == before or self._average_model is None:
            return
        early = trainer.global_step <= self.start_step
        with torch.no_grad():
            for average, raw in self._pairs(pl_module, everything=early):
                average.copy_(raw)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore both sets of weights for a fit; elsewhere ``state_dict`` is the average already."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _pairs(self, pl_module: LightningModule, everything: bool) -> list[tuple[Tensor, Tensor]]:
        """Averaged and raw parameters of the parts that are not averaged (or of all)."""
        if self._average_model is None or (self.modules is None and not everything):
            return []
        averaged = self._average_model.module.named_parameters()
        raw = dict(pl_module.named_parameters())
        return [
            (tensor.detach(), raw[name].detach())
            for name, tensor in averaged
            if everything or name.split(".")[0] not in (self.modules or [])
        ]
