"""Runs many clips over worker processes; a bad file or a crashing worker costs only its own clip.

Workers are spawned, so they share no locks or threads with the parent, and they exit by themselves
when the parent is gone. Which clips belong to which part of a divided job depends on the list only.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from datamodules.prepare.clip import Rejection, check_header, pieces, process_clip
from datamodules.prepare.layouts import RawClip
from datamodules.prepare.options import ClipOptions
from datamodules.prepare.work import WorkFolder
from talkhead.errors import ConfigError, TalkheadError
from talkhead.landmarks.base import Landmarker

DEFAULT_LANDMARKER = "talkhead.landmarks.mediapipe_mesh:MediaPipeMesh"
Progress = Callable[[RawClip, list[dict[str, Any]]], None]


@dataclass(frozen=True)
class Job:
    """What every worker needs to know.

    Attributes:
        work: Folder of finished clips.
        options: Clip settings.
        digest: Hash of the settings, see :class:`datamodules.prepare.work.WorkFolder`.
        landmarker: ``"module:Class"`` of the face tracker.
    """

    work: Path
    options: ClipOptions
    digest: str
    landmarker: str = DEFAULT_LANDMARKER


def make_landmarker(spec: str) -> Landmarker:
    """The face tracker ``"module:Class"``.

    Raises:
        ConfigError: There is no such class.
    """
    module, _, name = spec.partition(":")
    try:
        tracker: Landmarker = getattr(importlib.import_module(module), name)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"expected a face tracker as module:Class, got {spec!r}.") from error
    return tracker


def share_of(clips: Sequence[RawClip], shard: int, shards: int) -> list[RawClip]:
    """Part ``shard`` of ``shards`` of a list, every ``shards``-th clip.

    Raises:
        ConfigError: Not ``0 <= shard < shards``.
    """
    if not 0 <= shard < shards:
        raise ConfigError(f"expected --shard I/N with 0 <= I < N, got {shard}/{shards}.")
    return list(clips[shard::shards])


def do_clip(
    raw: RawClip, job: Job, folder: WorkFolder, landmarker: Landmarker
) -> list[dict[str, Any]]:
    """Process one raw clip with all its pieces and record the outcome."""
    header = check_header(raw, job.options)
    if isinstance(header, Rejection):
        entries = [folder.save_piece(raw, 0, header)]
    else:
        parts = pieces(raw, header, job.options.max_seconds)
        entries = [
            folder.save_piece(
                raw,
                number,
                process_clip(part, job.options, landmarker, info=header, scratch=folder.folder),
            )
            for number, part in enumerate(parts)
        ]
    folder.finish(raw, entries)
    return entries


def _worker(connection: Connection, job: Job) -> None:
    """Body of a worker process: clips come in, outcomes go out, None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    # Messages of native libraries must not tear the parent's progress bar; a crash leaves a trace.
    log = os.open(job.work / f"worker-{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    import cv2

    cv2.setNumThreads(1)
    folder = WorkFolder(job.work, job.digest)
    try:
        landmarker = make_landmarker(job.landmarker)
        while (raw := connection.recv()) is not None:
            connection.send(("done", do_clip(raw, job, folder, landmarker)))
    except EOFError:
        return
    except TalkheadError as error:
        connection.send(("fatal", error))
    except OSError as error:
        # A full disk or a lost mount hits every clip: stop instead of rejecting them all.
        connection.send(("fatal", error))
    except Exception:  # noqa: BLE001 - any bug met by one clip must not stop the others
        connection.send(("failed", traceback.format_exc(limit=-4)))


@dataclass
class _Worker:
    """A running process and what it is doing."""

    process: Any
    connection: Connection
    clip: RawClip | None = None


class Engine:
    """Feeds clips to worker processes.

    Args:
        job: Settings for the workers.
        workers: Number of processes; 0 works in this process, one clip after the other.

    Raises:
        ConfigError: Negative number of workers.
    """

    def __init__(self, job: Job, workers: int) -> None:
        """Start nothing yet."""
        if workers < 0:
            raise ConfigError(f"expected --workers of 0 or more, got {workers}.")
        self.job = job
        self.workers = workers
        self.folder = WorkFolder(job.work, job.digest)
        self._context = multiprocessing.get_context("spawn")
        self._running: list[_Worker] = []

    def run(self, clips: Sequence[RawClip], progress: Progress | None = None) -> None:
        """Process all clips that are not finished yet.

        Args:
            clips: Any number of raw clips.
            progress: Called after every clip, finished ones included, with its outcome.

        Raises:
            TalkheadError: Nothing can work, for example no face tracker or a full disk.
        """
        report = progress or (lambda raw, entries: None)
        todo: deque[RawClip] = deque()
        for raw in clips:
            done = self.folder.read_status(raw)
            if done is None:
                todo.append(raw)
            else:
                report(raw, done)
        if not todo:
            return
        if self.workers == 0:
            landmarker = make_landmarker(self.job.landmarker)
            for raw in todo:
                report(raw, do_clip(raw, self.job, self.folder, landmarker))
            return
        try:
            self._serve(todo, report)
        finally:
            self._stop()

    def _serve(self, todo: deque[RawClip], report: Progress) -> None:
        """Hand out clips until all are done."""
        for _ in range(min(self.workers, len(todo))):
            self._running.append(self._start())
        for worker in self._running:
            self._give(worker, todo)
        while busy := [w for w in self._running if w.clip is not None]:
            ready = wait([w.connection for w in busy])
            for worker in busy:
                if worker.connection in ready:
                    self._take(worker, todo, report)

    def _start(self) -> _Worker:
        """A fresh process."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_worker, args=(theirs, self.job), daemon=True)
        # One core for each worker: thread pools of BLAS would fight over the same cores.
        with _environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"):
            process.start()
        theirs.close()  # so that the pipe reads as closed when the worker dies
        return _Worker(process, ours)

    def _give(self, worker: _Worker, todo: deque[RawClip]) -> None:
        """Send the next clip, or leave the worker idle."""
        worker.clip = todo.popleft() if todo else None
        if worker.clip is not None:
            # A worker that died meanwhile is noticed when its answer is awaited.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.connection.send(worker.clip)

    def _take(self, worker: _Worker, todo: deque[RawClip], report: Progress) -> None:
        """Receive an outcome, or the news that the worker is dead."""
        raw = worker.clip
        assert raw is not None, "only busy workers are waited for"
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            kind, value = "failed", f"the worker process died (exit {worker.process.exitcode})."
        if kind == "fatal":
            raise value
        if kind == "failed":
            entries = [{"rejected": {"source": raw.source, "reason": "crashed", "detail": value}}]
            self.folder.finish(raw, entries)
            self._retire(worker)
            fresh = self._start()
            worker.process, worker.connection = fresh.process, fresh.connection
        else:
            entries = value
        report(raw, entries)
        self._give(worker, todo)

    @staticmethod
    def _retire(worker: _Worker) -> None:
        """End one process."""
        worker.connection.close()
        worker.process.terminate()
        worker.process.join()

    def _stop(self) -> None:
        """End all processes, also in the middle of a clip; remove empty logs and leftovers."""
        mine = {str(worker.process.pid) for worker in self._running}
        for worker in self._running:
            self._retire(worker)
        self._running.clear()
        for log in self.job.work.glob("worker-*.log"):
            if log.stat().st_size == 0:
                log.unlink()
        for part in self.job.work.glob(".*.part"):
            # Only our own: another machine may be writing into the same folder.
            if part.name.split(".")[-2] in mine:
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def _environment(**values: str) -> Any:
    """Environment variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
