"""The whole preparation: list, work through, finish. Everything but the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from datamodules.prepare.engine import DEFAULT_LANDMARKER, Engine, Job, make_landmarker, share_of
from datamodules.prepare.finish import FinishOptions, collect, finish
from datamodules.prepare.layouts import Listing, RawClip, list_clips
from datamodules.prepare.options import ClipOptions
from datamodules.prepare.work import WorkFolder, clip_signature
from datamodules.tracks import TrackFolder
from talkhead.audit.orders import AuditOrders, read_orders
from talkhead.errors import DataError
from talkhead.geometry.crop import crop_policy
from talkhead.specs import VideoSpec, spec_dict
from talkhead.text_files import write_text_atomic

WORK_FOLDER = "work"


class Watcher(Protocol):
    """Who wants to see the progress."""

    def clip(self, raw: RawClip, entries: list[dict[str, Any]], total: int) -> None:
        """A clip is done (or was done before)."""
        ...

    def step(self, what: str, done: int, total: int) -> None:
        """Part of the finishing is done."""
        ...


class _Silent:
    """Nobody watches."""

    def clip(self, raw: RawClip, entries: list[dict[str, Any]], total: int) -> None:
        """Ignore."""

    def step(self, what: str, done: int, total: int) -> None:
        """Ignore."""


@dataclass(frozen=True)
class PrepareJob:
    """Everything ``talkhead prepare`` was asked for.

    Attributes:
        root: Raw data.
        out: Prepared set.
        layout: How the raw data lie, a key of :data:`datamodules.prepare.layouts.LAYOUTS`.
        name: Name of the data set; the layout's if None.
        speaker_from: For the layout ``folder``.
        views: For the layout ``mead``.
        clip: Settings for clips.
        finish: Settings for the set.
        workers: Processes; 0 works in this one.
        limit: Only the first clips of the listing.
        shard: ``(i, n)``: only this part of the clips, and no finishing.
        keep_work: Keep the finished clips after the set is written.
        landmarker: ``"module:Class"`` of the face tracker.
        tracks: Coefficient files of the clips, stored beside the set.
        fix_from: Audit table whose ``shift_frames`` the sound of its clips is delayed by.
        drop_from: Audit table whose clips to drop are left out.
    """

    root: Path
    out: Path
    layout: str = "folder"
    name: str | None = None
    speaker_from: str = "parent"
    views: tuple[str, ...] = ("front",)
    clip: ClipOptions = field(default_factory=ClipOptions)
    finish: FinishOptions = field(default_factory=FinishOptions)
    workers: int = 1
    limit: int | None = None
    shard: tuple[int, int] | None = None
    keep_work: bool = False
    landmarker: str = DEFAULT_LANDMARKER
    tracks: TrackFolder | None = None
    fix_from: Path | None = None
    drop_from: Path | None = None

    def listing(self) -> Listing:
        """The raw clips asked for."""
        found = list_clips(self.layout, self.root, speaker_from=self.speaker_from, views=self.views)
        if self.limit is not None:
            found.clips = found.clips[: self.limit]
        return found

    @property
    def digest(self) -> str:
        """Hash of what decides the content of finished clips."""
        text = f"{self.clip.digest} {self.landmarker}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def fingerprint(self, listing: Listing, audits: Mapping[str, str]) -> str:
        """Hash over the raw clips and all settings: equal means there is nothing to do.

        Args:
            listing: The raw clips.
            audits: What an audit is used for -> hash of that audit.
        """
        signatures = [clip_signature(raw, self.digest) for raw in listing.clips]
        told: list[Any] = [signatures, asdict(self.finish), self.name, self.layout]
        # Only when there are any, so that sets made without keep their fingerprint.
        if self.tracks is not None:
            told.append(self.tracks.signature())
        if audits:
            told.append(audits)
        text = json.dumps(told)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        report: Content of ``report.json``; None while parts of the clips are not done.
        done: Clips worked through, now or earlier.
        total: Clips of the listing.
        up_to_date: Nothing had to be done.
    """

    report: dict[str, Any] | None
    done: int
    total: int
    up_to_date: bool = False


def prepare(job: PrepareJob, watcher: Watcher | None = None) -> Outcome:
    """Raw media to a prepared set; an interrupted run continues where it stopped.

    Args:
        job: What to do.
        watcher: Gets the progress.

    Returns:
        What was done.

    Raises:
        ConfigError: Settings that cannot work.
        DataError: Nothing to prepare, every clip was rejected, no clip has one of the tracks, or an audit
            cannot be read or is of another set.
        MissingDependencyError: The face tracker or PyAV is not installed.
    """
    watch = watcher or _Silent()
    if job.tracks is not None:
        job.tracks.check()
    listing = job.listing()
    orders = {
        use: read_orders(path)
        for use, path in (("fix_offset", job.fix_from), ("drop", job.drop_from))
        if path is not None
    }
    audits = {use: order.digest for use, order in orders.items()}
    fingerprint = job.fingerprint(listing, audits)
    before = _finished(job.out)
    if job.shard is None and before is not None and before.get("prepare") == fingerprint:
        report = json.loads((job.out / "report.json").read_text())
        return Outcome(report, len(listing.clips), len(listing.clips), up_to_date=True)
    tracker = make_landmarker(job.landmarker).name  # fails here and not in every worker
    work = job.out / WORK_FOLDER
    engine = Engine(Job(work, job.clip, job.digest, job.landmarker), job.workers)
    mine = listing.clips if job.shard is None else share_of(listing.clips, *job.shard)
    engine.run(mine, lambda raw, entries: watch.clip(raw, entries, len(mine)))
    if job.shard is not None:
        return Outcome(None, len(mine), len(listing.clips))
    folder = WorkFolder(work, job.digest)
    accepted, rejected = collect(folder, listing.clips, listing.skipped)
    for order in orders.values():
        _check_same_set(order, accepted)
    if "drop" in orders:
        drops = orders["drop"].drops
        rejected += [
            {"source": e["source"], "reason": "audit", "detail": f"{e['id']}: {drops[e['id']]}"}
            for e in accepted
            if e["id"] in drops
        ]
        accepted = [e for e in accepted if e["id"] not in drops]
    lines = "".join(json.dumps(r) + "\n" for r in rejected)
    write_text_atomic(job.out / "rejected.jsonl", lines)
    meta = {
        "dataset": job.name or job.layout,
        "synthetic": job.layout == "embedded",
        "raw_root": str(job.root.resolve()),
        "landmarker": tracker,
        "video": spec_dict(VideoSpec(size=job.clip.size, crop=crop_policy(job.clip.face_share))),
        "options": {**asdict(job.clip), **asdict(job.finish)},
        "prepare": fingerprint,
        **({"audits": audits} if audits else {}),
    }
    report = finish(
        job.out,
        folder,
        accepted,
        rejected,
        meta,
        job.finish,
        watch.step,
        tracks=job.tracks,
        shifts=orders["fix_offset"].shifts if "fix_offset" in orders else None,
    )
    if not job.keep_work:
        shutil.rmtree(work)
    return Outcome(report, len(listing.clips), len(listing.clips))


def _check_same_set(order: AuditOrders, accepted: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an audit that knows none of the clips.

    Single clips may be missing: the audit is older than the raw data, or only a part is prepared.
    """
    known = {entry["id"] for entry in accepted}
    asked = {*order.shifts, *order.drops}
    if known and asked and not known & asked:
        raise DataError(
            f"{order.path}: none of its clips is in this set (it asks for {min(asked)!r}, the set holds "
            f"{min(known)!r}); pass an audit of a set prepared from the same folder, with the same "
            "--dataset and --max-seconds."
        )


def _finished(out: Path) -> dict[str, Any] | None:
    """``prepared.json`` of a complete set, or None."""
    try:
        meta: dict[str, Any] = json.loads((out / "prepared.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return meta


def rejected_by_reason(out: Path) -> dict[str, list[str]]:
    """Reason -> sources, from ``rejected.jsonl`` of a set.

    Raises:
        DataError: The file is missing or broken.
    """
    path = out / "rejected.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; run talkhead prepare again.") from error
    reasons = Counter(row["reason"] for row in rows)
    return {
        reason: [row["source"] for row in rows if row["reason"] == reason]
        for reason, _ in reasons.most_common()
    }
