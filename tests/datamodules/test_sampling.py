from __future__ import annotations

import itertools
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.sampling import (
    EpochBatches,
    EpochLoader,
    item_below,
    item_rng,
    spread,
    training_position,
)
from talkhead.errors import ConfigError


class Numbers(Dataset[int]):
    """Item ``i`` is the number ``i``."""

    def __getitem__(self, item: int) -> int:
        return item


class Recorder(LightningModule):
    """Notes the items of every training batch."""

    def __init__(self, num_workers: int = 0) -> None:
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
        self.num_workers = num_workers
        self.seen: list[list[int]] = []

    def train_dataloader(self) -> EpochLoader[Tensor]:
        batches = EpochBatches(14, 2, seed=3)
        return EpochLoader(
            Numbers(),
            batches,
            torch.tensor,
            self.num_workers,
            lambda: training_position(self.trainer),
        )

    def val_dataloader(self) -> EpochLoader[Tensor]:
        return EpochLoader(
            Numbers(), EpochBatches(3, 2, shuffle=False, drop_last=False), torch.tensor
        )

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        self.seen.append(batch.tolist())
        out: Tensor = self.net(batch.float()[:, None]).mean()
        return out

    def validation_step(self, batch: Tensor, index: int) -> None:
        return None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-6)


def _trainer(folder: Path, steps: int, **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def _fit(
    folder: Path,
    workers: int,
    resume: Path | None = None,
    steps: int = 17,
    model: Recorder | None = None,
    **options: Any,
) -> Any:
    every = ModelCheckpoint(
        folder, "step{step}", save_top_k=-1, every_n_train_steps=3, auto_insert_metric_name=False
    )
    ends = ModelCheckpoint(
        folder,
        "end{step}",
        save_top_k=-1,
        every_n_epochs=1,
        auto_insert_metric_name=False,
        save_on_train_epoch_end=True,
    )
    model = model or Recorder(workers)
    trainer = _trainer(folder, steps, callbacks=[every, ends], **options)
    trainer.fit(model, ckpt_path=resume)
    return model.seen


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"val_check_interval": 3},
        {"limit_train_batches": 5},
        {"limit_val_batches": 0},
        {"max_epochs": 3, "steps": -1},
    ],
)
def test_resume_continues_with_the_next_batch(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = _fit(tmp_path / "whole", 0, **options)
    assert len(whole) == (21 if "max_epochs" in options else 17)
    checkpoints = sorted((tmp_path / "whole").glob("*.ckpt"))
    names = {path.stem for path in checkpoints}
    # Mid-epoch, epoch boundaries (7 batches an epoch, or 5), and a later epoch.
    assert {"step3", "step6", "step9", "step12", "step15"} <= names
    assert ("end5" if "limit_train_batches" in options else "end7") in names
    for path in checkpoints:
        done = int(path.stem.strip("stepnd"))
        assert _fit(tmp_path / "whole", 0, path, **options) == whole[done:], path.stem


def test_resume_with_worker_processes(tmp_path: Path) -> None:
    whole = _fit(tmp_path / "whole", 2, steps=9)
    assert whole == _fit(tmp_path / "alone", 0, steps=9)
    for done in (3, 6):
        checkpoint = tmp_path / "whole" / f"step{done}.ckpt"
        assert _fit(tmp_path / "whole", 2, checkpoint, steps=9) == whole[done:]


def _fit_until_killed(folder: Path) -> None:
    class Killed(Recorder):
        def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
            if len(self.seen) == 5:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)

    _fit(folder, 0, steps=12, model=Killed())


@pytest.mark.slow
def test_resume_after_sigkill(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_fit_until_killed, args=(tmp_path / "killed",), daemon=True
    )
    process.start()
    process.join(120)
    assert process.exitcode == -9
    whole = _fit(tmp_path / "whole", 0, steps=12)
    resumed = _fit(tmp_path / "killed", 0, tmp_path / "killed" / "step3.ckpt", steps=12)
    assert resumed == whole[3:]


@pytest.mark.parametrize("n", [12, 24, 26, 29])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_see_the_batches_of_one_process(n: int, world: int) -> None:
    alone = EpochBatches(n, 4 * world, seed=5)
    ranks = [EpochBatches(n, 4, seed=5, rank=r, world=world) for r in range(world)]
    for epoch in (0, 1):
        for batches in (alone, *ranks):
            batches.epoch = epoch
        together = [list(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]
        assert together == list(alone)
        assert all(len(batches) == len(alone) for batches in ranks)


@pytest.mark.parametrize("n", range(3, 40))
def test_evaluation_sees_every_item_once_in_equally_many_batches(n: int) -> None:
    ranks = [EpochBatches(n, 4, rank=r, world=3, shuffle=False, drop_last=False) for r in range(3)]
    seen = [list(batches) for batches in ranks]
    assert sorted(i for batches in seen for batch in batches for i in batch) == list(range(n))
    assert {len(batches) for batches in seen} == {len(ranks[0])}
    assert all(batch for batches in seen for batch in batches)


def test_start_batch_leaves_out_the_beginning_but_not_the_length() -> None:
    whole = EpochBatches(20, 3, seed=1)
    later = EpochBatches(20, 3, seed=1, start_batch=4)
    assert list(later) == list(whole)[4:]
    assert len(later) == len(whole) == 6


def test_items_of_an_epoch_are_numbered_on() -> None:
    batches = EpochBatches(10, 2, seed=1)
    batches.epoch = 3
    assert sorted(itertools.chain(*batches)) == list(range(30, 40))


def test_order_follows_seed_and_epoch() -> None:
    assert list(EpochBatches(30, 3, seed=1)) == list(EpochBatches(30, 3, seed=1))
    assert list(EpochBatches(30, 3, seed=1)) != list(EpochBatches(30, 3, seed=2))
    second = EpochBatches(30, 3, seed=1)
    second.epoch = 1
    assert [[i - 30 for i in b] for b in second] != list(EpochBatches(30, 3, seed=1))


def test_too_few_items_is_an_error() -> None:
    with pytest.raises(ConfigError, match="expected at least 8 items"):
        EpochBatches(7, 4, world=2)
    with pytest.raises(ConfigError, match="rank"):
        EpochBatches(8, 4, rank=2, world=2)


def test_changed_settings_are_reported_on_resume(caplog: pytest.LogCaptureFixture) -> None:
    loader = EpochLoader(Numbers(), EpochBatches(20, 2), torch.tensor)
    loader.load_state_dict({"items": 20, "global_batch": 2, "seed": 0})
    assert not caplog.records
    loader.load_state_dict({"items": 20, "global_batch": 4, "seed": 0})
    assert "global_batch 4 -> 2" in caplog.text


def test_draws_depend_on_seed_and_item_only() -> None:
    assert item_rng(1, 2).integers(1 << 30) == item_rng(1, 2).integers(1 << 30)
    assert item_rng(1, 2).integers(1 << 30) != item_rng(1, 3).integers(1 << 30)
    draws = [item_below(10, 0, i) for i in range(2000)]
    counts = torch.bincount(torch.tensor(draws), minlength=10)
    assert draws == [item_below(10, 0, i) for i in range(2000)]
    # Chi-square with 9 degrees of freedom: 33.7 is the 0.0001 quantile.
    assert float(((counts - 200.0) ** 2 / 200.0).sum()) < 33.7


def test_spread_keeps_order_and_ends() -> None:
    assert list(spread(5, None)) == [0, 1, 2, 3, 4]
    assert list(spread(9, 3)) == [0, 4, 8]
