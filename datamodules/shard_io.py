"""One shard on disk: a folder of flat arrays and one file of concatenated JPEG pictures.

Writing streams (memory does not grow with the shard) into a hidden temporary folder that is renamed
when the shard is full, so a shard either exists whole or not at all. Reading is random access: a
picture is one ``pread``, everything else a memory map.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import DataError, ShapeError
from talkhead.specs import N_LANDMARKS, SAMPLES_PER_FRAME, AudioSpec

FRAMES_FILE = "frames.bin"
OFFSETS_FILE = "frame_offsets.npy"
SHARD_INFO_FILE = "shard.json"
STEPS_PER_FRAME = AudioSpec().steps_per_frame
N_MELS = AudioSpec().n_mels
ROWS_PER_FRAME = {"mel": STEPS_PER_FRAME, "landmarks": 1, "motion": 1, "audio": SAMPLES_PER_FRAME}
"""Array name -> rows it holds for one video frame."""
DTYPES = {"mel": np.float16, "landmarks": np.float32, "motion": np.float32, "audio": np.int16}


def shard_folder(root: Path, shard: int) -> Path:
    """``ROOT/shards/00000``."""
    return root / "shards" / f"{shard:05d}"


def write_array_atomic(path: Path, array: NDArray[Any]) -> None:
    """Write one ``.npy`` under a temporary name, then rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.save(stream, array)
    temporary.replace(path)


class _ArrayStream:
    """Appends rows to a ``.npy`` file; the header's row count is filled in at the end."""

    def __init__(self, path: Path, dtype: Any, row_shape: tuple[int, ...]) -> None:
        self.dtype, self.row_shape, self.rows = np.dtype(dtype), row_shape, 0
        self.hash = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")
        self._header()

    def _header(self) -> None:
        # numpy reserves room for 21 digits of the first axis, so the header keeps its length.
        fields = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.row_shape),
        }
        np.lib.format.write_array_header_1_0(self._file, fields)

    def append(self, rows: NDArray[Any]) -> None:
        data = np.ascontiguousarray(rows, dtype=self.dtype).tobytes()
        self._file.write(data)
        self.hash.update(data)
        self.rows += len(rows)

    def close(self) -> None:
        self._file.seek(0)
        self._header()
        self._file.close()


class ShardWriter:
    """Writes clips one after the other into numbered shards.

    A shard is closed once it holds at least ``frames_per_shard`` frames; a clip is never split.
    Use it as a context manager: leaving it normally closes the last shard, leaving it through an
    exception throws the unfinished shard away.

    Args:
        root: Folder of the prepared set; created if missing.
        frames_per_shard: Frames after which a shard is closed.
        first_shard: Number of the first shard written; a shard that exists is replaced whole.
    """

    def __init__(
        self, root: str | Path, frames_per_shard: int = 20_000, first_shard: int = 0
    ) -> None:
        """Nothing is created before the first clip arrives."""
        self.root = Path(root)
        self.frames_per_shard = frames_per_shard
        self.shard = first_shard
        self._temporary: Path | None = None
        self._streams: dict[str, _ArrayStream] = {}
        self._offsets: list[int] = [0]
        self._clips: list[str] = []

    def __enter__(self) -> ShardWriter:
        """Nothing is written before the first clip."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep the last shard on success, drop it on failure."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def add(
        self,
        clip_id: str,
        jpegs: Sequence[bytes],
        mel: NDArray[Any],
        landmarks: NDArray[Any],
        motion: NDArray[Any],
        audio: NDArray[np.int16],
    ) -> tuple[int, int]:
        """Append one clip of ``T`` frames.

        Args:
            clip_id: Id of the clip, for messages and the shard's list.
            jpegs: ``T`` encoded pictures.
            mel: ``(4T, 80)`` log-mel in [0, 1].
            landmarks: ``(T, 478, 3)`` in crop units.
            motion: ``(T, D)`` descriptors.
            audio: ``(640T,)`` int16 samples at 16 kHz.

        Returns:
            Shard number and first frame within it.

        Raises:
            ShapeError: The parts do not describe the same number of frames.
        """
        parts = {"mel": mel, "landmarks": landmarks, "motion": motion, "audio": audio}
        _check_parts(clip_id, len(jpegs), parts)
        if self._temporary is None:
            self._open(motion.shape[1])
        start = len(self._offsets) - 1
        for data in jpegs:
            self._pictures.write(data)
            self._pictures_hash.update(data)
            self._offsets.append(self._offsets[-1] + len(data))
        for name, rows in parts.items():
            self._streams[name].append(rows)
        self._clips.append(clip_id)
        shard = self.shard
        if len(self._offsets) - 1 >= self.frames_per_shard:
            self.close()
        return shard, start

    def close(self) -> None:
        """Finish the open shard, if any, and move it to its final name."""
        if self._temporary is None:
            return
        self._pictures.close()
        for stream in self._streams.values():
            stream.close()
        np.save(self._temporary / OFFSETS_FILE, np.asarray(self._offsets, np.int64))
        digests = {name: stream.hash.hexdigest() for name, stream in self._streams.items()}
        info = {
            "frames": len(self._offsets) - 1,
            "clips": self._clips,
            "sha256": {"frames": self._pictures_hash.hexdigest(), **digests},
        }
        (self._temporary / SHARD_INFO_FILE).write_text(json.dumps(info), encoding="utf-8")
        target = shard_folder(self.root, self.shard)
        if target.exists():
            shutil.rmtree(target)
        self._temporary.replace(target)
        self._temporary = None
        self.shard += 1

    def abort(self) -> None:
        """Throw the open shard away; finished shards stay."""
        if self._temporary is None:
            return
        self._pictures.close()
        for stream in self._streams.values():
            stream.close()
        shutil.rmtree(self._temporary)
        self._temporary = None

    def _open(self, motion_dim: int) -> None:
        target = shard_folder(self.root, self.shard)
        folder = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        self._temporary = folder
        self._pictures = (folder / FRAMES_FILE).open("wb")
        self._pictures_hash = hashlib.sha256()
        shapes = {"mel": (N_MELS,), "landmarks": (N_LANDMARKS, 3), "motion": (motion_dim,)}
        self._streams = {
            name: _ArrayStream(folder / f"{name}.npy", dtype, shapes.get(name, ()))
            for name, dtype in DTYPES.items()
        }
        self._offsets, self._clips = [0], []


def _check_parts(clip_id: str, frames: int, parts: dict[str, NDArray[Any]]) -> None:
    """Refuse a clip whose arrays have other lengths than its pictures."""
    tails = {"mel": (N_MELS,), "landmarks": (N_LANDMARKS, 3), "audio": ()}
    for name, array in parts.items():
        tail = tails.get(name, array.shape[1:])
        expected = (frames * ROWS_PER_FRAME[name], *tail)
        if frames == 0 or array.shape != expected or (name == "motion" and array.ndim != 2):
            raise ShapeError(
                f"clip {clip_id}: expected {name} {expected} for {frames} frames, "
                f"got {array.shape}; cut every part to the same whole frames."
            )


class Shard:
    """Random access to one shard; files open at first use and stay open until :meth:`close`.

    Args:
        folder: ``ROOT/shards/00000``.

    Raises:
        DataError: A file is missing, or the pictures are shorter than the offset table says.
    """

    def __init__(self, folder: Path) -> None:
        """Read the offset table and compare it with the size of the picture file."""
        self.folder = folder
        self._arrays: dict[str, NDArray[Any]] = {}
        self.offsets: NDArray[np.int64] = self._load(OFFSETS_FILE)
        self.frames = len(self.offsets) - 1
        pictures = folder / FRAMES_FILE
        try:
            self._fd = os.open(pictures, os.O_RDONLY)
        except FileNotFoundError as error:
            raise _broken(folder, f"{FRAMES_FILE} is missing") from error
        size, expected = os.fstat(self._fd).st_size, int(self.offsets[-1])
        if size != expected:
            self.close()
            raise _broken(
                folder, f"truncated: expected {expected} bytes in {FRAMES_FILE}, got {size}"
            )

    def array(self, name: str) -> NDArray[Any]:
        """Memory map of one array (``mel``, ``landmarks``, ``motion`` or ``audio``).

        Raises:
            DataError: The array is missing or shorter than the frame count says.
        """
        if name not in self._arrays:
            array = self._load(f"{name}.npy", mmap=True)
            expected = self.frames * ROWS_PER_FRAME[name]
            if len(array) != expected:
                raise _broken(
                    self.folder,
                    f"truncated: expected {expected} rows in {name}.npy, got {len(array)}",
                )
            # A plain view: slicing numpy's memmap class costs several microseconds each time.
            self._arrays[name] = array.view(np.ndarray)
        return self._arrays[name]

    def picture(self, frame: int) -> bytes:
        """Encoded picture of a frame, one ``pread``."""
        begin, end = int(self.offsets[frame]), int(self.offsets[frame + 1])
        return os.pread(self._fd, end - begin, begin)

    def sha256(self, name: str) -> str:
        """Content hash of one array or of the pictures (``frames``), as the writer noted it."""
        if name != "frames":
            return hashlib.sha256(np.ascontiguousarray(self.array(name)).data).hexdigest()
        with (self.folder / FRAMES_FILE).open("rb") as pictures:
            return hashlib.file_digest(pictures, "sha256").hexdigest()

    def close(self) -> None:
        """Close the picture file and drop the memory maps."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._arrays.clear()

    def _load(self, name: str, *, mmap: bool = False) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(self.folder / name, mmap_mode="r" if mmap else None)
        except FileNotFoundError as error:
            raise _broken(self.folder, f"{name} is missing") from error
        except (ValueError, EOFError) as error:
            raise _broken(self.folder, f"truncated: {name} cannot be read ({error})") from error
        return array

    def __del__(self) -> None:
        """Do not leak the descriptor when a shard falls out of the cache."""
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)


def _broken(folder: Path, what: str) -> DataError:
    """The error for an incomplete shard."""
    return DataError(f"shard {folder}: {what}; run talkhead prepare again to rebuild it.")
