"""Write the embedded corpus: drawn people who speak, laid out like a downloaded dataset."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from talkhead.corpus.lips import lip_motion
from talkhead.corpus.motion_process import MotionParams, MotionProcess
from talkhead.corpus.prosody import measure_prosody
from talkhead.corpus.sentences import sample_utterance
from talkhead.corpus.speech import VOICES, require_espeak
from talkhead.corpus.state import FaceState
from talkhead.corpus.truth import save_truth, truth_path
from talkhead.errors import ConfigError, DataError
from talkhead.media.encode import write_video
from talkhead.render.identity import IDENTITY_SEEDS, Identity
from talkhead.render.painted_face import PaintedFace

FORMAT = 1
CLIPS_PER_VIDEO = 5
_README = """\
This folder is synthetic. talkhead (`talkhead corpus`) drew every face and every motion, and the
open speech synthesiser eSpeak NG spoke every sentence. No real person is shown or heard, and any
likeness is chance.

  <speaker>/<video>/<clip>_take<k>.mp4        25 fps H.264, 16 kHz AAC
  <speaker>/<video>/<clip>_take<k>.truth.npz  what the drawing knew; training never reads it
  corpus.json                                 the settings and speakers

Clips that differ only in their take share the speech and differ in the motion. The clips may be
used for any purpose without asking (CC0 1.0).
"""


@dataclass(frozen=True)
class CorpusSettings:
    """What determines every byte of a corpus.

    Attributes:
        speakers: Number of people.
        clips: Clips of each person, before takes.
        seconds: Length of a clip.
        seed: Seed of everything.
        takes: Motions drawn for each clip's speech.
        size: Side of the square picture in pixels.
    """

    speakers: int = 12
    clips: int = 10
    seconds: float = 6.0
    seed: int = 0
    takes: int = 1
    size: int = 256

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if min(self.speakers, self.clips, self.takes) < 1 or self.seconds < 0.5:
            raise ConfigError(
                "a corpus needs at least 1 speaker, 1 clip, 1 take and 0.5 s, got "
                f"{self.speakers}, {self.clips}, {self.takes} and {self.seconds} s."
            )
        if self.size < 64 or self.size % 2:
            raise ConfigError(f"size must be even and at least 64 pixels, got {self.size}.")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}.")


@dataclass(frozen=True)
class Speaker:
    """One person of the corpus: face, voice and style."""

    index: int
    identity: int
    voice: str
    rate: int
    pitch: int
    articulation: float
    motion: MotionParams

    @property
    def name(self) -> str:
        """Folder name."""
        return f"speaker{self.index:03d}"


@dataclass(frozen=True)
class _Job:
    """One speech with all its takes."""

    root: Path
    settings: CorpusSettings
    speaker: int
    clip: int

    def path(self, take: int) -> Path:
        """The mp4 of a take."""
        video = f"video{self.clip // CLIPS_PER_VIDEO:03d}"
        folder = self.root / f"speaker{self.speaker:03d}" / video
        return folder / f"clip{self.clip:03d}_take{take}.mp4"

    def missing(self) -> list[int]:
        """Takes that are not finished."""
        return [
            k
            for k in range(self.settings.takes)
            if not (self.path(k).is_file() and truth_path(self.path(k)).is_file())
        ]


def make_speaker(seed: int, index: int) -> Speaker:
    """Person ``index`` of the corpus with this seed.

    The faces are the checked ones of ``IDENTITY_SEEDS`` in order; beyond them the seeds count on,
    and those faces are not checked for how well a tracker reads them.
    """
    rng = np.random.default_rng([seed, index])
    known = len(IDENTITY_SEEDS)
    identity = IDENTITY_SEEDS[index] if index < known else max(IDENTITY_SEEDS) + 1 + index - known
    kind = _voice_kind(int(identity), rng)
    number = int(rng.integers(1, 9 if kind == "m" else 6))
    voice = f"{VOICES[int(rng.integers(len(VOICES)))]}+{kind}{number}"
    return Speaker(
        index=index,
        identity=int(identity),
        voice=voice,
        rate=int(rng.integers(145, 181)),
        pitch=int(rng.integers(35, 63)),
        articulation=float(rng.uniform(0.85, 1.15)),
        motion=MotionParams.personal(rng),
    )


def _voice_kind(identity: int, rng: np.random.Generator) -> str:
    """Letter of eSpeak's lower (m) or higher (f) voices, so that most viewers find it fits."""
    style = Identity.from_seed(identity).hair_style
    if style in ("short", "side_part"):
        return "m"
    return "f" if style in ("bob", "long", "bun") else "mf"[int(rng.integers(2))]


@lru_cache(maxsize=2)
def _face(identity: int, size: int) -> PaintedFace:
    """The painter of a person; building one takes as long as drawing several frames."""
    return PaintedFace(Identity.from_seed(identity), size=size)


def _write_clip(job: _Job) -> int:
    """Speak, move, draw and write the missing takes of one clip; returns how many."""
    settings = job.settings
    speaker = make_speaker(settings.seed, job.speaker)
    # The stream numbers keep text and motion apart: one more take changes nothing else.
    text_rng = np.random.default_rng([settings.seed, job.speaker, job.clip, 0])
    speech = sample_utterance(
        text_rng, settings.seconds, speaker.voice, speaker.rate, speaker.pitch
    ).speech
    prosody = measure_prosody(speech.wave)
    lips = lip_motion(speech.phonemes, len(prosody.features), speaker.articulation)
    process = MotionProcess(speaker.motion)
    face = _face(speaker.identity, settings.size)
    todo = job.missing()
    for take in todo:
        rng = np.random.default_rng([settings.seed, job.speaker, job.clip, 1 + take])
        motion = process.sample(prosody.features, rng)[0]
        state = FaceState(**motion.fields(), **lips)
        path = job.path(take)
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.stem}.*.part"):
            leftover.unlink()  # of a run that was killed
        # The truth goes first: a finished mp4 is what marks a finished clip.
        save_truth(
            truth_path(path),
            state,
            speech.phonemes,
            prosody,
            speaker.identity,
            take,
            process=speaker.motion,
            side=motion.side,
            blinks=motion.blinks,
        )
        frames = (face.draw(state, t) for t in range(state.frames))
        tags = {"comment": "synthetic, drawn by talkhead, no real person"}
        write_video(path, frames, speech.wave, metadata=tags)
    return len(todo)


def _start_worker() -> None:
    """One thread a worker: the workers already fill the cores."""
    import torch

    torch.set_num_threads(1)


def _description(settings: CorpusSettings) -> dict[str, object]:
    """Content of corpus.json."""
    people = [asdict(make_speaker(settings.seed, i)) for i in range(settings.speakers)]
    return {
        "format": FORMAT,
        "synthetic": True,
        "settings": asdict(settings),
        "speakers": [{"name": f"speaker{p['index']:03d}", **p} for p in people],
    }


def _claim_folder(root: Path, settings: CorpusSettings) -> None:
    """Write corpus.json and README.txt, or check that they belong to the same settings."""
    record = root / "corpus.json"
    wanted = _description(settings)
    if record.is_file():
        try:
            found = json.loads(record.read_text())
        except json.JSONDecodeError as error:
            raise DataError(
                f"{record} is broken ({error}); delete {root} and run again."
            ) from error
        expected = {"format": FORMAT, **asdict(settings)}
        got = {"format": found.get("format"), **found.get("settings", {})}
        wrong = [
            f"{k}: {got.get(k)} there, {v} asked" for k, v in expected.items() if got.get(k) != v
        ]
        if wrong:
            raise ConfigError(
                f"{root} holds a corpus with other settings ({'; '.join(wrong)}); "
                "use those settings to finish it, choose another --out, or delete the folder."
            )
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("README.txt", _README),
            ("corpus.json", json.dumps(wanted, indent=1) + "\n"),
        ):
            part = root / f".{name}.{os.getpid()}.part"
            part.write_text(text)
            part.replace(root / name)
    except OSError as error:
        raise DataError(f"could not write into {root}: {error}; choose another --out.") from error


def write_corpus(
    root: Path, settings: CorpusSettings, workers: int = 1
) -> Iterator[tuple[int, int]]:
    """Write whatever is missing of a corpus; advances by being iterated.

    The same settings give the same files whatever the number of workers, and whatever was there
    before: every clip has its own random streams, and finished clips are kept.

    Args:
        root: Folder of the corpus.
        settings: What to write.
        workers: Processes; 1 writes in this one.

    Yields:
        ``(clips done, clips in all)``, counting takes; first what was there already.

    Raises:
        ConfigError: The folder holds a corpus with other settings, or ``workers`` is below 1.
        MissingDependencyError: eSpeak NG or PyAV is not installed.
        DataError: A file cannot be written.
    """
    if workers < 1:
        raise ConfigError(f"workers must be 1 or more, got {workers}.")
    require_espeak()
    _claim_folder(root, settings)
    jobs = [
        _Job(root, settings, speaker, clip)
        for speaker in range(settings.speakers)
        for clip in range(settings.clips)
    ]
    todo = [job for job in jobs if job.missing()]
    total = len(jobs) * settings.takes
    done = total - sum(len(job.missing()) for job in todo)
    yield done, total
    for written in _run(todo, workers):
        done += written
        yield done, total


def _run(jobs: list[_Job], workers: int) -> Iterator[int]:
    """Takes written by each job as it ends."""
    if workers == 1 or len(jobs) <= 1:
        yield from map(_write_clip, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker)
    try:
        for future in as_completed([pool.submit(_write_clip, job) for job in jobs]):
            yield future.result()
    finally:
        # After an error or an interruption the clips not yet begun are dropped.
        pool.shutdown(wait=True, cancel_futures=True)
