"""Gradient norms of the stage's parts, logged now and then."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from talkhead.errors import ConfigError


class GradNorms(Callback):
    """Log the L2 norm of the gradient of every top-level part as ``grad_norm/<part>``.

    Measured before clipping, so that it shows what clipping would cut.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        """Configure the callback.

        Args:
            every_n_steps: Batches between two measurements.

        Raises:
            ConfigError: ``every_n_steps`` is below 1.
        """
        if every_n_steps < 1:
            raise ConfigError(f"GradNorms: expected every_n_steps >= 1, got {every_n_steps}.")
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the parameters this optimiser is about to change."""
        if trainer.global_step % self.every_n_steps:
            return
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        norms = {}
        for name, part in pl_module.named_children():
            grads = [
                p.grad.detach() for p in part.parameters() if p.grad is not None and id(p) in mine
            ]
            if grads:
                norms[f"grad_norm/{name}"] = torch.stack([g.float().norm() for g in grads]).norm()
        if norms:
            pl_module.log_dict(norms)
