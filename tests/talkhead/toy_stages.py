"""Tiny stages and a tiny datamodule: everything the command line does, without pictures or
sound."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from datamodules.base import TalkheadDataModule
from talkhead.checkpoint import resolve
from talkhead.networks.component import Component
from talkhead.stages.base import Stage
from talkhead.stages.two_optimisers import leave_out_of_global_step


class ToyHead(Component):
    def __init__(self, dim: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(4, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class ToyStage(Stage):
    """Regress the row sum with one linear layer."""

    exports = ("head",)
    default_weights = {"square": 1.0}

    def __init__(
        self,
        dim: int = 4,
        lr: float = 1e-2,
        weight_decay: float = 0.01,
        betas: list[float] = [0.5, 0.99],  # noqa: B006 - as in the shipped stages
        optimizer: Literal["adam", "adamw"] = "adamw",
        sampler_steps: int | None = 50,
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(weights)
        self.save_hyperparameters()
        self.lr, self.weight_decay, self.optimizer_name = lr, weight_decay, optimizer
        self.betas = (betas[0], betas[1])
        self.sampler_steps = sampler_steps
        self.head = ToyHead(dim)

    @classmethod
    def stage_name(cls) -> str:
        return cls.__name__

    def losses(self, batch: Any) -> dict[str, Tensor]:
        (x,) = batch
        return {"square": (self.head(x).sum(1) - x.sum(1)).square().mean()}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.weighted(self.losses(batch), "train", len(batch[0]))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.weighted(self.losses(batch), "val", len(batch[0]))

    def on_test_epoch_start(self) -> None:
        self.per_clip_results = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.weighted(self.losses(batch), "test", len(batch[0]))
        self.log("test/steps[code]", float(self.sampler_steps or 0))
        self.per_clip_results.append({"clip": f"clip{batch_idx}", "rows": len(batch[0])})

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.head(batch[0])  # type: ignore[no-any-return]  # nn.Module calls are untyped

    def sample_frames(self, batch: Any) -> Tensor:
        return torch.randint(0, 255, (5, 33, 48, 3), dtype=torch.uint8)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        made = torch.optim.AdamW if self.optimizer_name == "adamw" else torch.optim.Adam
        return made(self.parameters(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


class ToyOtherStage(ToyStage):
    """The same with another default and one more option."""

    exports = ("head",)

    def __init__(self, dim: int = 5, lr: float = 2e-2, look_ahead: int = 0) -> None:
        super().__init__(dim, lr)
        self.save_hyperparameters()


class ToyConsumer(ToyStage):
    """Uses the first toy's frozen head."""

    consumes = ("teacher",)
    exports = ("head",)

    def __init__(self, teacher: str | dict[str, Any], dim: int = 4) -> None:
        super().__init__(dim)
        self.save_hyperparameters()
        self.teacher = resolve(ToyHead, teacher, "teacher" if isinstance(teacher, dict) else "head")


class ToyGan(ToyStage):
    """Two optimisers under manual optimisation; each step uses only one part's parameters."""

    def __init__(self, dim: int = 4, grad_clip: float = 0.0) -> None:
        super().__init__(dim)
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.grad_clip = grad_clip
        self.critic = ToyHead(1)

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        # Two optimisers return no loss, unlike the parent.
        opt_g, opt_d = cast(list[LightningOptimizer], self.optimizers())
        leave_out_of_global_step(opt_d)
        for optimizer, part in ((opt_g, self.head), (opt_d, self.critic)):
            optimizer.zero_grad()
            self.manual_backward(part(batch[0]).square().mean())
            optimizer.step()

    def configure_optimizers(self) -> Any:
        parts = (self.head, self.critic)
        return [torch.optim.Adam(part.parameters(), lr=self.lr) for part in parts]


class ToyData(TalkheadDataModule):
    """Forty rows of four numbers, always the same."""

    def __init__(self, rows: int = 40, batch_size: int = 4) -> None:
        LightningDataModule.__init__(self)
        self.save_hyperparameters()
        self.rows, self.batch_size = rows, batch_size

    def prepare_data(self) -> None:
        """Nothing to prepare."""

    def setup(self, stage: str) -> None:
        self.table = torch.randn(self.rows, 4, generator=torch.Generator().manual_seed(7))

    @property
    def prepared(self) -> Any:
        """No prepared set stands behind these rows."""
        return None

    def data_block(self) -> dict[str, Any]:
        return {"dataset": "toy", "synthetic": True, "clips": 1, "frames": self.rows}

    def rows_loader(self) -> Any:
        """The same rows, whatever they are for."""
        return DataLoader(TensorDataset(self.table), batch_size=self.batch_size)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = rows_loader
