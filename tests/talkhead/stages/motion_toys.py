"""Tiny priors on the toy process, through a datamodule without files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from talkhead.batch import SequenceBatch
from talkhead.stages.motion_ar import MotionARStage
from talkhead.stages.motion_diffusion import MotionDiffusionStage
from talkhead.stages.motion_prior import MotionPriorStage
from tests.oracles.toy_motion import AUDIO_DIM, CODE_DIM, FRAMES, toy_motion

PARTS: dict[str, Any] = {
    "audio_encoder": {
        "dim": AUDIO_DIM,
        "widths": [2, 2, 2, 2],
        "counts": [1, 1, 1, 1],
        "reduction": 1,
    },
    "motion_encoder": {"dim": 6, "width_mult": 0.1},
    "nonlip_head": {"dim": 6, "code_dim": CODE_DIM, "hidden": 6},
    "lip_head": {"dim": AUDIO_DIM, "code_dim": 5},
}
PRIOR: dict[str, Any] = {
    "width": 16,
    "layers": 1,
    "heads": 2,
    "feedforward": 16,
    "dropout": 0.1,
    "max_length": 16,
}


def diffusion(**options: Any) -> MotionDiffusionStage:
    return MotionDiffusionStage(
        **{**PARTS, "prior": PRIOR, "validation_clips": 2, "lr": 3e-3, **options}
    )


def autoregressive(**options: Any) -> MotionARStage:
    return MotionARStage(**{**PARTS, "prior": PRIOR, "validation_clips": 2, "lr": 3e-3, **options})


def toy_batch(
    rows: int = 4, frames: int = 16, seed: int = 0, short: int | None = None
) -> SequenceBatch:
    """Runs of the toy process; the last row has ``short`` valid frames."""
    audio, motion = toy_motion(rows, seed)
    valid = torch.ones(rows, frames, dtype=torch.bool)
    if short is not None:
        valid[-1, short:] = False
    mask = valid[..., None]
    return SequenceBatch(
        features={"audio": audio[:, :frames] * mask, "nonlip": (3 * motion[:, :frames] + 1) * mask},
        motion=torch.zeros(rows, frames, 3),
        valid=valid,
        start=torch.zeros(rows, dtype=torch.int64),
        clip=[f"clip{seed}-{i}" for i in range(rows)],
    )


@dataclass
class _Row:
    id: str
    index: int


@dataclass
class _Prepared:
    count: int

    def rows(self, split: str) -> list[_Row]:
        assert split == "train"
        return [_Row(f"r{i}", i) for i in range(self.count)]


@dataclass
class _Store:
    features: dict[str, Tensor] = field(default_factory=dict)

    def window(self, name: str, row: _Row) -> Tensor:
        return self.features[name][row.index]


class ToyData(LightningDataModule):
    """64 training runs in batches of 8, and one batch each for validation and test."""

    def __init__(self, eval_frames: int = 16) -> None:
        super().__init__()
        self.eval_frames = eval_frames
        self.whole = toy_batch(64, FRAMES, seed=1)
        self.prepared = _Prepared(64)
        self.store = _Store(dict(self.whole.features))

    def train_dataloader(self) -> DataLoader[Any]:
        # one and the same batch: a plain loader starts an interrupted epoch from its beginning
        batches = [toy_batch(8, 16, seed=10, short=12)] * 8
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style dataset

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([toy_batch(4, self.eval_frames, seed=2)], batch_size=None)  # type: ignore[arg-type]  # as above

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader([toy_batch(4, self.eval_frames, seed=3, short=20)], batch_size=None)  # type: ignore[arg-type]  # as above


def trainer(folder: Path, steps: int, *callbacks: Callback, **options: Any) -> Trainer:
    saver = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    return Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[saver, *callbacks],
        **{"num_sanity_val_steps": 0, **options},
    )


def with_statistics(stage: MotionPriorStage) -> MotionPriorStage:
    """Statistics as ``on_fit_start`` would take them."""
    flat = ToyData().whole.features
    for_codes, for_audio = flat["nonlip"].flatten(0, 1), flat["audio"].flatten(0, 1)
    stage.prior.set_statistics(
        for_codes.mean(0), for_codes.std(0), for_audio.mean(0), for_audio.std(0)
    )
    return stage
