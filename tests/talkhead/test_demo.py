"""The demo's bookkeeping, with the commands themselves replaced."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from talkhead import demo
from talkhead.__main__ import main as talkhead

Calls = list[list[str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Commands the demo runs; all succeed but those with ``fail`` in them."""
    made: Calls = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        made.append(command[3:])
        return SimpleNamespace(returncode=int(any("fail" in part for part in command)))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(demo, "_held_out_inputs", lambda data, out: None)
    return made


def test_steps_run_in_order_and_only_once(tmp_path: Path, calls: Calls) -> None:
    assert demo.main([f"--out={tmp_path}"]) == 0
    assert [c[0] for c in calls if c[0] in ("corpus", "prepare", "data", "fit", "ablate")] == [
        "corpus", "prepare", "data", "fit", "fit", "fit", "ablate",
    ]  # fmt: skip
    assert {c[0] for c in calls[-2:]} == {"generate", "report"}
    assert [c[0] for c in calls].count("test") == 3
    count = len(calls)
    assert demo.main([f"--out={tmp_path}"]) == 0
    assert len(calls) == count


def test_a_prepared_set_takes_the_place_of_the_corpus(tmp_path: Path, calls: Calls) -> None:
    assert demo.main([f"--out={tmp_path}", f"--data={tmp_path / 'mine'}"]) == 0
    assert [c[0] for c in calls[:2]] == ["data", "fit"]
    assert all(
        str(tmp_path / "mine") in " ".join(c) for c in calls if c[0] in ("data", "fit", "test")
    )


def test_what_runs_beside_a_step_does_not_read_its_output(tmp_path: Path) -> None:
    together = [
        [step.name for _, step, _ in group] for group in demo.groups(demo.steps(tmp_path, 1))
    ]
    assert [names for names in together if len(names) > 1] == [
        ["10_reenactment test", "20_av_contrastive fit"],
        ["20_av_contrastive test", "30_lip_disentangle fit"],
        ["30_lip_disentangle test", "priors"],
        ["generate", "report"],
    ]
    assert [names[-1] for names in together[:3]] == ["corpus", "prepare", "data"]


def test_a_step_beside_another_writes_a_log_and_its_failure_ends_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", "print('said'); raise SystemExit(3)"]
    monkeypatch.setattr(demo.Step, "command", lambda self, resume: command)
    (tmp_path / "done").mkdir()
    log = tmp_path / "logs" / "y-test.log"
    with pytest.raises(demo.StepFailedError, match=f"exit code 3 .its message is in {log}"):
        demo._run(demo.Step("y test", ("test",), beside=True), "a", tmp_path, "[1/1]")
    assert log.read_text() == "said\n"
    assert "said" not in capfd.readouterr().out


def test_until_stops_early(tmp_path: Path, calls: Calls) -> None:
    assert demo.main([f"--out={tmp_path}", "--until=prepare"]) == 0
    assert len(calls) == 2


def test_interrupted_training_resumes_and_changed_training_starts_afresh(
    tmp_path: Path, calls: Calls
) -> None:
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    (tmp_path / "done").mkdir()
    with pytest.raises(demo.StepFailedError, match="step 'x' ended with exit code 1"):
        demo._run(demo.Step("x", ("fit", "fail"), run), "a", tmp_path, "[1/1]")
    assert "--ckpt_path" not in calls[-1]  # what lies there was not made by this step
    with pytest.raises(demo.StepFailedError):
        demo._run(demo.Step("x", ("fit", "fail"), run), "a", tmp_path, "[1/1]")
    assert calls[-1][-2:] == ["--ckpt_path", str(last)]
    demo._run(demo.Step("x", ("fit", "other"), run), "b", tmp_path, "[1/1]")
    assert calls[-1] == ["fit", "other"]


def test_a_step_is_stale_when_its_files_or_what_it_stands_on_changed(tmp_path: Path) -> None:
    config = tmp_path / "size.yaml"
    config.write_text("a: 1\n")
    step = demo.Step("x", ("fit", f"--config={config}"))
    first = step.digest("before")
    assert step.digest("before") == first
    assert step.digest("other") != first
    config.write_text("a: 2\n")
    assert step.digest("before") != first


def test_training_commands_parse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: Callable[[], Any] = capsys.readouterr
    for step in demo.steps(tmp_path, seeds=1):
        if step.args[0] == "fit":
            with pytest.raises(SystemExit) as left:
                talkhead([*step.args, "--print_config"])
            assert left.value.code == 0, said().err
            assert f"default_root_dir: {step.run}" in said().out
