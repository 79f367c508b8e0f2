"""Measures pairs of videos, in this process or over several, for ``talkhead evaluate``."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.errors import DataError, ShapeError

if TYPE_CHECKING:
    from talkhead.evaluation.judges import JudgeFiles, Judges
    from talkhead.evaluation.measure import MeasureOptions
    from talkhead.evaluation.pairs import Pair
    from talkhead.landmarks.base import Landmarker

Outcome = tuple[str, str | None]
"""Name of a pair and why it could not be measured, None when it was."""


@dataclass(frozen=True)
class Task:
    """What a worker needs to measure pairs.

    Attributes:
        files: Weights of the judges.
        options: Crop and frames.
        landmarker: ``"module:Class"`` of the face tracker.
        clips: Folder of the measurements.
    """

    files: JudgeFiles
    options: MeasureOptions
    landmarker: str
    clips: Path


def place_of(clips: Path, name: str) -> Path:
    """File of a pair's measurement below the folder of measurements."""
    return clips / f"{name}.npz"


def measure_pairs(
    todo: Sequence[Pair], keys: Mapping[str, str], task: Task, workers: int, judges: Judges
) -> Iterator[Outcome]:
    """Measure pairs and write what was measured, each as soon as it is done.

    Args:
        todo: Pairs.
        keys: Pair name -> digest of everything its measurement depends on.
        task: Settings.
        workers: Processes; 0 works in this one.
        judges: Networks of this process.

    Yields:
        One outcome a pair, in the order in which they are done.

    Raises:
        DataError: A worker process died.
    """
    if not todo:
        return
    if workers == 0:
        yield from _here(todo, keys, task, judges)
    else:
        yield from _in_workers(todo, keys, task, workers)


def _here(
    todo: Sequence[Pair], keys: Mapping[str, str], task: Task, judges: Judges
) -> Iterator[Outcome]:
    """One pair after the other in this process."""
    from datamodules.prepare.engine import make_landmarker

    landmarker = make_landmarker(task.landmarker)
    for pair in todo:
        yield _measure_pair(pair, keys[pair.name], task, judges, landmarker)


def _in_workers(
    todo: Sequence[Pair], keys: Mapping[str, str], task: Task, workers: int
) -> Iterator[Outcome]:
    """Pairs over processes of their own, which share no locks or threads with this one."""
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(todo))
    with ProcessPoolExecutor(count, context, initializer=_start, initargs=(task,)) as pool:
        jobs = [pool.submit(_in_worker, pair, keys[pair.name]) for pair in todo]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died, of a damaged file or for want of memory; finished pairs are kept. "
                "Run the command again with --workers 0 to see which file it is."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_state: dict[str, Any] = {}
"""What a worker process keeps between pairs."""


def _start(task: Task) -> None:
    """Load everything once a process."""
    import cv2
    import torch

    from datamodules.prepare.engine import make_landmarker
    from talkhead.evaluation.judges import Judges

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    # One core for each worker: more threads would fight over the same cores.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    judges = Judges.load(task.files, task.options.size)
    _state.update(task=task, judges=judges, landmarker=make_landmarker(task.landmarker))


def _in_worker(pair: Pair, key: str) -> Outcome:
    """Measure one pair with what the process has loaded."""
    return _measure_pair(pair, key, _state["task"], _state["judges"], _state["landmarker"])


def _measure_pair(
    pair: Pair, key: str, task: Task, judges: Judges, landmarker: Landmarker
) -> Outcome:
    """Measure one pair and write what was measured; a file that cannot be used is no error here."""
    from datamodules.prepare.tracked import TrackedVideo
    from talkhead.evaluation.measure import measure

    place = place_of(task.clips, pair.name)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            TrackedVideo(pair.reference, landmarker, place.parent) as reference,
            TrackedVideo(pair.generated, landmarker, place.parent) as generated,
        ):
            found = measure(generated, reference, judges, task.options)
    except (DataError, ShapeError) as error:
        return pair.name, str(error)
    found.save(place, key)
    return pair.name, None
