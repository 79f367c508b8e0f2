"""Every shipped configuration: it parses, survives save and reload, and says what is then used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml

from talkhead import cli, stages
from talkhead.__main__ import main
from talkhead.networks.motion_generator import MotionGenerator
from talkhead.report.ablation import Overrides, plan, read_study
from talkhead.stages.base import Stage

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
RUNS = sorted((EXPERIMENTS / "runs").glob("*.yaml"))
SIZES = sorted((EXPERIMENTS / "size").glob("*/*.yaml"))
OVERLAYS = sorted(
    [*(EXPERIMENTS / "trainer").glob("*.yaml"), *(EXPERIMENTS / "logger").glob("*.yaml")]
)


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def printed(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    """The configuration that a command would use."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["fit", *map(str, args), "--print_config"])
    assert left.value.code == 0, capsys.readouterr().err
    config = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(config, dict)
    return config


def runs_of_size(size: Path) -> list[Path]:
    """Run files a size overlay is for: its own number, or every prior."""
    number = size.stem[:2]
    wanted = ("40", "41") if number == "40" else (number,)
    return [run for run in RUNS if run.stem[:2] in wanted]


@pytest.mark.parametrize("run", RUNS, ids=name)
def test_run_files_survive_save_reload_save(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = printed(capsys, "--config", run)
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml.safe_dump(first))
    assert printed(capsys, "--config", saved) == first
    assert first["trainer"]["default_root_dir"] == f"runs/{run.stem}"


@pytest.mark.parametrize("size", SIZES, ids=name)
def test_sizes_apply_to_their_stages(size: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = runs_of_size(size)
    assert runs
    overlay = yaml.safe_load(size.read_text())
    for run in runs:
        small = printed(capsys, "--config", run, "--config", size)
        assert small["model"]["init_args"].items() >= overlay["model"]["init_args"].items()
        assert small["trainer"]["max_steps"] == overlay["trainer"]["max_steps"]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=name)
def test_trainer_and_logger_overlays_parse(
    overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed(capsys, "--config", RUNS[0], "--config", overlay)
    for key, value in yaml.safe_load(overlay.read_text())["trainer"].items():
        if not isinstance(value, dict | list):
            assert config["trainer"][key] == value
    # The overlay adds to the run file's trainer section and takes nothing away.
    assert config["trainer"]["max_steps"] == 200_000


@pytest.mark.parametrize("data", sorted((EXPERIMENTS / "data").glob("*.yaml")), ids=name)
def test_data_fragments_name_a_datamodule(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(capsys, "--config", RUNS[0], "--data", data, "--data.root=somewhere")
    assert config["data"]["class_path"] == yaml.safe_load(data.read_text())["class_path"]
    assert config["data"]["init_args"]["batch_size"] == 8  # kept from the run file


def test_gan_stages_get_the_lenient_strategy() -> None:
    gan = yaml.safe_load((EXPERIMENTS / "trainer" / "ddp_gan.yaml").read_text())["trainer"]
    assert gan["strategy"] == "ddp_find_unused_parameters_true"


def test_priors_are_compared_at_equal_size(capsys: pytest.CaptureFixture[str]) -> None:
    """A class swap keeps what the new class also has, so both name every shared size."""
    diffusion, ar = (
        yaml.safe_load((EXPERIMENTS / "model" / f"motion_{kind}.yaml").read_text())["init_args"]
        for kind in ("diffusion", "ar")
    )
    shared = set(diffusion) & set(ar)
    assert {"prior", "lr", "weight_decay"} <= shared
    assert {key: diffusion[key] for key in shared} == {key: ar[key] for key in shared}


def test_effective_weight_decay_is_the_dumped_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Built from the printed configuration as it stands, every group has the printed numbers."""
    run, size = RUNS[0], SIZES[0]
    args = printed(capsys, "--config", run, "--config", size)["model"]
    cli.import_all(stages)
    classes = {f"{c.__module__}.{c.__name__}": c for c in cli.subclasses(Stage)}
    stage = classes[args["class_path"]](**args["init_args"])
    optimizers, _ = cast(Any, stage.configure_optimizers())
    options = args["init_args"]
    rates = [[options["lr"], options["lr_generator"]], [options["lr_discriminator"]]]
    for optimizer, wanted in zip(optimizers, rates, strict=True):
        assert isinstance(optimizer, torch.optim.Adam)
        for group, rate in zip(optimizer.param_groups, wanted, strict=True):
            assert group["initial_lr"] == rate
            assert group["weight_decay"] == 0.0
            assert list(group["betas"]) == args["init_args"]["betas"]


def test_the_ablation_reads_and_its_commands_parse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = read_study(EXPERIMENTS / "ablations" / "prior.yaml")
    wanted = {"diffusion", "ar", "no_velocity", "no_editing"}
    wanted |= {f"guidance_{scale}" for scale in ("0", "1", "2.5", "5", "10")}
    assert {variant.name for variant in study.variants} == wanted
    size = EXPERIMENTS / "size" / "demo" / "40_motion_prior.yaml"
    jobs = plan(study, tmp_path, seeds=1, overrides=Overrides.parse([f"config={size}"]))
    configs = {}
    for job in jobs:
        args = [arg for arg in job.command("test") if not arg.startswith("--ckpt_path")]
        configs[job.variant.name] = printed(capsys, *args[1:])
    guidance = configs["guidance_10"]["model"]["init_args"]["sampler"]["guidance"]
    assert guidance == 10.0
    assert configs["no_velocity"]["model"]["init_args"]["weights"]["velocity"] == 0.0
    assert configs["no_editing"]["model"]["init_args"]["train_editing"] is False
    assert configs["ar"]["model"]["class_path"].endswith("MotionARStage")


@pytest.mark.parametrize(
    "study", ["sampling", "lip_disentangle", "target", "controltalk", "shallow_diffusion"]
)
def test_other_studies_read_and_their_commands_parse(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = read_study(EXPERIMENTS / "ablations" / f"{study}.yaml")
    for job in plan(read, tmp_path, seeds=1, overrides=Overrides.parse([])):
        args = [arg for arg in job.command("test") if not arg.startswith("--ckpt_path")]
        config = printed(capsys, *args[1:])
        for key, value in job.options("test").items():
            found: Any = config
            for part in key.replace("model.", "model.init_args.", 1).split("."):
                found = found[part]
            if not isinstance(value, list):
                assert found == value, key
            else:
                assert [c["class_path"] for c in found] == [c["class_path"] for c in value]


def test_the_study_of_ms_sync_changes_one_thing_a_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights and sizes that a variant does not name stay those of the run and its size overlay."""
    study = read_study(EXPERIMENTS / "ablations" / "ms_sync.yaml")
    size = EXPERIMENTS / "size" / "demo" / "62_ms_sync.yaml"
    jobs = plan(study, tmp_path, seeds=1, overrides=Overrides.parse([f"config={size}"]))
    models = {
        job.variant.name: printed(capsys, *job.command("fit")[1:])["model"]["init_args"]
        for job in jobs
    }
    full = models.pop("ms_sync")
    assert (full["av_levels"], full["av_reduction"]) == (None, "mean")
    assert models.pop("single_scale") == full | {"av_levels": [0]}
    alone = models.pop("single_scale_same_weight")
    assert alone == full | {"av_levels": [0], "av_reduction": "share"}
    weights = {
        "rec_1_adv_0": {"gan_frames": 0.0, "gan_windows": 0.0},
        "rec_1_adv_0.01": {"gan_frames": 0.01, "gan_windows": 0.01},
        "rec_1_adv_1": {"gan_frames": 1.0, "gan_windows": 1.0},
        "rec_0.01_adv_1": {"reconstruction": 0.01, "gan_frames": 1.0, "gan_windows": 1.0},
    }
    for name, changed in weights.items():
        wanted = full | {"weights": full["weights"] | changed}
        assert models.pop(name) == wanted, name
    generators: dict[str, dict[str, Any]] = {
        "branches_1": {"branches": 1},
        "branches_2": {"branches": 2},
        "released_merge": {"merge": "concat", "audio_free_branch": True},
    }
    for name, option in generators.items():
        options = full["motion_generator"] | option
        assert models.pop(name) == full | {"motion_generator": options}, name
        assert isinstance(MotionGenerator(**options), MotionGenerator)
    assert not models


def test_the_sweep_builds_commands_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    """W&B's own argument builder, on values as its server would choose them."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load((EXPERIMENTS / "sweeps" / "prior.yaml").read_text())
    cli.import_all(stages)
    seen = set()
    for run in sweep["parameters"]["config"]["values"]:
        chosen = {key: {"value": spec.get("value")} for key, spec in sweep["parameters"].items()}
        chosen["config"]["value"] = str(ROOT / run)
        chosen["model.lr"]["value"] = 3.2e-05
        chosen["trainer.logger"]["value"] = str(EXPERIMENTS / "sweeps" / "logger.yaml")
        flags = create_sweep_command_args({"args": chosen})["args"]
        command = create_sweep_command(list(sweep["command"]))
        after_fit = command[command.index("fit") + 1 :]
        args = [x for item in after_fit for x in (flags if item == "${args}" else [item])]
        config = printed(capsys, *args)
        assert config["model"]["init_args"]["lr"] == 3.2e-05
        assert config["model"]["init_args"]["generator"] == chosen["model.generator"]["value"]
        classes = {f"{c.__module__}.{c.__name__}": c for c in cli.subclasses(Stage)}
        stage = classes[config["model"]["class_path"]]
        goal = {"min": "minimize", "max": "maximize"}[stage.mode]
        assert sweep["metric"] == {"name": stage.monitor, "goal": goal}
        seen.add(stage.__name__)
    assert seen == {"MotionDiffusionStage", "MotionARStage"}


def test_ablations_and_overlays_ask_their_question_in_line_one() -> None:
    files = [*EXPERIMENTS.rglob("*.yaml")]
    assert files
    assert all(file.read_text().startswith("# ") for file in files)
