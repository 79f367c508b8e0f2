"""Truth files: everything known about a drawn clip, next to it, never read by training."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.corpus.motion_process import MotionParams
from talkhead.corpus.prosody import Prosody
from talkhead.corpus.speech import Phoneme
from talkhead.corpus.state import FaceState
from talkhead.errors import DataError

TRUTH_SUFFIX = ".truth.npz"
FORMAT = 1


@dataclass(frozen=True)
class Truth:
    """What :func:`save_truth` wrote; row ``t`` of every ``(T, ...)`` array is frame ``t``.

    Attributes:
        state: The face of every frame.
        phonemes: What was said when.
        prosody: Prosody of the clean wave, before AAC.
        identity: Seed of the drawn person.
        take: Number of this motion among those for the same speech.
        process: Parameters of the law the non-lip motion was drawn from.
        side: The take's preferred side, -1 or 1.
        blinks: First frames of the blinks.
    """

    state: FaceState
    phonemes: list[Phoneme]
    prosody: Prosody
    identity: int
    take: int
    process: MotionParams
    side: int
    blinks: tuple[int, ...]


def truth_path(clip: Path) -> Path:
    """Truth file of an mp4: the same name with :data:`TRUTH_SUFFIX`."""
    return clip.with_suffix(TRUTH_SUFFIX)


def save_truth(
    path: Path,
    state: FaceState,
    phonemes: Sequence[Phoneme],
    prosody: Prosody,
    identity: int,
    take: int,
    process: MotionParams | None = None,
    side: int = 0,
    blinks: Sequence[int] = (),
) -> None:
    """Write a truth file; see :class:`Truth` for the fields.

    Raises:
        DataError: The file cannot be written, or state and prosody differ in length.
    """
    if len(prosody.features) != state.frames:
        raise DataError(
            f"state has {state.frames} frames but prosody {len(prosody.features)}; "
            "both must describe the same clip."
        )
    arrays: dict[str, NDArray[np.generic]] = {
        "format": np.array(FORMAT),
        "phoneme_labels": np.array([p.label for p in phonemes], dtype=np.str_),
        "phoneme_times_s": np.array([(p.start_s, p.end_s) for p in phonemes]).reshape(-1, 2),
        "identity": np.array(identity),
        "take": np.array(take),
        "process": np.array((process or MotionParams()).to_json()),
        "side": np.array(side),
        "blinks": np.array(blinks, dtype=np.int64),
    }
    arrays |= {f"state/{name}": value for name, value in state.arrays().items()}
    arrays |= {f"prosody/{f.name}": getattr(prosody, f.name) for f in fields(Prosody)}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            np.savez_compressed(out, allow_pickle=False, **arrays)
        part.replace(path)
    except OSError as error:
        raise DataError(
            f"could not write {path}: {error}; free some space and run again."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def load_truth(path: Path | str) -> Truth:
    """Read a truth file.

    Raises:
        DataError: Missing, broken, or of another format.
    """
    try:
        # Opened here because np.load leaves the file open when it is no archive.
        with Path(path).open("rb") as raw:
            archive = np.load(raw, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array instead of an archive")
            arrays = {name: archive[name] for name in archive.files}
        found = int(arrays["format"])
        if found != FORMAT:
            raise DataError(
                f"{path} has truth format {found}, expected {FORMAT}; "
                "write the corpus again with this version (talkhead corpus)."
            )
        return _assemble(arrays)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is not a readable truth file ({error}); delete it and run talkhead corpus."
        ) from error


def _assemble(arrays: dict[str, NDArray[Any]]) -> Truth:
    """Arrays of the file -> objects."""
    labels, times = arrays["phoneme_labels"], arrays["phoneme_times_s"]
    phonemes = [
        Phoneme(str(label), float(start), float(end))
        for label, (start, end) in zip(labels, times, strict=True)
    ]
    return Truth(
        state=FaceState(**{f.name: arrays[f"state/{f.name}"] for f in fields(FaceState)}),
        phonemes=phonemes,
        prosody=Prosody(**{f.name: arrays[f"prosody/{f.name}"] for f in fields(Prosody)}),
        identity=int(arrays["identity"]),
        take=int(arrays["take"]),
        process=MotionParams.from_json(str(arrays["process"])),
        side=int(arrays["side"]),
        blinks=tuple(int(b) for b in arrays["blinks"]),
    )
