"""What stages with two optimisers share: one step of one of them, and how steps are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor


def take_step(
    stage: LightningModule, optimizer: LightningOptimizer, loss: Tensor, grad_clip: float
) -> None:
    """Step down the gradient of a loss, the gradient no longer than ``grad_clip`` (0 for any length).

    The Trainer refuses its own clipping under manual optimisation.
    """
    optimizer.zero_grad()
    stage.manual_backward(loss)
    if grad_clip > 0:
        stage.clip_gradients(
            cast(Any, optimizer), gradient_clip_val=grad_clip, gradient_clip_algorithm="norm"
        )
    optimizer.step()


def leave_out_of_global_step(optimizer: LightningOptimizer) -> None:
    """Keep an optimiser's steps out of ``trainer.global_step``, so that it counts batches.

    Lightning counts through these two hooks (Lightning-AI/pytorch-lightning issue 17958).
    """
    nothing: Callable[[], None] = lambda: None  # noqa: E731 - a named no-op for two attributes
    optimizer._on_before_step = nothing
    optimizer._on_after_step = nothing
