"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

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

    Source: Lightning's ``WeightAveraging``, which keeps, swaps and saves the copy. Its update also
    averages every frozen parameter and walks over the stage's modules at each step, which costs a
    prior with its encoders a fifth of a small training step; ours touches what learns.
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
        super().__init__(use_buffers=False)
        self.decay, self.start_step = decay, start_step
        self.modules = list(modules) if modules is not None else None
        self._averaged: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._copied: list[tuple[Tensor, Tensor]] = []

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide what is averaged: frozen parameters need neither averaging nor copying."""
        assert self._average_model is not None  # made in setup
        raw = dict(pl_module.named_parameters())
        averages: list[Tensor] = []
        raws: list[Tensor] = []
        self._copied = list(
            zip(self._average_model.module.buffers(), pl_module.buffers(), strict=True)
        )
        for name, average in self._average_model.module.named_parameters():
            if not raw[name].requires_grad:
                continue
            if self.modules is None or name.split(".")[0] in self.modules:
                averages.append(average.detach())
                raws.append(raw[name].detach())
            else:
                self._copied.append((average.detach(), raw[name].detach()))
        self._averaged = averages, raws

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, and let what is not averaged follow the raw weights."""
        step = trainer.global_step
        if step <= self._latest_update_step or self._average_model is None:
            return
        self._latest_update_step = step
        early = int(self._average_model.n_averaged) == 0 or step <= self.start_step
        averages, raws = self._averaged
        with torch.no_grad():
            if averages:
                torch._foreach_lerp_(averages, raws, 1.0 if early else 1.0 - self.decay)
            for target, source in self._copied:
                target.copy_(source)
        self._average_model.n_averaged += 1

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore both sets of weights for a fit; elsewhere ``state_dict`` is the average already."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
