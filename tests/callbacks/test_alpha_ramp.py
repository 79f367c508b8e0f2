from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from callbacks.alpha_ramp import AlphaRamp
from talkhead.errors import ConfigError
from tests.talkhead.stages.short_runs import trainer


class Adapter(LightningModule):
    """Counts its batches as every stage does."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.batches_seen = 1.0, 0
        self.linear = torch.nn.Linear(1, 1)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.batches_seen += 1

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches_seen = checkpoint["batches_seen"]

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.linear(batch).square().sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


class Noted(Callback):
    def __init__(self) -> None:
        self.alphas: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any
    ) -> None:
        self.alphas.append(pl_module.alpha)
        assert float(trainer.callback_metrics["train/alpha"]) == pytest.approx(pl_module.alpha)


def data() -> DataLoader[Any]:
    return DataLoader([torch.ones(1)] * 3, batch_size=1)  # type: ignore[arg-type]  # a list is a dataset


def test_the_ramp_by_hand() -> None:
    ramp = AlphaRamp(4, 0.2, 1.0)
    assert [ramp.alpha(b) for b in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert AlphaRamp(0).alpha(0) == 1.0
    assert AlphaRamp().alpha(0) == 1e-3  # never 0


def test_a_resumed_fit_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = Noted()
    made = Adapter()
    trainer(tmp_path, 6, AlphaRamp(4, 0.2), whole).fit(made, data())
    assert whole.alphas == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert made.alpha == 1.0
    first, rest = Noted(), Noted()
    run = trainer(tmp_path, 3, AlphaRamp(4, 0.2), first)
    run.fit(Adapter(), data())
    run.save_checkpoint(tmp_path / "half.ckpt")
    again = trainer(tmp_path, 6, AlphaRamp(4, 0.2), rest)
    again.fit(Adapter(), data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert first.alphas + rest.alphas == pytest.approx(whole.alphas)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at alpha 0 no gradient"):
        AlphaRamp(10, 0.0)
    with pytest.raises(ConfigError, match="0 < start <= end"):
        AlphaRamp(10, 2.0, 1.0)
    with pytest.raises(ConfigError, match="warmup_batches"):
        AlphaRamp(-1)
    other = LightningModule()
    with pytest.raises(ConfigError, match="remove the callback"):
        AlphaRamp().on_fit_start(trainer(tmp_path, 1), other)
