"""``talkhead ablate FILE.yaml --out DIR``: run a named set of variants, then report."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.cores import usable_cores
from talkhead.errors import ConfigError, DataError
from talkhead.report.ablation import (
    MARKER,
    Job,
    Overrides,
    plan,
    read_marker,
    read_study,
    set_aside,
    write_marker,
)
from talkhead.report.results import FILE_NAME

Runner = Callable[[list[str], Path], int]
"""Runs ``talkhead`` with these arguments, its output appended to the log; returns the exit code."""

TAIL_LINES = 15
_PASSED_OUT = {MARKER, "fit.log", "test.log"}


@dataclass
class Outcome:
    """What happened to the jobs, by name."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def main(argv: Sequence[str], runner: Runner | None = None) -> int:
    """Run what is not finished, then write the report to ``OUT/report``.

    Args:
        argv: Arguments after ``talkhead ablate``.
        runner: Runs one command; a subprocess by default.

    Returns:
        0 when every variant and seed is finished, else 1.

    Raises:
        ConfigError: The study file or an option is wrong.
    """
    options = _parser().parse_args(list(argv))
    study = read_study(options.study)
    overrides = Overrides.parse(options.set)
    out = options.out.resolve()
    jobs = plan(study, out, seeds=options.seeds, only=options.only, overrides=overrides)
    if options.jobs < 1:
        raise ConfigError(f"--jobs: expected at least 1, got {options.jobs}.")
    processes = Subprocesses(options.jobs)
    outcome = run_jobs(
        jobs,
        out,
        runner or processes,
        stop=options.stop_on_failure,
        parallel=options.jobs,
        abort=processes.stop,
    )
    print(
        f"{len(outcome.done)} run, {len(outcome.skipped)} finished before, "
        f"{len(outcome.failed)} failed"
    )
    for name, reason in outcome.failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if not options.no_report:
        _report(out)
    return 1 if outcome.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="talkhead ablate",
        description="Train and test every variant of a study with every seed; "
        "repeat the command to resume. Ends with a report in OUT/report.",
    )
    parser.add_argument("study", type=Path, metavar="FILE.yaml", help="names base and variants")
    parser.add_argument("--out", type=Path, required=True, help="runs go to OUT/<variant>/seed<k>")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N-1 (default 1)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option for every run, such as trainer.max_steps=100; config=FILE adds an overlay",
    )
    parser.add_argument(
        "--no-report", action="store_true", help="leave the report to talkhead report"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs at the same time, which share the cores (default 1)",
    )
    parser.add_argument(
        "--stop-on-failure", action="store_true", help="do not start other variants after a failure"
    )
    return parser


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    runner: Runner,
    *,
    stop: bool = False,
    parallel: int = 1,
    abort: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run every job that is not finished, with a progress bar; those that train come first.

    Args:
        jobs: In running order.
        out: Folder of the study; superseded runs are kept in it.
        runner: Runs one command.
        stop: Start no other job after the first failure.
        parallel: Jobs that run at the same time.
        abort: Called when this process is interrupted, to end what the runner has started.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    outcome = Outcome()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns) as progress, ThreadPoolExecutor(parallel) as pool:
        task = progress.add_task("", total=len(jobs))

        def say(line: str) -> None:
            progress.update(task, description=line)

        def run(job: Job) -> None:
            reason = _blocked(job, outcome)
            if stop and outcome.failed:
                return
            if reason is None:
                try:
                    ran = run_job(job, out, runner, say)
                    (outcome.done if ran else outcome.skipped).append(job.name)
                except PhaseFailedError as error:
                    reason = str(error)
                    progress.console.print(error.tail, markup=False, highlight=False)
            if reason is not None:
                outcome.failed[job.name] = reason
            state = "failed" if reason else "finished"
            progress.console.print(f"{job.name}: {state}", markup=False, highlight=False)
            progress.advance(task)

        try:
            # A job that only tests another's checkpoint waits until everything is trained.
            for wave in ([j for j in jobs if j.trains], [j for j in jobs if not j.trains]):
                for future in as_completed([pool.submit(run, job) for job in wave]):
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            abort()
            raise
    return outcome


class PhaseFailedError(Exception):
    """A subprocess ended with an error; ``tail`` is the end of its log."""

    def __init__(self, reason: str, log: Path) -> None:
        """Keep the reason and read the end of the log."""
        super().__init__(reason)
        text = log.read_text(errors="replace") if log.is_file() else ""
        self.tail = "\n".join(text.splitlines()[-TAIL_LINES:])


def _blocked(job: Job, outcome: Outcome) -> str | None:
    """Why a job that tests another's checkpoint cannot run."""
    if job.trains:
        return None
    source = f"{job.variant.test_only_from}/seed{job.seed}"
    if source in outcome.failed:
        return f"its source {source} failed"
    if "fit" not in read_marker(job.source):
        return f"its source {source} has not been trained; run it first"
    return None


def run_job(job: Job, out: Path, runner: Runner, say: Callable[[str], None]) -> bool:
    """Fit and test one variant and seed, skipping phases that are finished.

    Returns:
        False when nothing had to be done.

    Raises:
        PhaseFailedError: A phase ended with an error.
    """
    fitted = _fit(job, out, runner, say) if job.trains else False
    state = read_marker(job.folder)
    digest = _test_digest(job)
    if state.get("test") == digest and (job.folder / FILE_NAME).is_file():
        return fitted
    say(f"{job.name} test")
    # An old file must not pass for the result of a test that fails.
    (job.folder / FILE_NAME).unlink(missing_ok=True)
    _run_phase(job, "test", runner)
    if not (job.folder / FILE_NAME).is_file():
        raise PhaseFailedError(f"test wrote no {FILE_NAME}", job.folder / "test.log")
    write_marker(job.folder, {**state, "test": digest})
    return True


def _fit(job: Job, out: Path, runner: Runner, say: Callable[[str], None]) -> bool:
    """Train unless done; resume what was interrupted; set other settings' runs aside."""
    digest = job.digest("fit")
    state = read_marker(job.folder)
    if state.get("fit") == digest and job.checkpoint.is_file():
        return False
    foreign = job.folder.is_dir() and any(p.name not in _PASSED_OUT for p in job.folder.iterdir())
    if state.get("started_fit") != digest and (state or foreign):
        moved = set_aside(job.folder, out)
        say(f"{job.name}: other settings, old run kept in {moved}")
    write_marker(job.folder, {"started_fit": digest})
    say(f"{job.name} fit" + (" (resumed)" if job.checkpoint.is_file() else ""))
    _run_phase(job, "fit", runner)
    if not job.checkpoint.is_file():
        raise PhaseFailedError(f"fit wrote no {job.checkpoint.name}", job.folder / "fit.log")
    write_marker(job.folder, {"started_fit": digest, "fit": digest})
    return True


def _run_phase(job: Job, phase: str, runner: Runner) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    log = job.folder / f"{phase}.log"
    code = runner(job.command(phase), log)
    if code != 0:
        raise PhaseFailedError(f"{phase} ended with exit code {code}; see {log}", log)


def _test_digest(job: Job) -> str:
    """Changes with the test's options and with the checkpoint's training."""
    trained = read_marker(job.source).get("fit", "")
    return hashlib.sha256(f"{trained}\0{job.digest('test')}".encode()).hexdigest()[:16]


class Subprocesses:
    """Runs ``python -m talkhead …`` with its output in the log."""

    def __init__(self, parallel: int = 1) -> None:
        """Share the cores among ``parallel`` commands, unless ``OMP_NUM_THREADS`` says otherwise.

        Threads that wait for each other while another process has their core are far slower than one
        thread each.
        """
        self._running: set[subprocess.Popen[bytes]] = set()
        self._environment = dict(os.environ)
        if parallel > 1:
            threads = max(1, usable_cores() // parallel)
            self._environment.setdefault("OMP_NUM_THREADS", str(threads))

    def __call__(self, arguments: list[str], log: Path) -> int:
        """Wait for one command; its exit code."""
        command = [sys.executable, "-m", "talkhead", *arguments]
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n")
            file.flush()
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=self._environment
            )
            self._running.add(process)
            try:
                return process.wait()
            finally:
                self._running.discard(process)

    def stop(self) -> None:
        """End what still runs."""
        for process in list(self._running):
            process.terminate()


def _report(out: Path) -> None:
    """Write the report of everything that finished so far."""
    from talkhead.report.write import write_report

    try:
        report = write_report([out], out / "report")
    except DataError as error:
        print(f"no report: {error}", file=sys.stderr)
        return
    print(report.markdown)
    for path in report.plots:
        print(path)
