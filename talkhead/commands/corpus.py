"""``talkhead corpus``: write the embedded synthetic corpus."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from talkhead.cores import usable_cores
from talkhead.corpus.writer import CorpusSettings, write_corpus


def _parser() -> argparse.ArgumentParser:
    """Arguments of the command; the defaults are those of :class:`CorpusSettings`."""
    default = CorpusSettings()
    parser = argparse.ArgumentParser(
        prog="talkhead corpus",
        description="Write a corpus of drawn, speaking faces: mp4 with sound, and truth files. "
        "Run it again to finish an interrupted corpus.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--speakers", type=int, default=default.speakers, help="people")
    parser.add_argument("--clips", type=int, default=default.clips, help="clips a person")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="length of a clip")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--takes", type=int, default=default.takes, help="motions drawn for the same speech"
    )
    parser.add_argument("--size", type=int, default=default.size, help="picture side in pixels")
    parser.add_argument(
        "--workers", type=int, default=usable_cores(), help="processes (default: all cores)"
    )
    return parser


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``talkhead corpus``.

    Returns:
        0; errors leave as ``TalkheadError``.
    """
    args = _parser().parse_args(argv)
    settings = CorpusSettings(
        speakers=args.speakers,
        clips=args.clips,
        seconds=args.seconds,
        seed=args.seed,
        takes=args.takes,
        size=args.size,
    )
    started = time.monotonic()
    kept: int | None = None
    done = total = 0
    columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("clips", total=None)
        for done, total in write_corpus(args.out, settings, args.workers):
            kept = done if kept is None else kept
            progress.update(task, completed=done, total=total)
    took = time.monotonic() - started
    print(f"{args.out}: {total} clips, {done - (kept or 0)} written now in {took:.0f} s")
    return 0
