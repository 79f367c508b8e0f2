"""``talkhead evaluate``: generated video files scored against the real ones of the same names."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.commands.evaluate_tracks import Tracks, add_options, tracks_of
from talkhead.commands.evaluate_workers import Task, measure_pairs, place_of
from talkhead.cores import usable_cores
from talkhead.errors import ConfigError, DataError

if TYPE_CHECKING:
    from talkhead.evaluation.judges import JudgeFiles, Judges
    from talkhead.evaluation.measure import Measurement
    from talkhead.evaluation.pairs import Pair
    from talkhead.evaluation.spaces import MeshSpace, Spaces
    from talkhead.evaluation.summary import Summary

_EPILOG = """Files pair by their path below the folder, whatever their ending. Every video is read by its time
stamps at 25 frames and 16000 samples a second from its first frame, decoded once and tracked once.

OUT/metrics.json   means, spread, settings and digests; talkhead report reads it
OUT/per_clip.csv   every score of every clip
OUT/table.md       the table that is printed
OUT/clips          what was measured of each pair; a repeated command measures only what changed

No weights are downloaded. What a missing file would have judged is listed as missing; docs/metrics.md
defines every number, docs/weights.md names the files."""
_LOST_FRAMES = 3.0
"""Mean absolute offset of the real clips beyond which their sync judge is not to be trusted."""
_MISSING = {
    "syncnet": ("sync_*", "give --syncnet syncnet_v2.model or a checkpoint of stage syncnet"),
    "rigid_syncer": ("rigid_offset_*", "give --rigid-syncer, a checkpoint of stage rigid_syncer"),
    "gaze": ("*_reading_distance[gaze]", "give --gaze, a checkpoint of stage gaze"),
    "inception": (
        "fid[inception_v3]",
        "give --inception pt_inception-2015-12-05-6726825d.pth; frechet[…] is no FID",
    ),
    "lpips": ("lpips[alex]", "give --lpips alexnet-owt-7be5be79.pth"),
    "sface": (
        "csim[sface*]",
        "give --sface face_recognition_sface_2021dec.onnx, or --identity for the suite's own",
    ),
}


@dataclass
class Work:
    """Pairs and where their measurements are.

    Attributes:
        pairs: All pairs.
        keys: Pair name -> digest of everything its measurement depends on.
        digests: File -> SHA-256.
        left_out: Pair name -> why it could not be measured.
    """

    pairs: list[Pair]
    keys: dict[str, str]
    digests: dict[Path, str]
    left_out: dict[str, str] = field(default_factory=dict)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="talkhead evaluate",
        description="Score generated video files against the real ones of the same names.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--generated", type=Path, required=True, help="folder of generated videos")
    made.add_argument("--reference", type=Path, required=True, help="folder of the real ones")
    made.add_argument("--out", type=Path, required=True, help="folder for the results")
    made.add_argument("--name", help="name of the method (default: the generated folder's)")
    made.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="training seed of the method, for the report",
    )
    made.add_argument(
        "--allow-missing", action="store_true", help="leave out files without a partner"
    )
    made.add_argument(
        "--synthetic", action="store_true", help="note that the real videos are drawn, not recorded"
    )
    made.add_argument(
        "--workers",
        type=int,
        default=usable_cores(),
        metavar="N",
        help="processes; 0 works in this one (default: all cores)",
    )
    group = made.add_argument_group("what is compared")
    group.add_argument("--size", type=int, default=256, metavar="PX", help="side of crops (256)")
    group.add_argument(
        "--face-share",
        type=float,
        default=0.5,
        metavar="X",
        help="share of the crop's width that the face takes (0.5)",
    )
    group.add_argument(
        "--fid-every",
        type=int,
        default=1,
        metavar="N",
        help="every N-th frame for FID and CSIM (1)",
    )
    group.add_argument(
        "--motion-space",
        type=Path,
        metavar="DIR",
        help="prepared set whose motion model and statistics define the motion descriptors; by default "
        "both are fitted on the real clips",
    )
    group.add_argument(
        "--training-confidence",
        type=float,
        metavar="C",
        help="mean SyncNet confidence of the method's training set, for N_c (sync_nlse)",
    )
    group = made.add_argument_group("weights of the judges, by path")
    group.add_argument("--syncnet", metavar="FILE", help="syncnet_v2.model or a checkpoint")
    group.add_argument("--inception", metavar="FILE", help="pt_inception-2015-12-05-6726825d.pth")
    group.add_argument("--lpips", metavar="FILE", help="alexnet-owt-7be5be79.pth")
    group.add_argument("--lpips-linear", metavar="FILE", help="alex.pth (default: torchmetrics')")
    group.add_argument("--sface", metavar="FILE", help="face_recognition_sface_2021dec.onnx")
    group.add_argument("--identity", metavar="CKPT", help="checkpoint with an identity_encoder")
    group.add_argument("--rigid-syncer", metavar="CKPT", help="checkpoint of stage rigid_syncer")
    group.add_argument("--gaze", metavar="CKPT", help="checkpoint of stage gaze")
    add_options(made)
    return made


def main(argv: Sequence[str]) -> int:
    """Measure, score and print the table.

    Returns:
        0.

    Raises:
        ConfigError: An option that cannot work, or weights that are not what they should be.
        DataError: Unpaired files, or no pair that can be measured.
    """
    options = parser().parse_args(list(argv))
    from datamodules.prepare.engine import DEFAULT_LANDMARKER

    print(evaluate(options, shlex.join(["talkhead", "evaluate", *argv]), DEFAULT_LANDMARKER))
    return 0


def evaluate(options: argparse.Namespace, command: str, landmarker: str) -> str:
    """Everything but the command line; returns the table.

    Args:
        options: Of :func:`parser`.
        command: As typed, for the result.
        landmarker: ``"module:Class"`` of the face tracker.

    Raises:
        TalkheadError: See :func:`main`.
    """
    _check(options)
    tracks = tracks_of(options)
    from datamodules.prepare.engine import make_landmarker
    from talkhead.evaluation.judges import JudgeFiles, Judges
    from talkhead.evaluation.measure import Measurement, MeasureOptions
    from talkhead.evaluation.spaces import FaceModelSpace, MeshSpace
    from talkhead.evaluation.summary import summarise, table
    from talkhead.report.results import clips_csv
    from talkhead.text_files import write_text_atomic

    files = JudgeFiles(**{f.name: getattr(options, f.name) for f in fields(JudgeFiles)})
    settings = MeasureOptions(options.size, options.face_share, options.fid_every)
    judges = Judges.load(files, settings.size)  # fails here and not in every worker
    tracker = make_landmarker(landmarker).name
    task = Task(files, settings, landmarker, options.out / "clips")
    prepared = None if options.motion_space is None else _prepared_space(options.motion_space)
    work, unpaired = _plan(options, task, tracker)
    if tracks is not None:
        tracks.check_any(work.pairs)
    _measure_all(work, task, options.workers, judges)
    done = [pair for pair in work.pairs if pair.name not in work.left_out]
    if not done:
        raise DataError(f"no pair could be measured: {_reasons(work)}.")

    def load(name: str) -> Measurement:
        found = Measurement.load(place_of(task.clips, name), work.keys[name])
        if found is None:
            raise DataError(
                f"{place_of(task.clips, name)} vanished or broke; run the command again."
            )
        return found

    def described(name: str) -> Measurement:
        found = load(name)
        if tracks is not None:
            tracks.attach(name, found)
        return found

    names = [pair.name for pair in done]
    space = prepared or MeshSpace.of_clips(names, lambda name: load(name).reference)
    spaces: Spaces = [space] if tracks is None else [space, FaceModelSpace()]
    summary = summarise(names, described, spaces, options.training_confidence)
    summary.missing = _missing(files, summary, options.training_confidence, tracks)
    digests = files.digests() | ({} if tracks is None else tracks.digests(done))
    result = _result(options, command, tracker, work, summary, judges, digests, space)
    result.write(options.out / "metrics.json")
    write_text_atomic(options.out / "per_clip.csv", clips_csv(summary.per_clip))
    text = table(summary, _facts(result, work, unpaired, summary))
    write_text_atomic(options.out / "table.md", text)
    return text


def _check(options: argparse.Namespace) -> None:
    """Refuse options that cannot work before anything is read."""
    for name in ("generated", "reference"):
        folder: Path = getattr(options, name)
        if not folder.is_dir():
            raise ConfigError(f"--{name}: expected a folder of videos, found none at {folder}.")
        if folder.resolve() == options.out.resolve():
            raise ConfigError(f"--out: expected another folder than --{name}.")
    if not 64 <= options.size <= 1024:
        raise ConfigError(f"--size: expected 64 to 1024 pixels, got {options.size}.")
    if not 0.2 <= options.face_share <= 0.8:
        raise ConfigError(f"--face-share: expected 0.2 to 0.8, got {options.face_share}.")
    if options.fid_every < 1 or options.workers < 0:
        raise ConfigError(
            f"expected --fid-every of at least 1 and --workers of at least 0, got {options.fid_every} "
            f"and {options.workers}."
        )
    confidence = options.training_confidence
    if confidence is not None and not 0.0 < confidence < math.inf:
        raise ConfigError(
            f"--training-confidence: expected a mean confidence above 0, got {confidence:g}."
        )
    if confidence is not None and options.syncnet is None:
        raise ConfigError(
            "--training-confidence: N_c needs confidences of the generated videos as well; give --syncnet, "
            "the network that measured it."
        )


def _plan(options: argparse.Namespace, task: Task, tracker: str) -> tuple[Work, list[str]]:
    """Pairs with their keys, and the files without a partner."""
    from datamodules.prepare.layouts import videos_under
    from talkhead.evaluation.measure import FORMAT
    from talkhead.evaluation.pairs import file_sha256, match_pairs

    pairs, unpaired = match_pairs(
        options.generated,
        options.reference,
        videos_under(options.generated),
        videos_under(options.reference),
        allow_missing=options.allow_missing,
    )
    digests = {p: file_sha256(p) for pair in pairs for p in (pair.generated, pair.reference)}
    judged_by = task.files.digests()
    keys = {}
    for pair in pairs:
        made_of = {
            "files": [digests[pair.generated], digests[pair.reference]],
            "judges": judged_by,
            "options": asdict(task.options),
            "tracker": tracker,
            "format": FORMAT,
        }
        text = json.dumps(made_of, sort_keys=True)
        keys[pair.name] = hashlib.sha256(text.encode()).hexdigest()
    return Work(pairs, keys, digests), unpaired


def _measure_all(work: Work, task: Task, workers: int, judges: Judges) -> None:
    """Measure every pair that is not measured yet; what cannot be measured is noted."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from talkhead.evaluation.measure import Measurement

    todo = [
        pair
        for pair in work.pairs
        if Measurement.load(place_of(task.clips, pair.name), work.keys[pair.name]) is None
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task(
            "pairs", total=len(work.pairs), completed=len(work.pairs) - len(todo)
        )
        for name, problem in measure_pairs(todo, work.keys, task, workers, judges):
            if problem is not None:
                work.left_out[name] = problem
            label = f"pairs ({len(work.left_out)} left out)" if work.left_out else "pairs"
            progress.update(bar, advance=1, description=label)


def _prepared_space(folder: Path) -> MeshSpace:
    """Descriptors of a prepared set; its fingerprint and not its place tells it from others."""
    import torch

    from datamodules.shards import PreparedSet
    from talkhead.evaluation.spaces import MeshSpace

    known = PreparedSet(folder)
    stats = known.motion_stats()
    standard = (torch.from_numpy(stats.mean), torch.from_numpy(stats.std))
    source = f"prepared set {known.dataset}, fingerprint {known.data_fingerprint[:12]}"
    return MeshSpace(known.motion_model(), standard, source)


def _missing(
    files: JudgeFiles, summary: Summary, training_confidence: float | None, tracks: Tracks | None
) -> dict[str, str]:
    """Metrics without weights, and what weights there were for but nothing to judge."""
    out = {
        name: reason
        for option, (name, reason) in _MISSING.items()
        if getattr(files, option) is None
    }
    if files.syncnet is not None and not any("sync_" in name for name in summary.metrics):
        out["sync_*"] = "no clip with sound is long enough"
    elif files.syncnet is not None and training_confidence is None:
        out["sync_nlse"] = "give --training-confidence, of the method's training set"
    if files.rigid_syncer is not None and not any("rigid_" in name for name in summary.metrics):
        out["rigid_offset_*"] = "no clip with sound has a whole run of frames"
    if tracks is None:
        out["*[deep3d]"] = (
            "give --generated-tracks and --reference-tracks, fitted with Deep3DFaceRecon"
        )
    else:
        out |= {f"*[deep3d] of {clip}": why for clip, why in sorted(tracks.missing.items())}
    out["multimodality"] = "needs several generated videos of one speech"
    return out


def _result(
    options: argparse.Namespace,
    command: str,
    tracker: str,
    work: Work,
    summary: Summary,
    judges: Judges,
    digests: dict[str, str],
    space: MeshSpace,
) -> Any:
    """The run in the suite's result format."""
    from talkhead.geometry.crop import crop_policy
    from talkhead.report.results import DataInfo, RunResult
    from talkhead.report.units import unit_of
    from talkhead.specs import FPS, SAMPLE_RATE_HZ

    real = sorted(work.digests[p.reference] for p in work.pairs if p.name not in work.left_out)
    settings: dict[str, Any] = {
        "fps": FPS,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "crop": f"{options.size} px, {crop_policy(options.face_share)}, of the real video",
        "fid_every": options.fid_every,
        "motion_space": space.source,
        "training_confidence": options.training_confidence,
        "judges": judges.names(),
        "digests": digests,
        "units": {name: unit_of(name) for name in summary.metrics},
        "spread": {
            name: {"std": None if count < 2 else std, "clips": count}
            for name, (std, count) in summary.spread.items()
        },
        "missing": summary.missing,
        "left_out": work.left_out,
    }
    decided = {k: settings[k] for k in ("crop", "fid_every", "motion_space", "digests")}
    return RunResult(
        stage="evaluate",
        variant=options.name or options.generated.resolve().name,
        seed=options.seed,
        data=DataInfo(
            dataset=options.reference.resolve().name,
            synthetic=options.synthetic,
            split="evaluate",
            clips=len(summary.per_clip),
            frames=sum(row["frames"] for row in summary.per_clip),
            data_fingerprint=hashlib.sha256("".join(real).encode()).hexdigest()[:16],
        ),
        extractor=tracker,
        command=command,
        checkpoint={"path": None, "digest": None},
        config_digest=hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:16],
        metrics=summary.metrics,
        per_clip=summary.per_clip,
        settings=settings,
    )


def _facts(result: Any, work: Work, unpaired: Sequence[str], summary: Summary) -> dict[str, str]:
    """The head of the table: what was compared, and what had to be cut or left out."""
    from talkhead.evaluation.pairs import shortened

    settings = result.settings
    facts = {
        "generated": f"{result.variant}, against {result.data.dataset}",
        "clips": f"{result.data.clips} ({result.data.frames} common frames at {settings['fps']} fps)",
        "crop": settings["crop"],
        "tracker": result.extractor,
        "motion descriptors": settings["motion_space"],
        "judges": ", ".join(f"{k} ({v})" for k, v in settings["judges"].items()) or "none",
    }
    rows = summary.per_clip
    uneven = [
        f"{row['clip']} {row['frames_generated']} and {row['frames_reference']}"
        for row in rows
        if abs(row["frames_generated"] - row["frames_reference"]) > 1
    ]
    if settings["fid_every"] > 1:
        facts["frames of FID and CSIM"] = f"one in {settings['fid_every']}"
    if uneven:
        facts["cut to the common part"] = shortened(uneven) + " frames (generated and real)"
    apart = [row["clip"] for row in rows if row["box"] == "own"]
    if apart:
        facts["another field of view, so a crop of its own"] = shortened(apart)
    borrowed = [row["clip"] for row in rows if row["sound"] == "reference"]
    if borrowed:
        facts["silent file, judged with the real sound"] = shortened(borrowed)
    for name, value in summary.metrics.items():
        if name.startswith("gt/sync_offset") and value > _LOST_FRAMES:
            facts["unfit judge"] = (
                f"{name} is {value:.1f} frames: it cannot place the sound of the real clips, so its scores "
                "say nothing about the generated ones (or the real clips are out of sync)"
            )
    if unpaired:
        facts["without a partner"] = shortened(unpaired)
    if work.left_out:
        facts["left out"] = _reasons(work)
    return facts


def _reasons(work: Work) -> str:
    """Pairs that could not be measured, and why."""
    from talkhead.evaluation.pairs import shortened

    return shortened([f"{name} ({reason})" for name, reason in sorted(work.left_out.items())])
