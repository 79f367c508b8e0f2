"""The main job on the embedded corpus, step by step, as the commands a user would type.

``talkhead demo`` (or ``make demo``) makes the corpus, prepares it, trains every stage of system A in
small size, compares the priors, writes the report and a talking video. Finished steps are skipped and
interrupted training is resumed, so the command can be repeated after any interruption.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from talkhead.errors import TalkheadError
from talkhead.text_files import write_text_atomic

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
CORPUS = {"speakers": "40", "clips": "2", "seconds": "8", "size": "192"}
"""Many speakers with little each: encoders of a few minutes learn what carries over to new faces."""
IMAGE_SIZE = "64"
FACE_SHARE = "0.7"
"""A tight crop: at 64 pixels the usual one leaves eight for the mouth."""


class StepFailedError(TalkheadError):
    """A step of the demo ended with an error; its own message is above."""


@dataclass(frozen=True)
class Step:
    """One command of the demo.

    Attributes:
        name: Short name, also the name of its done marker.
        args: Arguments after ``talkhead``.
        run: Run folder whose ``last.ckpt`` an interrupted fit resumes from.
        inputs: Makes what the command reads, just before it runs.
        threads: Threads of each process; 1 for commands that are two processes themselves.
        beside: Runs at the same time as the next step, with its output in ``logs/``: networks this
            small gain little from a second core, a second command much.
    """

    name: str
    args: tuple[str, ...]
    run: Path | None = None
    inputs: Callable[[], None] | None = None
    threads: int = 2
    beside: bool = False

    def command(self, resume: bool) -> list[str]:
        """The command line; ``resume`` goes on from the run's last checkpoint, if there is one."""
        args = list(self.args)
        last = None if self.run is None else self.run / "checkpoints" / "last.ckpt"
        if resume and last is not None and last.is_file():
            args += ["--ckpt_path", str(last)]
        return [sys.executable, "-m", "talkhead", *args]

    def digest(self, before: str) -> str:
        """Changes with the arguments, the YAML files they name and the digest of the step before."""
        digest = hashlib.sha256("\0".join((before, *self.args)).encode())
        for arg in self.args:
            path = Path(arg.rpartition("=")[2])
            if path.suffix == ".yaml":
                digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


def stage_steps(
    run_file: str, out: Path, data: Path, sources: dict[str, Path], trainer: str = "cpu"
) -> list[Step]:
    """Training and test of one stage in small size.

    Args:
        run_file: Name of the run file, of its small overlay and of the run folder below ``out``.
        out: The demo's folder.
        data: The prepared set.
        sources: Consumed component -> checkpoint.
        trainer: Trainer fragment of the training; tests run in one process.
    """
    run = out / run_file
    common = [
        f"--config={EXPERIMENTS}/size/demo/{run_file}.yaml",
        f"--data.root={data}",
        f"--trainer.default_root_dir={run}",
        *(f"--model.{part}={path}" for part, path in sources.items()),
    ]
    base = f"--config={EXPERIMENTS}/runs/{run_file}.yaml"
    fit, one = (f"--config={EXPERIMENTS}/trainer/{kind}.yaml" for kind in (trainer, "cpu"))
    last = f"--ckpt_path={run}/checkpoints/last.ckpt"
    return [
        Step(
            f"{run_file} fit",
            ("fit", base, fit, *common),
            run,
            threads=1 if trainer == "cpu2" else 2,
        ),
        Step(f"{run_file} test", ("test", base, one, *common, last), threads=1, beside=True),
    ]


def corpus_steps(raw: Path, data: Path) -> list[Step]:
    """Draw the embedded corpus and prepare it."""
    corpus = [f"--{k}={v}" for k, v in CORPUS.items()]
    return [
        Step("corpus", ("corpus", f"--out={raw}", *corpus, "--workers=2"), threads=1),
        Step(
            "prepare",
            (
                "prepare",
                "--dataset=embedded",
                f"--raw={raw}",
                f"--out={data}",
                f"--size={IMAGE_SIZE}",
                f"--face-share={FACE_SHARE}",
                "--workers=2",
            ),
            threads=1,
        ),
    ]


def steps(out: Path, seeds: int, prepared: Path | None = None) -> list[Step]:
    """Every step of the demo in order, on the embedded corpus or on a prepared set."""
    data = prepared or out / "prepared"
    reenactment, contrastive, disentangled = (
        out / name / "checkpoints" / "last.ckpt"
        for name in ("10_reenactment", "20_av_contrastive", "30_lip_disentangle")
    )
    ablation = out / "prior"
    best = ablation / "diffusion" / "seed0" / "checkpoints" / "last.ckpt"
    priors = [f"--set=data.root={data}"]
    priors += [
        f"--set=model.{part}={reenactment}" for part in ("motion_encoder", "identity_encoder")
    ]
    priors += [f"--set=model.audio_encoder={contrastive}"]
    priors += [
        f"--set=model.{part}={disentangled}" for part in ("nonlip_head", "lip_head", "generator")
    ]
    portrait = out / "portrait.png"
    measured = [*(path.parents[1] for path in (reenactment, contrastive, disentangled)), ablation]
    return [
        *([] if prepared else corpus_steps(out / "raw", data)),
        Step("data", ("data", str(data))),
        *stage_steps("10_reenactment", out, data, {}),
        *stage_steps("20_av_contrastive", out, data, {"motion_encoder": reenactment}),
        *stage_steps(
            "30_lip_disentangle",
            out,
            data,
            {
                "identity_encoder": reenactment,
                "motion_encoder": reenactment,
                "generator": reenactment,
                "audio_encoder": contrastive,
            },
            "cpu2",
        ),
        Step(
            "priors",
            (
                "ablate",
                str(EXPERIMENTS / "ablations" / "prior.yaml"),
                f"--out={ablation}",
                f"--seeds={seeds}",
                "--jobs=2",
                "--no-report",
                f"--set=config={EXPERIMENTS}/size/demo/40_motion_prior.yaml",
                *priors,
            ),
            threads=1,
        ),
        Step(
            "generate",
            (
                "generate",
                f"--portrait={portrait}",
                f"--speech={out / 'speech.wav'}",
                f"--checkpoint={best}",
                "--renderer=generator,mesh",
                "--seed=0,1",
                "--show-portrait",
                f"--out={out / 'talking.mp4'}",
            ),
            inputs=partial(_held_out_inputs, data, out),
            threads=1,
            beside=True,
        ),
        Step("report", ("report", *map(str, measured), f"--out={out / 'report'}")),
    ]


def main(argv: list[str]) -> int:
    """``talkhead demo [--out DIR] [--seeds N]``."""
    parser = argparse.ArgumentParser(prog="talkhead demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where everything goes")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help=f"a set prepared with --size {IMAGE_SIZE} and a test split, instead of the embedded corpus",
    )
    parser.add_argument("--seeds", type=int, default=1, help="training seeds of the priors")
    parser.add_argument("--until", help="stop after the step of this name")
    options = parser.parse_args(argv)
    out = options.out.resolve()
    (out / "done").mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    data = None if options.data is None else options.data.resolve()
    todo = steps(out, options.seeds, data)
    for group in groups(todo, options.until):
        with ThreadPoolExecutor(len(group)) as pool:
            running = [
                pool.submit(_run, step, digest, out, f"[{number}/{len(todo)}]")
                for number, step, digest in group
            ]
        for each in running:
            each.result()
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    _say(f"demo finished in {time.monotonic() - started:.0f} s, largest process {peak_gib:.1f} GiB")
    for label, path in (
        ("table", out / "report" / "table.md"),
        ("plots", out / "report" / "plots"),
        ("video", out / "talking.mp4"),
    ):
        if path.exists():
            _say(f"{label}: {path}")
    return 0


Numbered = tuple[int, Step, str]
"""A step with its number and the digest of everything up to it."""


def groups(todo: list[Step], until: str | None = None) -> list[list[Numbered]]:
    """Steps that run at the same time, in order, up to the one of the name ``until``."""
    found: list[list[Numbered]] = [[]]
    digest = ""
    for number, step in enumerate(todo, 1):
        digest = step.digest(digest)
        found[-1].append((number, step, digest))
        if step.name == until:
            break
        if not step.beside:
            found.append([])
    return [group for group in found if group]


def _run(step: Step, digest: str, out: Path, counter: str) -> None:
    """Run one step unless it is done; its marker says what was begun, and its time when it is done."""
    file_name = step.name.replace(" ", "-")
    marker = out / "done" / f"{file_name}.json"
    before = json.loads(marker.read_text()) if marker.is_file() else {}
    same = before.get("digest") == digest
    if same and "seconds" in before:
        _say(f"{counter} {step.name}: done before, skipped")
        return
    if step.inputs is not None:
        step.inputs()
    command = step.command(resume=same)
    _say(f"{counter} {step.name}: talkhead {shlex.join(command[3:])}")
    write_text_atomic(marker, json.dumps({"digest": digest}))
    begun = time.monotonic()
    env = {"OMP_NUM_THREADS": str(step.threads), **os.environ}
    log = out / "logs" / f"{file_name}.log" if step.beside else None
    code = _call(command, env, log)
    if code != 0:
        where = "above" if log is None else f"in {log}"
        raise StepFailedError(
            f"step '{step.name}' ended with exit code {code} (its message is {where}); "
            "mend the cause and repeat the command: finished steps are kept."
        )
    seconds = time.monotonic() - begun
    write_text_atomic(marker, json.dumps({"digest": digest, "seconds": round(seconds, 1)}))
    _say(f"{counter} {step.name}: {seconds:.0f} s")


def _call(command: list[str], env: dict[str, str], log: Path | None) -> int:
    """Exit code of a command that shows its output, or writes it to ``log``."""
    if log is None:
        return subprocess.run(command, check=False, env=env).returncode
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as file:
        return subprocess.run(
            command, check=False, env=env, stdout=file, stderr=subprocess.STDOUT
        ).returncode


def _held_out_inputs(data: Path, out: Path) -> None:
    """A portrait and speech of a test speaker, taken from the raw clips of a prepared set."""
    from datamodules.shards import PreparedSet
    from talkhead.media.decode import iter_frames, read_audio
    from talkhead.media.encode import write_png, write_wav

    prepared = PreparedSet(data)
    rows = prepared.rows("test")
    if not rows:
        raise StepFailedError(f"{data} has no test clips; prepare it with --test-share above 0.")
    clip = prepared.raw_root / rows[0].source
    write_png(out / "portrait.png", next(iter(iter_frames(clip))))
    write_wav(out / "speech.wav", read_audio(clip))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
