from __future__ import annotations

from pathlib import Path

import pytest

from talkhead.errors import ConfigError
from talkhead.report.ablation import Overrides, plan, read_marker, read_study, set_aside

STUDY = """\
# Which part of the prior matters?
base: [base.yaml]
variants:
  guidance_0: {test_only_from: diffusion, args: {model.guidance: 0.0}}
  diffusion: {}
  ar: {base: [ar.yaml]}
  no_velocity:
    configs: [no_velocity.yaml]
    args: {trainer.max_steps: 5}
    test_args: {data.x: null}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for name in ("base", "ar", "no_velocity", "small"):
        (tmp_path / f"{name}.yaml").write_text(f"# {name}\n")
    (tmp_path / "base.yaml").write_text("model: fragment.yaml\n")
    (tmp_path / "fragment.yaml").write_text("dim: 4\n")
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def test_jobs_come_sources_first_and_per_seed(study: Path, tmp_path: Path) -> None:
    jobs = plan(read_study(study), tmp_path / "out", seeds=2)
    names = ["diffusion", "ar", "no_velocity", "guidance_0"]
    assert [j.name for j in jobs] == [f"{n}/seed{s}" for s in (0, 1) for n in names]
    assert jobs[3].source == jobs[0].folder
    assert not jobs[3].trains


def test_commands_put_the_variants_own_settings_last(study: Path, tmp_path: Path) -> None:
    common = Overrides.parse(
        [f"config={tmp_path / 'small.yaml'}", "trainer.max_steps=9", "data.root=d"]
    )
    jobs = {j.variant.name: j for j in plan(read_study(study), tmp_path, seeds=1, overrides=common)}
    command = jobs["no_velocity"].command("fit")
    files = [Path(c.split("=")[1]).name for c in command if c.startswith("--config")]
    assert files == ["base.yaml", "small.yaml", "no_velocity.yaml"]
    assert command[0] == "fit"
    assert "--trainer.max_steps=5" in command
    assert "--trainer.max_steps=9" in jobs["diffusion"].command("fit")
    assert "--variant=no_velocity" in command
    assert "--seed_everything=0" in command
    assert f"--trainer.default_root_dir={tmp_path.resolve()}/no_velocity/seed0" in command
    assert not any(c.startswith(("--ckpt_path", "--data.x")) for c in command)
    test = jobs["no_velocity"].command("test")
    assert "--data.x=null" in test
    assert f"--ckpt_path={jobs['no_velocity'].folder}/checkpoints/last.ckpt" in test
    guided = jobs["guidance_0"].command("test")
    assert "--model.guidance=0.0" in guided
    assert f"--ckpt_path={jobs['diffusion'].folder}/checkpoints/last.ckpt" in guided
    assert f"--trainer.default_root_dir={jobs['guidance_0'].folder}" in guided


def test_digest_follows_contents_not_places(study: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.ckpt"
    weights.write_bytes(b"one")

    def digest(seed: int = 0, phase: str = "fit", extra: str = "a=1") -> str:
        common = Overrides.parse([f"model.encoder={weights}", extra])
        jobs = plan(
            read_study(study), tmp_path, seeds=seed + 1, only=["diffusion"], overrides=common
        )
        return jobs[seed].digest(phase)

    first = digest()
    assert digest() == first
    assert len({first, digest(seed=1), digest(phase="test"), digest(extra="a=2")}) == 4
    weights.write_bytes(b"two")
    assert digest() != first
    weights.write_bytes(b"one")
    (tmp_path / "fragment.yaml").write_text("dim: 8\n")
    assert digest() != first  # a file named inside the config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants: [a]", "variants"),
        ("variants: {a: {}}", "no config file"),
        ("base: [base.yaml]\nvariants: {a: {config: [x]}}", "'a' has"),
        ("base: [base.yaml]\nvariants: {a: {test_only_from: b}}", "no trained"),
        ("base: [absent.yaml]\nvariants: {a: {}}", "absent.yaml"),
        ("base: [base.yaml]\nvariants: {../a: {}}", "folder name"),
        ("base: [base.yaml]\nvariant: {}\nvariants: {a: {}}", "unknown keys"),
        ("base: [base.yaml]\nvariants: {a: {args: [1]}}", "dotted options"),
        ("base: base.yaml\nvariants: {a: {}}", "list of files"),
        ("a: [", "no valid YAML"),
    ],
)
def test_wrong_studies_say_what_is_wrong(study: Path, text: str, message: str) -> None:
    study.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_study(study)


def test_wrong_options_say_what_is_wrong(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        Overrides.parse(["trainer.max_steps"])
    with pytest.raises(ConfigError, match="no file"):
        Overrides.parse(["config=nowhere.yaml"])
    with pytest.raises(ConfigError, match="unknown variants"):
        plan(read_study(study), tmp_path, seeds=1, only=["diffuson"])
    with pytest.raises(ConfigError, match="at least one seed"):
        plan(read_study(study), tmp_path, seeds=0)


def test_old_runs_are_kept_aside(tmp_path: Path) -> None:
    for expected in ("a-seed0-0", "a-seed0-1"):
        (tmp_path / "a" / "seed0").mkdir(parents=True)
        assert set_aside(tmp_path / "a" / "seed0", tmp_path).name == expected
    assert read_marker(tmp_path / "a" / "seed0") == {}
