"""Rates that fall in steps, as the stages without an adversary train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from talkhead.errors import ConfigError
from talkhead.stages.adversarial import trainable


class Decay(Protocol):
    """A stage with these options."""

    lr_decay: float
    lr_decay_batches: int


class Rates(Decay, Protocol):
    """A stage with these options, too."""

    lr: float
    weight_decay: float

    @property
    def fused_adam(self) -> bool:
        """See :class:`talkhead.stages.base.Stage`."""
        ...


def step_decayed_adamw(stage: Rates, parts: Iterable[nn.Module]) -> OptimizerLRScheduler:
    """AdamW on what is trainable in ``parts``, :func:`step_decayed`.

    Args:
        stage: Where the rates are.
        parts: Modules to train.

    Returns:
        What ``configure_optimizers`` returns, the schedule counted in batches.
    """
    optimizer = torch.optim.AdamW(
        list(trainable(parts)),
        lr=stage.lr,
        weight_decay=stage.weight_decay,
        fused=stage.fused_adam,
    )
    return step_decayed(stage, optimizer)


def step_decayed(stage: Decay, optimizer: torch.optim.Optimizer) -> OptimizerLRScheduler:
    """An optimiser whose rate falls every ``lr_decay_batches`` batches.

    Returns:
        What ``configure_optimizers`` returns, the schedule counted in batches.

    Raises:
        ConfigError: A factor of 0 or less, or a step of no batches.
    """
    if stage.lr_decay <= 0 or stage.lr_decay_batches < 1:
        raise ConfigError(
            "lr_decay: expected a factor above 0 every 1 or more batches (lr_decay_batches), got "
            f"{stage.lr_decay} and {stage.lr_decay_batches}; a factor of 1 keeps the rate."
        )
    rates: Any = torch.optim.lr_scheduler.StepLR(optimizer, stage.lr_decay_batches, stage.lr_decay)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}
