"""How strongly an adapter acts rises over the first batches of training."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from talkhead.errors import ConfigError


class AlphaRamp(Callback):
    r"""Raise the stage's ``alpha`` from ``start`` to ``end`` over ``warmup_batches``, then keep it.

    In batch ``b`` (the first is 0), ``alpha = start + (end - start) min(1, b / warmup_batches)``. The
    schedule is a function of the batches the stage has seen, which its checkpoint holds, so a resumed fit
    goes on where it was.

    A zero module at alpha 0 gets no gradient and would never move; ``start`` is therefore above 0.

    Source: ControlTalk section 3.2, "alpha would gradually increase from 0 to 1"; the shape is not given,
        reference-facts 7.4 and 10. Deviates: from 0.001, linear.
    """

    def __init__(self, warmup_batches: int = 10_000, start: float = 1e-3, end: float = 1.0) -> None:
        """Configure the ramp.

        Args:
            warmup_batches: Batches until ``end`` is reached; 0 is there from the start.
            start: Alpha of the first batch, above 0.
            end: Alpha at the end.

        Raises:
            ConfigError: A number out of range.
        """
        if warmup_batches < 0:
            raise ConfigError(
                f"AlphaRamp: expected warmup_batches of at least 0, got {warmup_batches}."
            )
        if not (math.isfinite(end) and 0.0 < start <= end):
            raise ConfigError(
                f"AlphaRamp: expected 0 < start <= end, got {start} and {end}; at alpha 0 no gradient "
                "reaches the zero module, so begin with a small number such as 0.001."
            )
        self.warmup_batches, self.start, self.end = warmup_batches, start, end

    def alpha(self, batch: int) -> float:
        """Alpha of a batch, counted from 0."""
        if batch >= self.warmup_batches:
            return self.end
        return self.start + (self.end - self.start) * batch / self.warmup_batches

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a stage whose strength cannot be set.

        Raises:
            ConfigError: The stage has no ``alpha``.
        """
        if not isinstance(getattr(pl_module, "alpha", None), float):
            raise ConfigError(
                f"AlphaRamp: expected a stage with a number alpha such as Audio2ExpStage, got "
                f"{type(pl_module).__name__}; remove the callback from this stage's config."
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set alpha for this batch and log it."""
        # Callbacks come before the stage's own hook, which counts this batch.
        stage: Any = pl_module
        stage.alpha = self.alpha(int(stage.batches_seen))
        pl_module.log("train/alpha", stage.alpha)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the stage at full strength."""
        stage: Any = pl_module
        stage.alpha = self.end
