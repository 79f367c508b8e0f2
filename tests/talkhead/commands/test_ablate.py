from __future__ import annotations

import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from talkhead.commands import ablate, report
from talkhead.errors import ConfigError, DataError
from tests.talkhead.report.factory import prior_metrics, result

STUDY = """\
base: [base.yaml]
variants:
  diffusion: {}
  ar: {args: {model.causal: true}}
  guidance_2.5: {test_only_from: diffusion, args: {model.guidance: 2.5}}
"""


@dataclass
class FakeTalkhead:
    """Does what ``talkhead fit`` and ``test`` leave on disk."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    fail: set[tuple[str, str]] = field(default_factory=set)
    killed: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, arguments: list[str], log: Path) -> int:
        phase = arguments[0]
        options = dict(a[2:].split("=", 1) for a in arguments[1:] if not a.startswith("--config"))
        folder = Path(options["trainer.default_root_dir"])
        variant, seed = options["variant"], int(options["seed_everything"])
        self.calls.append((phase, f"{variant}/seed{seed}"))
        log.write_text(f"working\nout of memory in {variant}\n")
        last = folder / "checkpoints" / "last.ckpt"
        if phase == "fit":
            if "ckpt_path" in options:
                assert Path(options["ckpt_path"]).is_file()
                self.resumed.append(variant)
            last.parent.mkdir(parents=True, exist_ok=True)
            last.write_bytes(b"weights")
        if (phase, variant) in self.killed:
            raise KeyboardInterrupt
        if (phase, variant) in self.fail:
            return 1
        if phase == "test":
            assert Path(options["ckpt_path"]).is_file()
            scores = prior_metrics(2.0 + seed + len(variant))
            result(variant, seed, scores).write(folder / "metrics.json")
        return 0


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text("model: {dim: 4}\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path / "study.yaml"


def run(study: Path, fake: FakeTalkhead, *more: str) -> int:
    out = study.parent / "out"
    return ablate.main([str(study), f"--out={out}", *more], runner=fake)


def test_runs_everything_then_reports_and_does_nothing_twice(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeTalkhead()
    assert run(study, fake, "--seeds=2") == 0
    assert len(fake.calls) == 2 * 5
    assert ("fit", "guidance_2.5/seed0") not in fake.calls
    table = (study.parent / "out" / "report" / "table.md").read_text()
    assert "(2 seeds)" in table
    assert "table I" in table
    assert "table.md" in capsys.readouterr().out
    again = FakeTalkhead()
    assert run(study, again, "--seeds=2") == 0
    assert again.calls == []
    assert "6 finished before" in capsys.readouterr().out


def test_failure_is_reported_and_the_rest_goes_on(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeTalkhead(fail={("fit", "diffusion")})
    assert run(study, fake) == 1
    assert fake.calls == [("fit", "diffusion/seed0"), ("fit", "ar/seed0"), ("test", "ar/seed0")]
    said = capsys.readouterr()
    assert "out of memory in diffusion" in said.out
    assert "failed: diffusion/seed0: fit ended with exit code 1" in said.err
    assert "failed: guidance_2.5/seed0: its source diffusion/seed0 failed" in said.err
    mended = FakeTalkhead()
    assert run(study, mended) == 0
    assert mended.resumed == ["diffusion"]
    assert ("fit", "ar/seed0") not in mended.calls


def test_stop_on_failure_leaves_the_rest_alone(study: Path) -> None:
    fake = FakeTalkhead(fail={("fit", "diffusion")})
    assert run(study, fake, "--stop-on-failure") == 1
    assert fake.calls == [("fit", "diffusion/seed0")]


def test_jobs_run_side_by_side(study: Path) -> None:
    meeting = threading.Barrier(2, timeout=60)

    class Meeting(FakeTalkhead):
        def __call__(self, arguments: list[str], log: Path) -> int:
            if arguments[0] == "fit":
                meeting.wait()  # broken unless the other variant is being trained at the same time
            return super().__call__(arguments, log)

    fake = Meeting()
    assert run(study, fake, "--jobs=2", "--no-report") == 0
    assert not (study.parent / "out" / "report").exists()
    assert len(fake.calls) == 5
    assert fake.calls[-1] == ("test", "guidance_2.5/seed0")
    with pytest.raises(ConfigError, match="--jobs: expected at least 1"):
        run(study, FakeTalkhead(), "--jobs=0")


def test_interruption_ends_what_runs(tmp_path: Path) -> None:
    processes = ablate.Subprocesses()
    log = tmp_path / "log"
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(processes(["corpus", "--help"], log)))
    thread.start()
    while not processes._running and thread.is_alive():
        time.sleep(0.01)
    processes.stop()
    thread.join(60)
    assert codes == [-signal.SIGTERM]


def test_interrupted_fit_resumes_from_its_last_checkpoint(study: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(study, FakeTalkhead(killed={("fit", "diffusion")}))
    fake = FakeTalkhead()
    assert run(study, fake) == 0
    assert fake.resumed == ["diffusion"]


def test_interrupted_test_does_not_train_again(study: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(study, FakeTalkhead(killed={("test", "diffusion")}))
    fake = FakeTalkhead()
    assert run(study, fake) == 0
    assert fake.calls[0] == ("test", "diffusion/seed0")


def test_changed_settings_start_afresh_and_keep_the_old_run(study: Path) -> None:
    assert run(study, FakeTalkhead()) == 0
    (study.parent / "base.yaml").write_text("model: {dim: 8}\n")
    fake = FakeTalkhead()
    assert run(study, fake) == 0
    assert fake.resumed == []
    assert ("fit", "diffusion/seed0") in fake.calls
    kept = study.parent / "out" / ".superseded" / "diffusion-seed0-0"
    assert (kept / "metrics.json").is_file()


def test_changed_sampler_only_tests_again(study: Path) -> None:
    assert run(study, FakeTalkhead()) == 0
    study.write_text(STUDY.replace("2.5}}", "3.5}}"))
    fake = FakeTalkhead()
    assert run(study, fake) == 0
    assert fake.calls == [("test", "guidance_2.5/seed0")]


def test_only_needs_the_source_of_a_tested_variant(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(study, FakeTalkhead(), "--only=guidance_2.5") == 1
    assert "has not been trained" in capsys.readouterr().err
    assert run(study, FakeTalkhead(), "--only=diffusion") == 0
    assert run(study, FakeTalkhead(), "--only=guidance_2.5") == 0


def test_a_test_without_metrics_is_a_failure(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(arguments: list[str], log: Path) -> int:
        folder = Path(dict(a[2:].split("=", 1) for a in arguments[1:])["trainer.default_root_dir"])
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"w")
        return 0

    assert ablate.main([str(study), f"--out={study.parent / 'o'}", "--only=ar"], runner=silent) == 1
    assert "test wrote no metrics.json" in capsys.readouterr().err


def test_unfinished_fit_of_a_stranger_is_not_resumed(study: Path) -> None:
    stranger = study.parent / "out" / "ar" / "seed0" / "checkpoints"
    stranger.mkdir(parents=True)
    (stranger / "last.ckpt").write_bytes(b"other")
    fake = FakeTalkhead()
    assert run(study, fake, "--only=ar") == 0
    assert fake.resumed == []


def test_subprocess_runner_logs_command_and_message(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert ablate.Subprocesses()(["no-such-command"], log) == 2
    text = log.read_text()
    assert "talkhead no-such-command" in text
    assert "unknown command" in text


@pytest.mark.parametrize(
    ("parallel", "given", "expected"),
    [(1, None, None), (2, None, "2"), (3, None, "1"), (9, None, "1"), (2, "7", "7")],
)
def test_runs_side_by_side_share_the_cores(
    parallel: int,
    given: str | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(ablate, "usable_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    seen: list[str | None] = []

    class Started:
        def __init__(self, command: list[str], env: dict[str, str], **rest: Any) -> None:
            seen.append(env.get("OMP_NUM_THREADS"))

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Started)
    assert ablate.Subprocesses(parallel)(["doctor"], tmp_path / "log") == 0
    assert seen == [expected]


def test_report_command_prints_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result().write(tmp_path / "runs" / "metrics.json")
    assert report.main([str(tmp_path / "runs"), f"--out={tmp_path / 'out'}", "--no-plots"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "out" / "table.md"),
        str(tmp_path / "out" / "table.csv"),
    ]
    with pytest.raises(DataError, match="does not exist"):
        report.main([str(tmp_path / "none"), f"--out={tmp_path / 'out'}"])
    with pytest.raises(ConfigError, match="no file"):
        ablate.main([str(tmp_path / "none.yaml"), f"--out={tmp_path}"])
