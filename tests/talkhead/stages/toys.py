"""Tiny stages for tests of what all stages share."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from talkhead.checkpoint import Source, resolve
from talkhead.networks.component import Component
from talkhead.stages.base import Stage


class ToyEncoder(Component):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.layer(x))
        return out


class ToyHead(Component):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class FirstStage(Stage):
    exports = ("encoder",)
    default_weights = {"size": 1.0, "watched": 0.0}

    def __init__(self, width: int = 4, weights: dict[str, float] | None = None) -> None:
        super().__init__(weights)
        self.save_hyperparameters()
        self.encoder = ToyEncoder(width)

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        noise = torch.randn(())
        return {"size": (self.encoder(batch) + noise).square().mean(), "watched": noise}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weighted(self.losses(batch), "train", len(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class SecondStage(Stage):
    consumes = ("encoder",)
    exports = ("head",)
    default_weights = {"size": 1.0}

    def __init__(self, encoder: Source, weights: dict[str, float] | None = None) -> None:
        super().__init__(weights)
        self.save_hyperparameters()
        self.encoder = resolve(ToyEncoder, encoder, "encoder")
        self.head = ToyHead(int(self.encoder.spec["width"]))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return {"size": (self.head(self.encoder(batch)) - 1).square().mean()}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weighted(self.losses(batch), "train", len(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=1e-2)


def loader(batches: int = 6) -> DataLoader[Any]:
    """The same batch again and again, so that only random numbers could tell two steps apart."""
    data = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).repeat(batches, 1)
    return DataLoader(data, batch_size=8)  # type: ignore[arg-type]  # a tensor is a dataset
