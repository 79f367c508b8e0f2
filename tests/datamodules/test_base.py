from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from datamodules.base import TalkheadDataModule
from datamodules.hdtf import HDTFDataModule
from datamodules.sampling import spread
from datamodules.synthetic import SyntheticDataModule
from talkhead.batch import (
    FeatureSource,
    FrameBatch,
    FramePairs,
    Needs,
    SequenceBatch,
    Sequences,
    WindowBatch,
    Windows,
)
from talkhead.errors import ConfigError, DataError
from tests.datamodules.fakes import make_prepared


class Channels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1))


def _source() -> FeatureSource:
    return FeatureSource("v", "0" * 12, "frames", Channels(), 3, 32)


class Probe(LightningModule):
    """A stage that notes a fingerprint of every batch it gets."""

    def __init__(self, needs: Needs) -> None:
        super().__init__()
        self.net = nn.Linear(3, 1)
        self.wanted = needs
        self.seen: list[float] = []
        self.validated: list[float] = []

    def needs(self) -> Needs:
        return self.wanted

    def feature_sources(self) -> dict[str, FeatureSource]:
        return {"v": _source()} if isinstance(self.wanted, Sequences) else {}

    def _value(self, batch: Any) -> Tensor:
        if isinstance(batch, SequenceBatch):
            return batch.features["v"].mean(dim=(0, 1)) + batch.start.float().sum()
        frames = batch.target if isinstance(batch, FrameBatch) else batch.frames[:, 0]
        return torch.as_tensor(frames.float().mean(dim=(0, 2, 3)))

    def training_step(self, batch: Any, index: int) -> Tensor:
        value = self._value(batch)
        self.seen.append(float(value.sum()))
        out: Tensor = self.net(1e-3 * value).sum()
        self.log("train/loss", out)
        return out

    def validation_step(self, batch: Any, index: int) -> None:
        self.validated.append(float(self._value(batch).sum()))

    def test_step(self, batch: Any, index: int) -> None:
        self.validation_step(batch, index)

    def predict_step(self, batch: Any, index: int) -> int:
        return len(batch.clip)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


def _trainer(folder: Path, steps: int, **options: Any) -> Trainer:
    checkpoints = ModelCheckpoint(
        folder, "{step}", save_top_k=-1, every_n_train_steps=1, auto_insert_metric_name=False
    )
    return Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[checkpoints],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


NEEDS: list[Needs] = [FramePairs(2, 16), Windows(6, 16), Sequences(20)]


@pytest.mark.parametrize("needs", NEEDS)
def test_every_need_trains_validates_tests_predicts_and_resumes(
    own_set: Path, tmp_path: Path, needs: Needs
) -> None:
    def data() -> TalkheadDataModule:
        return TalkheadDataModule(str(own_set), batch_size=3, seed=5, epoch_items=9)

    whole = Probe(needs)
    trainer = _trainer(tmp_path / "run", 8)
    trainer.fit(whole, datamodule=data())
    assert len(whole.seen) == 8
    assert len(set(whole.seen)) == 8
    # Three batches an epoch: two whole epochs, each followed by the same validation.
    half = len(whole.validated) // 2
    assert whole.validated[:half] == whole.validated[half : 2 * half]
    for done in (2, 3, 5):
        resumed = Probe(needs)
        again = _trainer(tmp_path / "run", 8)
        again.fit(resumed, datamodule=data(), ckpt_path=tmp_path / "run" / f"{done}.ckpt")
        assert resumed.seen == whole.seen[done:]
    tested = Probe(needs)
    trainer.test(tested, datamodule=data(), verbose=False)
    assert tested.validated
    counts = trainer.predict(Probe(needs), datamodule=data())
    assert counts is not None
    assert sum(int(str(c)) for c in counts) == len(data_of(own_set, needs, "test"))


def data_of(root: Path, needs: Needs, split: str) -> Any:
    """Dataset of one split, made without a trainer."""
    module = TalkheadDataModule(str(root))
    module.attach(needs, {"v": _source()} if isinstance(needs, Sequences) else {})
    module.prepare_data()
    module.setup({"train": "fit", "val": "fit", "test": "test"}[split])
    return module._split(split)


def test_batches_without_a_trainer(own_set: Path) -> None:
    module = TalkheadDataModule(str(own_set), batch_size=4, val_items=3, eval_length=30)
    module.attach(Sequences(20), {"v": _source()})
    module.prepare_data()
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert isinstance(batch, SequenceBatch)
    assert batch.motion.shape == (4, 20, module.prepared.motion_dim)
    (val,) = list(module.val_dataloader())
    assert val.motion.shape[:2] == (3, 30)
    with pytest.raises(ConfigError, match="split test is not set up"):
        module.test_dataloader()
    module.attach(Windows(4, 16))
    module.setup("test")
    assert isinstance(next(iter(module.test_dataloader())), WindowBatch)


def test_fewer_test_samples_are_spread_over_the_split(own_set: Path) -> None:
    def clips(items: int | None) -> list[str]:
        module = TalkheadDataModule(str(own_set), batch_size=1, test_items=items)
        module.attach(Windows(4, 16))
        module.setup("test")
        return [name for batch in module.test_dataloader() for name in batch.clip]

    everything, some = clips(None), clips(3)
    assert len(some) == 3 < len(everything)
    assert some == [everything[i] for i in spread(len(everything), 3)]


def test_workers_give_the_same_batches(own_set: Path) -> None:
    def batches(workers: int) -> list[Tensor]:
        module = TalkheadDataModule(str(own_set), batch_size=2, num_workers=workers)
        module.attach(FramePairs(1, 16))
        module.setup("fit")
        return [batch.target for batch in module.train_dataloader()]

    for here, there in zip(batches(0), batches(2), strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=0)


def test_overfitting_repeats_its_batches(own_set: Path, tmp_path: Path) -> None:
    probe = Probe(FramePairs(1, 16))
    module = TalkheadDataModule(str(own_set), batch_size=2)
    _trainer(tmp_path, 6, overfit_batches=2).fit(probe, datamodule=module)
    assert probe.seen[:2] == probe.seen[2:4] == probe.seen[4:]


def test_data_block_and_paths(shared_set: Path) -> None:
    module = SyntheticDataModule(str(shared_set))
    block = module.data_block()
    meta = json.loads((shared_set / "prepared.json").read_text())
    assert block["dataset"] == "synthetic"
    assert block["data_fingerprint"] == meta["data_fingerprint"]
    assert block["audio"]["sample_rate_hz"] == 16_000
    assert module.clip_truth_path(module.prepared.all_rows[0]) == Path(
        meta["raw_root"], "s00/v0/c00.truth.npz"
    )
    assert module.motion_model.dim == module.motion_stats.mean.shape[0]


def test_wrong_settings_are_explained(shared_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HDTFDataModule expects a set prepared from hdtf"):
        _ = HDTFDataModule(str(shared_set)).prepared
    with pytest.raises(DataError, match="talkhead prepare"):
        _ = TalkheadDataModule(str(tmp_path / "none")).prepared
    module = TalkheadDataModule(str(shared_set))
    with pytest.raises(ConfigError, match="call attach"):
        module.setup("fit")
    with pytest.raises(ConfigError, match="no stage to serve"):
        _ = module.store
    module.attach(FramePairs(1, 16))
    module.batch_size = 1000
    module.setup("fit")
    with pytest.raises(ConfigError, match="expected at least 1000 items"):
        module.train_dataloader()
    lone = TalkheadDataModule(str(make_prepared(tmp_path, speakers=1, clips=1, frames=8)))
    lone.attach(FramePairs(1, 16))
    with pytest.raises(DataError, match="split val"):
        lone.setup("fit")


DDP = """
import sys, json, torch
from pathlib import Path
from lightning.pytorch import Trainer
from datamodules.base import TalkheadDataModule
from talkhead.batch import FramePairs
from tests.datamodules.test_base import Probe

class Notes(Probe):
    def on_train_end(self):
        Path(sys.argv[2], f"{self.trainer.world_size}-{self.global_rank}.json").write_text(
            json.dumps([self.seen, self.net.weight.detach().flatten().tolist()]))

devices = int(sys.argv[3])
torch.manual_seed(0)
trainer = Trainer(max_steps=5, accelerator="cpu", devices=devices, logger=False,
    strategy="ddp" if devices > 1 else "auto", enable_checkpointing=False, limit_val_batches=0,
    enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=True)
data = TalkheadDataModule(sys.argv[1], batch_size=4 // devices, epoch_items=10)
trainer.fit(Notes(FramePairs(1, 16)), datamodule=data)
"""


@pytest.mark.slow
def test_two_processes_see_the_batches_of_one_with_doubled_size(
    own_set: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository), "MASTER_PORT": port}
    for devices in ("1", "2"):
        command = [sys.executable, str(script), str(own_set), str(tmp_path), devices]
        done = run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    whole, weight = json.loads((tmp_path / "1-0.json").read_text())
    ranks = [json.loads((tmp_path / f"2-{r}.json").read_text()) for r in (0, 1)]
    # The fingerprint is a mean over the batch, so two half batches average to the whole.
    means = [(a + b) / 2 for a, b in zip(ranks[0][0], ranks[1][0], strict=True)]
    assert means == pytest.approx(whole, rel=1e-5)
    assert ranks[0][1] == pytest.approx(weight, rel=1e-4)
