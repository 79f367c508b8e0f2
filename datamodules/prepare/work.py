"""Finished clips on their way into shards: one file each, either whole or not there.

``OUT/work/<key>.json`` says what became of a raw clip: its pieces, each accepted (with a
``<key>-<n>.npz`` beside it) or rejected. It is written last, so a killed run loses only the clips
that were in progress.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.prepare.clip import ClipResult, Rejection
from datamodules.prepare.layouts import RawClip
from talkhead.errors import DataError

_FORMAT = 1


def clip_key(clip_id: str) -> str:
    """File name stem of a clip: safe on every file system, the same on every machine."""
    return hashlib.sha256(clip_id.encode()).hexdigest()[:20]


def clip_signature(raw: RawClip, digest: str) -> str:
    """Changes when the source file, the stretch of it or the settings change."""
    files = [raw.path] if raw.audio is None else [raw.path, raw.audio]
    stats = [(p.stat().st_size, p.stat().st_mtime_ns) if p.is_file() else None for p in files]
    stretch = (raw.start_s, raw.end_s, raw.box, raw.speaker, raw.video, raw.whole)
    text = json.dumps([raw.id, raw.source, stats, stretch, digest, _FORMAT])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _replace_bytes(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


class WorkFolder:
    """The per-clip files of one preparation.

    Args:
        folder: ``OUT/work``; created if missing.
        digest: Hash of the settings; files made with others do not count as finished.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Create the folder."""
        self.folder = folder
        self.digest = digest
        folder.mkdir(parents=True, exist_ok=True)

    def status_path(self, raw: RawClip) -> Path:
        """Where the outcome of a raw clip is written."""
        return self.folder / f"{clip_key(raw.id)}.json"

    def read_status(self, raw: RawClip) -> list[dict[str, Any]] | None:
        """Outcome of a raw clip, one entry for each piece; None if it is not finished."""
        try:
            status = json.loads(self.status_path(raw).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        if status.get("signature") != clip_signature(raw, self.digest):
            return None
        pieces: list[dict[str, Any]] = status["pieces"]
        kept = (self.folder / p["file"] for p in pieces if "file" in p)
        return pieces if all(path.is_file() for path in kept) else None

    def save_piece(
        self, raw: RawClip, number: int, result: ClipResult | Rejection
    ) -> dict[str, Any]:
        """Write one accepted piece; returns its entry for :meth:`finish`."""
        if isinstance(result, Rejection):
            return {"rejected": asdict(result)}
        name = f"{clip_key(raw.id)}-{number:04d}.npz"
        path = self.folder / name
        part = path.with_name(f".{name}.{os.getpid()}.part")
        sizes = np.array([len(j) for j in result.jpegs], np.int64)
        with part.open("wb") as handle:
            np.savez(
                handle,
                pictures=np.frombuffer(b"".join(result.jpegs), np.uint8),
                sizes=sizes,
                landmarks=result.landmarks,
                audio=result.audio,
            )
        part.replace(path)
        piece = result.raw
        return {
            "file": name,
            "id": piece.id,
            "speaker": piece.speaker,
            "video": piece.video,
            "source": piece.source,
            "official": piece.official,
            "start_s": piece.start_s,
            "frames": result.frames,
            **result.facts,
        }

    def finish(self, raw: RawClip, pieces: list[dict[str, Any]]) -> None:
        """Record the outcome of a raw clip; from now on it is not done again."""
        status = {"signature": clip_signature(raw, self.digest), "pieces": pieces}
        _replace_bytes(self.status_path(raw), json.dumps(status).encode())

    def load_pictures(self, entry: dict[str, Any]) -> list[bytes]:
        """JPEG bytes of an accepted piece."""
        edges = np.concatenate([[0], np.cumsum(self.load(entry, "sizes"))])
        joined = self.load(entry, "pictures").tobytes()
        return [joined[a:b] for a, b in pairwise(edges)]

    def load(self, entry: dict[str, Any], name: str) -> Any:
        """``landmarks`` ``(T, 478, 3)``, ``audio`` ``(640 T,)`` or another array of a piece.

        Raises:
            DataError: The file is missing or damaged.
        """
        path = self.folder / entry["file"]
        try:
            # Opened here: numpy leaves the file open when it is no whole archive.
            with path.open("rb") as handle, np.load(handle) as data:
                return data[name]
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"cannot read the finished clip {path}: {error}; delete it and run prepare again."
            ) from error
