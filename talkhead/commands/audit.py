"""``talkhead data DIR --audit``: measure every clip of a prepared set and say what to do about it."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.cores import usable_cores
from talkhead.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from datamodules.shards import PreparedSet
    from talkhead.audit.measure import Measures
    from talkhead.networks.syncnet import SyncNet

_MEASURES_VERSION = 1
"""Raise it when a measure changes, so that no unfinished audit mixes two."""
_SYSTEMATIC_SHARE = 0.5
_ONLY_WITH_AUDIT = ("syncnet", "out", "limit", "workers", "device")


@dataclass(frozen=True)
class AuditOptions:
    """What was asked for.

    Attributes:
        out: The table; the summary goes beside it as ``.json``.
        syncnet: Judge of the sync, or None for the estimates of ``prepare``.
        limits: Changed thresholds, ``NAME=VALUE`` each.
        workers: Processes; 0 works in this one.
        device: ``auto`` or a torch device.
    """

    out: Path
    syncnet: Path | None
    limits: tuple[str, ...]
    workers: int
    device: str


def add_audit_options(parser: argparse.ArgumentParser) -> None:
    """Options of the audit."""
    group = parser.add_argument_group("audit (docs/data_audit.md)")
    group.add_argument(
        "--audit", action="store_true", help="measure every clip and recommend keep, fix or drop"
    )
    group.add_argument(
        "--syncnet",
        type=Path,
        metavar="FILE",
        help="judge of the offsets: a checkpoint of stage syncnet, or the published syncnet_v2.model "
        "(default: the estimates of prepare)",
    )
    group.add_argument(
        "--out", type=Path, metavar="CSV", help="table to write (default: DIR/audit.csv)"
    )
    group.add_argument(
        "--limit", action="append", metavar="NAME=VALUE", help="change a threshold; may be repeated"
    )
    group.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    group.add_argument("--device", metavar="D", help="where the judge runs (default: auto)")


def check_audit_options(args: argparse.Namespace) -> None:
    """Refuse options of the audit without ``--audit``, and values that cannot work.

    Raises:
        ConfigError: Such options.
    """
    given = [name for name in _ONLY_WITH_AUDIT if getattr(args, name) is not None]
    if given and not args.audit:
        raise ConfigError(f"--{given[0]} belongs to the audit; add --audit.")
    if args.audit and args.json:
        raise ConfigError("--json prints one document; the audit writes its own beside its table.")
    if args.workers is not None and args.workers < 0:
        raise ConfigError(f"expected --workers of 0 or more, got {args.workers}.")


def options_of(args: argparse.Namespace) -> AuditOptions:
    """Options with their defaults filled in."""
    workers = usable_cores() if args.workers is None else args.workers
    out = args.out or args.folder / "audit.csv"
    return AuditOptions(out, args.syncnet, tuple(args.limit or ()), workers, args.device or "auto")


def run_audit(
    prepared: PreparedSet, options: AuditOptions, noted: Mapping[str, Sequence[str]]
) -> None:
    """Measure, advise, write the table and the summary, and print the summary.

    Measures of finished clips are kept in ``.NAME.part`` beside the table until it is written, so an
    interrupted audit goes on where it stopped.

    Args:
        prepared: The set.
        options: What to do.
        noted: Flags that ``prepare`` gave, by clip.

    Raises:
        TalkheadError: A judge or threshold that cannot work, or a damaged set.
    """
    from talkhead.audit.advice import RIDGE, Thresholds, advise, set_facts
    from talkhead.audit.duplicates import find_matches
    from talkhead.audit.sync import load_syncnet
    from talkhead.audit.table import summary, table_row, table_text
    from talkhead.text_files import write_text_atomic

    limits = Thresholds.parse(options.limits)
    judge, origin = RIDGE, None
    if options.syncnet is not None:
        network = load_syncnet(options.syncnet)  # fails here and not in every worker
        judge = network.judge
        origin = {"file": str(options.syncnet), "sha256": _digest(options.syncnet)}
        _note_other_crop(network, prepared)
    signature = [prepared.data_fingerprint, origin and origin["sha256"], _MEASURES_VERSION]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = _Kept(options.out, signature)
    measures = _measure_all(prepared, options, kept)
    rows = prepared.all_rows
    facts = set_facts(rows, measures, judge, limits)
    matches = find_matches([one.print for one in measures])
    advice = advise(rows, measures, matches, facts, limits, noted)
    lines = (
        table_row(row, one, said, facts)
        for row, one, said in zip(rows, measures, advice, strict=True)
    )
    found = {
        "set": {
            "dataset": prepared.dataset,
            "synthetic": bool(prepared.meta.get("synthetic")),
            "data_fingerprint": prepared.data_fingerprint,
        },
        "judge": origin,
        "limits": asdict(limits),
        **summary(rows, advice, facts),
    }
    write_text_atomic(options.out, table_text(lines))
    write_text_atomic(options.out.with_suffix(".json"), json.dumps(found, indent=2) + "\n")
    kept.remove()
    print(describe(found))
    print(f"written    {options.out}, {options.out.with_suffix('.json')}")


def _digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_other_crop(network: SyncNet, prepared: PreparedSet) -> None:
    """Say so when the judge learned from faces cut otherwise; it may still be the best there is."""
    learned = ((network.origin or {}).get("video") or {}).get("crop")
    seen = prepared.meta["video"]["crop"]
    if learned is not None and learned != seen:
        print(f"note       the judge learned from crops {learned}, this set has {seen}")


def describe(found: Mapping[str, Any]) -> str:
    """A summary in a few lines."""
    counts = found["recommendations"]
    told = ", ".join(f"{what} {n['clips']} ({n['minutes']} min)" for what, n in counts.items())
    lines = [f"audit      {told}"]
    for name, key in (("drop", "drop_reasons"), ("flags", "flags")):
        if found[key]:
            lines.append(f"{name:<10} " + ", ".join(f"{k} {n}" for k, n in found[key].items()))
    if found["fixes"]:
        fixes = ", ".join(f"{int(k):+d} x {n}" for k, n in found["fixes"].items())
        lines.append(f"fix        frames to delay the sound by: {fixes}")
    sync = found["sync"]
    above = "" if sync["clear_above"] is None else f" (confidence above {sync['clear_above']:.2f})"
    lines.append(
        f"offsets    by {sync['judge']}: {sync['judged']} clips judged, {sync['clear_share']:.0%} "
        f"clear{above}"
    )
    if sync["median_offset"] and sync["median_share"] >= _SYSTEMATIC_SHARE:
        lines.append(
            f"warning    {sync['median_share']:.0%} of the clear offsets are near their median of "
            f"{sync['median_offset']:+g} frames: the whole set, or the judge, is off"
        )
    return "\n".join(lines)


class _Kept:
    """Measures of finished clips of an audit that is not finished: a signature, then a clip a line."""

    def __init__(self, out: Path, signature: list[Any]) -> None:
        self.path = out.with_name(f".{out.name}.part")
        self.done: dict[str, dict[str, Any]] = {}
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        if lines and lines[0] == json.dumps(signature):
            for line in lines[1:]:
                try:
                    values = json.loads(line)
                except json.JSONDecodeError:
                    break  # the line being written when the run was killed
                self.done[values["clip"]] = values
        kept = [json.dumps(signature), *(json.dumps(values) for values in self.done.values())]
        self.path.write_text("".join(f"{line}\n" for line in kept))

    def add(self, values: dict[str, Any]) -> None:
        """One clip more."""
        self.done[values["clip"]] = values
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def remove(self) -> None:
        """The table is written."""
        self.path.unlink(missing_ok=True)


def _measure_all(prepared: PreparedSet, options: AuditOptions, kept: _Kept) -> list[Measures]:
    """Measures of every clip in their order, with a progress bar."""
    from rich.console import Console
    from rich.progress import track

    from talkhead.audit.measure import Measures

    names = [row.id for row in prepared.all_rows]
    todo = [name for name in names if name not in kept.done]
    results = _measured(prepared.root, todo, options)
    console = Console(stderr=True)
    for values in track(results, "audit", len(todo), console=console):
        kept.add(values)
    return [Measures.from_json(kept.done[name]) for name in names]


def _measured(root: Path, names: Sequence[str], options: AuditOptions) -> Iterator[dict[str, Any]]:
    """Measures of some clips, whichever is ready first."""
    if options.workers == 0 or len(names) < 2:
        worker = _Worker(root, options.syncnet, options.device)
        yield from map(worker.measure, names)
        return
    # Spawned, because a forked process cannot use a GPU.
    with ProcessPoolExecutor(
        min(options.workers, len(names)),
        multiprocessing.get_context("spawn"),
        _start,
        (root, options.syncnet, options.device),
    ) as pool:
        futures = [pool.submit(_measure, name) for name in names]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Worker:
    """What a process needs to measure clips."""

    def __init__(self, root: Path, syncnet: Path | None, device: str) -> None:

        from datamodules.shards import PreparedSet
        from talkhead.audit.sync import load_syncnet

        self.prepared = PreparedSet(root)
        self.device: torch.device = _device(device)
        self.network = None if syncnet is None else load_syncnet(syncnet).to(self.device)

    def measure(self, name: str) -> dict[str, Any]:
        """Plain measures of one clip."""
        from talkhead.audit.measure import measure_clip

        row = self.prepared.row(name)
        return measure_clip(self.prepared, row, self.network, self.device).to_json()


def _device(name: str) -> torch.device:
    """A torch device; ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: Unknown or absent.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device: expected auto, cpu or cuda, got {name!r} ({error})."
        ) from error
    return device


_worker: _Worker | None = None
"""This process's, where it is one of a pool."""


def _start(root: Path, syncnet: Path | None, device: str) -> None:
    """Prepare a process of the pool."""
    global _worker
    import torch

    torch.set_num_threads(1)  # the pool has a process for each core
    _worker = _Worker(root, syncnet, device)


def _measure(name: str) -> dict[str, Any]:
    """Measure one clip in a process of the pool."""
    assert _worker is not None, "the pool starts every process with _start"
    return _worker.measure(name)
