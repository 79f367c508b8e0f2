"""What the callbacks leave behind, seen through real runs of a toy stage."""

from __future__ import annotations

import csv
import importlib
import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks import run_manifest
from callbacks.ema import EMA
from callbacks.grad_norms import GradNorms
from callbacks.json_files import plain, write_json
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.sample_video import SampleVideo, as_frames
from callbacks.save_config import SaveConfig, write_config
from talkhead import cli
from talkhead.errors import ConfigError, ShapeError
from talkhead.ranks import gather_rows
from tests.conftest import Run
from tests.talkhead.toy_stages import ToyData, ToyStage

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
FIT = ["fit", "--model=ToyStage", "--data=ToyData", "--trainer.max_epochs=1"]


def fit(stage: ToyStage, folder: Path, *callbacks: Any, steps: int = 3, **options: Any) -> Trainer:
    """A few steps in Python, without the command line."""
    cli.quieten(["fit"])
    torch.manual_seed(0)
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, max_steps=steps, callbacks=list(callbacks),
        logger=options.pop("logger", False), enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=1, num_sanity_val_steps=0, log_every_n_steps=1,
        **options,
    )  # fmt: skip
    trainer.fit(stage, datamodule=ToyData(rows=40))
    return trainer


class Recorder(EMA):
    """EMA that keeps the raw weights it saw."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.raw: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.raw.append(pl_module.head.linear.weight.detach().clone())
        super().on_train_batch_end(trainer, pl_module, *rest)


def test_ema_is_the_recurrence(tmp_path: Path) -> None:
    stage, ema = ToyStage(), Recorder(decay=0.9)
    fit(stage, tmp_path, ema, steps=4)
    average = ema.raw[0]
    for raw in ema.raw[1:]:
        average = 0.9 * average + 0.1 * raw
    torch.testing.assert_close(stage.head.linear.weight.detach(), average)


def test_ema_follows_raw_weights_until_its_start(tmp_path: Path) -> None:
    stage, ema = ToyStage(), Recorder(decay=0.9, start_step=3)
    fit(stage, tmp_path, ema, steps=4)
    expected = 0.9 * ema.raw[2] + 0.1 * ema.raw[3]
    torch.testing.assert_close(stage.head.linear.weight.detach(), expected)


def test_ema_of_named_parts_leaves_the_others_alone(tmp_path: Path) -> None:
    class TwoParts(ToyStage):
        def __init__(self) -> None:
            super().__init__()
            self.other = torch.nn.Linear(4, 1)

        def losses(self, batch: Any) -> dict[str, torch.Tensor]:
            (x,) = batch
            return {"square": super().losses(batch)["square"] + self.other(x).square().mean()}

    seen: list[torch.Tensor] = []

    class Watch(Recorder):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            seen.append(pl_module.other.weight.detach().clone())
            super().on_train_batch_end(trainer, pl_module, *rest)

    stage, ema = TwoParts(), Watch(decay=0.9, modules=["head"])
    fit(stage, tmp_path, ema, steps=4)
    torch.testing.assert_close(stage.other.weight.detach(), seen[-1])
    assert not torch.equal(stage.head.linear.weight.detach(), ema.raw[-1])


def test_ema_leaves_frozen_parameters_as_they_are_and_copies_buffers(tmp_path: Path) -> None:
    class Mixed(ToyStage):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = torch.nn.Linear(4, 1).requires_grad_(False)
            self.norm = torch.nn.BatchNorm1d(4)

        def losses(self, batch: Any) -> dict[str, torch.Tensor]:
            return super().losses([self.norm(x) for x in batch])

    stage, ema = Mixed(), Recorder(decay=0.9)
    before = stage.frozen.weight.clone()
    fit(stage, tmp_path, ema, steps=4)
    assert torch.equal(stage.frozen.weight, before)
    assert stage.norm.num_batches_tracked is not None
    assert stage.norm.num_batches_tracked.item() == 4
    average = ema.raw[0]
    for raw in ema.raw[1:]:
        average = 0.9 * average + 0.1 * raw
    torch.testing.assert_close(stage.head.linear.weight.detach(), average)


def test_ema_checkpoint_holds_average_and_raw(run: Run) -> None:
    root = run(*FIT, "--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.9")
    saved = torch.load(root / "checkpoints/last.ckpt", weights_only=True)
    average, raw = saved["state_dict"], saved["current_model_state"]
    assert not torch.equal(average["head.linear.weight"], raw["head.linear.weight"])
    # A test without the callback reads the average, without a warning.
    tested = run("test", f"--ckpt_path={root / 'checkpoints/last.ckpt'}", folder="test")
    loss = json.loads((tested / "metrics.json").read_text())["metrics"]["loss"]
    stage, data = ToyStage(), ToyData()
    stage.load_state_dict(average)
    data.setup("test")
    with torch.no_grad():
        expected = float(stage.losses([data.table])["square"])
    assert loss == pytest.approx(expected, rel=1e-5)


def test_grad_norms_are_the_norms(tmp_path: Path) -> None:
    class Watch(GradNorms):
        expected = 0.0

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            grads = [p.grad for p in pl_module.head.parameters()]
            self.expected = math.sqrt(sum(float(g.square().sum()) for g in grads))
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    norms = Watch(every_n_steps=1)
    trainer = fit(ToyStage(), tmp_path, norms, steps=1)
    assert float(trainer.logged_metrics["grad_norm/head"]) == pytest.approx(norms.expected)
    with pytest.raises(ConfigError, match="every_n_steps"):
        GradNorms(every_n_steps=0)


def test_sample_video_writes_clip_and_sheet(tmp_path: Path) -> None:
    from talkhead.media.decode import iter_frames

    stage = ToyStage()
    fit(stage, tmp_path, SampleVideo(), steps=10)
    files = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert files == ["step_00000010.mp4", "step_00000010.png"]
    frames = list(iter_frames(tmp_path / "samples" / files[0]))
    assert len(frames) == 5
    assert frames[0].shape == (32, 48, 3)  # 33 rows made even


def test_sampling_leaves_training_alone(tmp_path: Path) -> None:
    """The stage draws random numbers for its sample; the next step must not notice."""
    plain_run, sampled = ToyStage(), ToyStage()
    sampled.load_state_dict(plain_run.state_dict())
    fit(plain_run, tmp_path / "a", steps=20)
    fit(sampled, tmp_path / "b", SampleVideo(), steps=20)
    assert torch.equal(plain_run.head.linear.weight, sampled.head.linear.weight)


def test_samples_must_be_bytes_and_lose_an_odd_line() -> None:
    assert as_frames(np.zeros((2, 5, 4, 3), np.uint8)).shape == (2, 4, 4, 3)
    with pytest.raises(ShapeError, match="uint8"):
        as_frames(np.zeros((2, 4, 4, 3), np.float32))


def test_manifest_tells_the_whole_run(run: Run) -> None:
    root = run(*FIT, "--seed_everything=5", "--data.rows=8")
    record = json.loads((root / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 5
    assert record["data"]["dataset"] == "toy"
    assert record["global_step"] == 2
    assert record["command"].startswith("talkhead fit --model=ToyStage")
    assert record["versions"]["torch"].startswith("2.")
    assert record["started"] <= record["ended"]
    user = run(
        "fit", "--model=ToyConsumer", f"--model.teacher={root / 'checkpoints/last.ckpt'}",
        "--data=ToyData", "--trainer.max_epochs=1", folder="user",
    )  # fmt: skip
    graph = json.loads((user / "lineage.json").read_text())
    assert graph["consumes"]["teacher"]["stage"] == "ToyStage"
    assert len(graph["consumes"]["teacher"]["file_digest"]) == 64


def test_manifest_of_a_failed_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(self: ToyStage, batch: Any, batch_idx: int) -> torch.Tensor:
        raise ShapeError("batch of the wrong shape")

    monkeypatch.setattr(ToyStage, "training_step", broken)
    with pytest.raises(SystemExit) as left:
        run(*FIT)
    assert left.value.code == 2
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "wrong shape" in record["error"]


@pytest.mark.parametrize(
    ("exception", "code"), [(KeyboardInterrupt, 130), (SIGTERMException, 143)], ids=["int", "term"]
)
def test_a_stopped_run_is_no_finished_run(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    exception: type[BaseException],
    code: int,
) -> None:
    """Lightning itself would leave with 1 and with 0, which counts as success."""
    before = signal.getsignal(signal.SIGINT)

    def stopped(self: ToyStage, batch: Any, batch_idx: int) -> torch.Tensor:
        raise exception

    monkeypatch.setattr(ToyStage, "training_step", stopped)
    with pytest.raises(SystemExit) as left:
        run(*FIT)
    signal.signal(signal.SIGINT, before)  # Lightning ignores further interrupts
    assert left.value.code == code
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "interrupted"


def test_source_commit_is_none_outside_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_manifest, "_git", lambda folder, *args: "")
    assert run_manifest.source_commit() is None


def test_resume_without_the_predecessor_and_other_callbacks(run: Run) -> None:
    """Lists in a second config replace the first's; what every run needs stays."""
    root = run(*FIT)
    last = root / "checkpoints/last.ckpt"
    user = run(
        "fit", "--model=ToyConsumer", f"--model.teacher={last}", "--data=ToyData",
        "--trainer.max_epochs=1", folder="user",
    )  # fmt: skip
    last.unlink()
    run(
        "fit", f"--config={user / 'config.yaml'}", f"--ckpt_path={user / 'checkpoints/last.ckpt'}",
        "--trainer.max_epochs=2", "--trainer.callbacks=[]", folder="user",
    )  # fmt: skip
    assert torch.load(user / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 20
    assert json.loads((user / "run.json").read_text())["status"] == "finished"
    assert (user / "config.1.yaml").is_file()  # the first fit's configuration is kept


class FakeRun:
    """Stands in for a W&B run."""

    def __init__(self, folder: Path) -> None:
        self.dir, self.config, self.logged, self.summaries = str(folder), self, [], {}  # type: ignore[var-annotated]  # test double
        self.updates: dict[str, Any] = {}

    def update(self, values: dict[str, Any], allow_val_change: bool) -> None:
        self.updates |= values

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def define_metric(self, metric: str, summary: str) -> None:
        self.summaries[metric] = summary


class FakeWandb(WandbLogger):
    """A W&B logger without W&B."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeRun(folder)

    experiment = property(lambda self: self.fake)
    version = property(lambda self: "abc123")
    save_dir = property(lambda self: None)
    log_metrics = log_hyperparams = log_graph = lambda self, *a, **k: None  # type: ignore[assignment]
    finalize = save = after_save_checkpoint = lambda self, *a: None  # type: ignore[assignment]


def test_wandb_gets_the_nested_configuration(tmp_path: Path) -> None:
    class Parser:
        def dump(self, config: Any, **options: Any) -> str:
            return "model:\n  init_args: {lr: 0.1}\n"

    logger = FakeWandb(tmp_path)
    manifest = run_manifest.RunManifest()
    save: Any = SaveConfig(Parser(), {}, "fit")  # type: ignore[arg-type]  # test double
    fit(ToyStage(), tmp_path / "run", save, manifest, logger=logger, steps=1)
    assert logger.fake.updates == {"cli": {"model": {"init_args": {"lr": 0.1}}}}
    assert (tmp_path / "config.yaml").read_text() == (tmp_path / "run/config.yaml").read_text()
    assert manifest.state_dict() == {"wandb_id": "abc123"}
    assert logger.fake.summaries == {"val/loss": "min"}


def test_configurations_are_never_lost(tmp_path: Path) -> None:
    for text in ("a: 1\n", "a: 1\n", "a: 2\n", "a: 3\n"):
        write_config(tmp_path / "config.yaml", text)
    found = {p.name: yaml.safe_load(p.read_text())["a"] for p in tmp_path.iterdir()}
    assert found == {"config.yaml": 3, "config.1.yaml": 1, "config.2.yaml": 2}


def test_json_is_strict_and_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"nan": float("nan"), "t": torch.tensor([1.5]), "p": tmp_path})
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "nan": None,
        "t": [1.5],
        "p": str(tmp_path),
    }
    assert plain(np.float32(0.5)) == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def losses(root: Path) -> dict[int, float]:
    """Training loss by step, over all CSV files of a run folder."""
    found: dict[int, float] = {}
    for file in sorted(root.glob("csv/*/metrics.csv")):
        with file.open() as text:
            rows = [row for row in csv.DictReader(text) if row.get("train/loss")]
        found |= {int(row["step"]): float(row["train/loss"]) for row in rows}
    return found


def test_resume_repeats_the_steps_bit_for_bit(run: Run) -> None:
    """The raw weights go on, although the checkpoint offers the average to everybody else."""
    options = [*FIT[:-1], "--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.9"]
    whole = losses(run(*options, "--trainer.max_epochs=2", folder="whole"))
    last = run(*options, "--trainer.max_epochs=1", folder="cut") / "checkpoints/last.ckpt"
    resumed = losses(run(*options, "--trainer.max_epochs=2", f"--ckpt_path={last}", folder="cut"))
    assert sorted(whole) == list(range(20))
    assert resumed == whole


def test_last_checkpoint_is_written_within_an_epoch(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    step = ToyStage.training_step

    def dies_at_eight(self: ToyStage, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.batches_seen == 8:
            raise ShapeError("stop")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ToyStage, "training_step", dies_at_eight)
    with pytest.raises(SystemExit):
        run(*FIT, "--checkpoint_every_n_steps=3")
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 6
    with pytest.raises(ConfigError, match="at least 1"):
        LastCheckpoint(".", 0)


def test_clips_count_once() -> None:
    rows = [{"clip": "b", "x": 1}, {"clip": "a", "x": 2}, {"clip": "b", "x": 3}]
    assert gather_rows(rows) == [{"clip": "a", "x": 2}, {"clip": "b", "x": 1}]


@pytest.mark.slow
def test_wandb_offline_end_to_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    experiments = Path(__file__).parents[2] / "experiments"
    root = run(*FIT, f"--config={experiments / 'logger' / 'wandb_offline.yaml'}")
    (config,) = root.glob("wandb/offline-run-*/files/config.yaml")
    assert "ToyStage" in config.read_text()
    wandb_id = json.loads((root / "run.json").read_text())["wandb_id"]
    importlib.import_module("wandb").finish()
    run("fit", f"--config={root / 'config.yaml'}", f"--ckpt_path={root / 'checkpoints/last.ckpt'}")
    importlib.import_module("wandb").finish()
    assert json.loads((root / "run.json").read_text())["wandb_id"] == wandb_id
