"""One test for each way LightningCLI is known to do something else than it was told."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import os
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

import datamodules
from callbacks.ema import EMA
from callbacks.throughput import batch_size
from datamodules.base import TalkheadDataModule
from talkhead import cli, config_guards, stages
from talkhead.__main__ import main
from talkhead.batch import SequenceBatch
from talkhead.errors import ConfigError, MissingDependencyError
from talkhead.stages.base import Stage
from tests.conftest import QUIET, Run
from tests.talkhead import toy_stages
from tests.talkhead.toy_stages import ToyData, ToyGan, ToyStage

pytestmark = pytest.mark.filterwarnings(
    # Depends on the machine's core count.
    "ignore:.*does not have many workers"
)
FIT = ["fit", "--model=ToyStage", "--data=ToyData", "--trainer.max_epochs=1"]
PLAIN = (int, float, str, bool, list, dict, type(None))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notices of the command line."""
    lines: list[str] = []
    monkeypatch.setattr(cli, "rank_zero_info", lines.append)
    return lines


def printed(args: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The configuration that ``--print_config`` shows."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([*args, "--print_config"])
    assert left.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(config, dict)
    return config


def refusal(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that must end with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(args)
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 3
    return message


def shipped_classes() -> list[type]:
    """Every stage and datamodule of the suite that a configuration can name."""
    for package in (stages, datamodules):
        cli.import_all(package)
    found = [*cli.subclasses(Stage), TalkheadDataModule, *cli.subclasses(TalkheadDataModule)]
    return [cls for cls in found if not cls.__module__.startswith("tests.")]


def atoms(annotation: Any) -> set[Any]:
    """The types a parameter accepts, unions, generics and dataclasses opened."""
    origin = typing.get_origin(annotation)
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation).values()
        return {dict}.union(*(atoms(hint) - {int, float, str} for hint in hints))
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(annotation)}
    if origin in (typing.Union, types.UnionType):
        return set().union(*(atoms(arg) for arg in typing.get_args(annotation)))
    return {origin or annotation}


def hints_of(cls: type) -> dict[str, Any]:
    """Annotations of a constructor."""
    return typing.get_type_hints(getattr(cls, "__init__"))  # noqa: B009 - mypy refuses cls.__init__


def parameters() -> list[tuple[str, set[Any]]]:
    """Every constructor parameter of every shipped class, with its types."""
    return [
        (f"{cls.__name__}.{name}", atoms(hint))
        for cls in shipped_classes()
        for name, hint in hints_of(cls).items()
        if name != "return"
    ]


def test_c01_optimiser_settings_are_plain_and_effective(run: Run) -> None:
    """A class-typed default leaks its values into the class that replaces it."""
    assert not [name for name, kinds in parameters() if kinds - set(PLAIN)]
    root = run(*FIT, "--model.optimizer=adam", "--model.weight_decay=0.03")
    dumped = yaml.safe_load((root / "config.yaml").read_text())["model"]["init_args"]
    saved = torch.load(root / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert dumped["weight_decay"] == saved["param_groups"][0]["weight_decay"] == 0.03
    assert saved["param_groups"][0]["betas"] == tuple(dumped["betas"])


def test_c02_typed_values_win_over_the_checkpoint(run: Run, said: list[str]) -> None:
    last = run(*FIT, "--model.lr=0.5") / "checkpoints/last.ckpt"
    root = run("test", f"--ckpt_path={last}", "--model.sampler_steps=77", folder="test")
    metrics = json.loads((root / "metrics.json").read_text())
    assert metrics["metrics"]["steps[code]"] == 77
    assert any("differs from checkpoint" in line and "50 -> 77" in line for line in said)
    kept = yaml.safe_load((root / "config_test.yaml").read_text())["model"]["init_args"]
    assert kept["lr"] == 0.5  # what nobody typed still comes from the checkpoint


def test_c02_print_config_shows_what_will_be_used(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run(*FIT, "--model.lr=0.5") / "checkpoints/last.ckpt"
    config = printed(["test", f"--ckpt_path={last}", "--model.sampler_steps=77"], capsys)
    assert config["model"]["init_args"]["sampler_steps"] == 77
    assert config["model"]["init_args"]["lr"] == 0.5


def test_c03_a_checkpoint_is_enough_for_test(run: Run) -> None:
    last = run(*FIT, "--data.rows=12") / "checkpoints/last.ckpt"
    root = run("test", f"--ckpt_path={last}", folder="test")
    metrics = json.loads((root / "metrics.json").read_text())
    assert metrics["stage"] == "ToyStage"
    assert metrics["data"]["frames"] == 12
    assert [row["clip"] for row in metrics["per_clip"]] == ["clip0", "clip1", "clip2"]


def test_c03_another_stages_checkpoint_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run(*FIT) / "checkpoints/last.ckpt"
    args = ["test", "--model=ToyOtherStage", "--data=ToyData", f"--ckpt_path={last}", *QUIET]
    assert "was written by stage ToyStage" in refusal(args, capsys)


def test_c03_broken_checkpoints_are_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run(*FIT) / "checkpoints/last.ckpt"
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(last.read_bytes()[:3000])
    assert "truncated" in refusal(["test", f"--ckpt_path={cut}"], capsys)
    assert "none at nowhere.ckpt" in refusal(["test", "--ckpt_path", "nowhere.ckpt"], capsys)
    grown = refusal(["test", f"--ckpt_path={last}", "--model.dim=9", *QUIET], capsys)
    assert "do not fit the configured ToyStage" in grown


def test_scores_are_printed_with_what_stands_in_brackets(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = run(*FIT)
    capsys.readouterr()
    tested = run("test", f"--ckpt_path={root / 'checkpoints/last.ckpt'}", folder="test")
    loss = json.loads((tested / "metrics.json").read_text())["metrics"]["loss"]
    assert f"test/loss         {loss:.6g}\n" in capsys.readouterr().out
    assert cli.score_lines({"test/snd[code]": 1.5, "test/a": 2}) == (
        "test/a          2\ntest/snd[code]  1.5\n"
    )


def test_c04_a_stage_can_be_copied_while_a_trainer_holds_it(run: Run) -> None:
    """EMA copies the stage; a factory kept on it would drag the trainer along."""
    stage = ToyStage()
    stage.trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    assert copy.deepcopy(stage)._trainer is None
    assert not [k for k, v in vars(stage).items() if inspect.isfunction(v)]
    run(*FIT, "--trainer.callbacks+=EMA")


def test_c04_ema_under_two_processes(tmp_path: Path) -> None:
    args = [*FIT, *QUIET[:1], "--trainer.devices=2", "--trainer.strategy=ddp", *QUIET[2:]]
    two_processes([*args, "--trainer.callbacks+=EMA"], tmp_path)


def test_c05_list_defaults_survive_save_reload_save(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = printed([*FIT, "--model.betas=[0.0,0.9]"], capsys)
    file = tmp_path / "first.yaml"
    file.write_text(yaml.safe_dump(first))
    assert printed(["fit", f"--config={file}"], capsys) == first
    assert first["model"]["init_args"]["betas"] == [0.0, 0.9]


def test_c06_there_is_no_automatic_optimiser(capsys: pytest.CaptureFixture[str]) -> None:
    assert "optimizer" in refusal([*FIT, "--optimizer=Adam"], capsys)


def test_c07_two_optimisers_count_as_one_step(run: Run) -> None:
    root = run("fit", "--model=ToyGan", "--data=ToyData", "--data.rows=24", "--trainer.max_steps=6")
    saved = torch.load(root / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    assert saved["talkhead"]["batches_seen"] == 6


def test_c08_trainer_options_a_gan_cannot_use(capsys: pytest.CaptureFixture[str]) -> None:
    gan = ["fit", "--model=ToyGan", "--data=ToyData", *QUIET]
    assert "--model.grad_clip" in refusal([*gan, "--trainer.gradient_clip_val=1"], capsys)
    assert "batch_size" in refusal([*gan, "--trainer.accumulate_grad_batches=2"], capsys)
    config_guards.gan_trainer(True, {"gradient_clip_val": 1.0, "accumulate_grad_batches": 4})


def test_c09_a_gan_needs_the_lenient_ddp(capsys: pytest.CaptureFixture[str]) -> None:
    gan = ["fit", "--model=ToyGan", "--data=ToyData", *QUIET, "--trainer.strategy=ddp"]
    assert "ddp_find_unused_parameters_true" in refusal(gan, capsys)
    config_guards.gan_strategy(False, "ddp_find_unused_parameters_true")
    config_guards.gan_strategy(True, "ddp")


@pytest.mark.slow
def test_c09_a_gan_under_two_processes(tmp_path: Path) -> None:
    strategy = "--trainer.strategy=ddp_find_unused_parameters_true"
    args = ["fit", "--model=ToyGan", "--data=ToyData", "--trainer.max_steps=3", strategy]
    two_processes([*args, *QUIET[:1], "--trainer.devices=2", *QUIET[2:]], tmp_path)


def test_c10_null_and_none_on_the_command_line(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed([*FIT, "--model.sampler_steps=null"], capsys)
    assert config["model"]["init_args"]["sampler_steps"] is None
    with pytest.raises(ConfigError, match=r"model\.vgg is the text 'None'"):
        config_guards.check({"model": {"init_args": {"vgg": "None"}}, "trainer": {}})
    # One subclass level only: no parameter of a shipped class is itself a class.
    assert not [name for name, kinds in parameters() if kinds - set(PLAIN)]


def test_c11_c12_no_linked_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed link target and a misspelt link are both ignored silently, so there are no links."""
    monkeypatch.setattr(cli.TalkheadCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(cli.TalkheadCLI, "_run_subcommand", lambda self, name: None)
    parser = cli.TalkheadCLI([*FIT, *QUIET])._subcommand_parsers["fit"]
    links = [action for action in parser._actions if "Link" in type(action).__name__]
    assert links == []


def test_c13_no_text_or_number_unions() -> None:
    mixed = [name for name, kinds in parameters() if str in kinds and kinds & {int, float}]
    assert mixed == []


def test_c14_values_kept_across_a_change_of_class_are_named(
    tmp_path: Path, said: list[str], run: Run
) -> None:
    base = tmp_path / "base.yaml"
    toy = {"class_path": "tests.talkhead.toy_stages.ToyStage", "init_args": {"dim": 9, "lr": 0.1}}
    base.write_text(yaml.safe_dump({"model": toy, "data": "ToyData"}))
    swap = ["--model=ToyOtherStage", "--model.lr=0.3", "--trainer.max_epochs=1"]
    run("fit", f"--config={base}", *swap)
    assert said == ["model: ToyOtherStage keeps these values set for ToyStage: dim"]
    assert config_guards.carried_over(FIT) is None


def test_c15_checkpoints_load_with_and_without_the_command_line(run: Run, tmp_path: Path) -> None:
    by_cli = run(*FIT, "--model.dim=6") / "checkpoints/last.ckpt"
    assert ToyStage.load_from_checkpoint(by_cli, weights_only=True).head.linear.out_features == 6
    trainer = Trainer(
        logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, max_epochs=1, limit_train_batches=1, limit_val_batches=0,
        default_root_dir=tmp_path, log_every_n_steps=1,
    )  # fmt: skip
    cli.quieten(["fit"])
    trainer.fit(ToyStage(dim=3), datamodule=ToyData())
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    loaded = ToyStage.load_from_checkpoint(tmp_path / "plain.ckpt", weights_only=True)
    assert loaded.head.linear.out_features == 3
    assert run("test", f"--ckpt_path={tmp_path / 'plain.ckpt'}", "--data=ToyData", folder="t")


def test_c16_a_seed_of_one_is_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*FIT, "--seed_everything=1", "--print_config=skip_default"])
    assert yaml.safe_load(capsys.readouterr().out)["seed_everything"] == 1
    assert printed(FIT, capsys)["seed_everything"] == 0
    assert "int" in refusal([*FIT, "--seed_everything=true"], capsys)


def test_c17_checkpoints_lie_flat(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    root = run(*FIT)
    names = sorted(p.name for p in (root / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt"]
    callback = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename={val/loss}"]
    assert "auto_insert_metric_name" in refusal([*FIT, *QUIET, *callback], capsys)


def test_c18_the_rate_finder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    args = [*FIT, *QUIET, "--trainer.callbacks+=LearningRateFinder"]
    assert "has no effect" in refusal(args, capsys)


def test_c19_monitors_have_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    callbacks = [{"class_path": "lightning.pytorch.callbacks.DeviceStatsMonitor", "init_args": {}}]
    with pytest.raises(MissingDependencyError, match=r"talkhead\[dev\]"):
        config_guards.check({"trainer": {"callbacks": callbacks}})
    callbacks[0]["init_args"] = {"cpu_stats": False}
    config_guards.check({"trainer": {"callbacks": callbacks}})
    ones = torch.ones(3, 5, 2)
    batch = SequenceBatch(
        {"audio": ones}, ones, ones[..., 0] > 0, torch.zeros(3, dtype=torch.int64)
    )
    assert batch_size(batch) == 3
    with pytest.raises(ConfigError, match="with a tensor"):
        batch_size("text")


def two_processes(args: list[str], folder: Path) -> None:
    """Run the command line under two CPU processes and check that one run came out."""
    code = (
        "import sys, tests.talkhead.toy_stages\n"
        "from talkhead.__main__ import main\n"
        "main(sys.argv[1:])\n"
    )
    script = folder / "launch.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), *args, f"--trainer.default_root_dir={folder / 'run'}"],
        capture_output=True, text=True, timeout=300, check=False,
        cwd=Path(toy_stages.__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(toy_stages.__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["devices"]["world_size"] == 2
    assert record["status"] == "finished"
    assert (folder / "run" / "checkpoints" / "last.ckpt").is_file()


def test_ema_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="0 <= decay < 1"):
        EMA(decay=1.0)
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    with pytest.raises(ConfigError, match="no part encoder"):
        EMA(modules=["encoder"]).setup(trainer, ToyGan(), "fit")
