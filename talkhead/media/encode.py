"""Write video and sound: H.264 mp4 with AAC, and 16-bit wav.

Frames and samples go straight to the encoder, so memory does not grow with the length. A file
appears under its own name only when it is complete.
"""

from __future__ import annotations

import os
import shutil
import wave as wave_file
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import DataError, MissingDependencyError, ShapeError
from talkhead.specs import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

_AAC_FRAME = 1024
_GOP_FRAMES = 25


def _import_av() -> Any:
    """PyAV, or an error that says what to install."""
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "writing video needs PyAV; install it with: pip install 'av>=18,<19'"
        ) from error
    return av


def _temporary(path: Path) -> Path:
    """A name in the same folder, so that os.replace stays within one file system."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _write_failed(path: Path, error: Exception) -> DataError:
    """The message for a file that could not be written."""
    folder = path.parent
    free = (
        f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB" if folder.is_dir() else "no such folder"
    )
    return DataError(
        f"could not write {path}: {error} (free space in {folder}: {free}); "
        "free some space or choose another folder, then run the command again."
    )


class VideoWriter:
    """Streams frames (and sound) into one mp4; use it as a context manager.

    The picture is H.264 yuv420p without B-frames at 25 fps with a key frame at least every second;
    the sound is AAC, 16 kHz mono. Both start at time 0 (the encoder's 1024 priming samples are cut
    off by the container's edit list; measured shift of the decoded sound: 0 samples) and last
    equally long: sound is cut or padded with silence to the picture. Nothing appears at ``path``
    unless the ``with`` block ends without an exception.

    Args:
        path: The mp4 to write; its folder is created.
        sound: Whether the file gets an audio stream.
        crf: Constant rate factor of x264, 0 (lossless) to 51.
        preset: Speed preset of x264.
        threads: Encoder threads; with 1 the same frames always give the same bytes.
        audio_bitrate: AAC bits a second.
        metadata: Container tags; keys of your own survive.

    Raises:
        MissingDependencyError: PyAV is not installed.
        DataError: The file cannot be written, for example on a full disk.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        sound: bool = False,
        crf: int = 20,
        preset: str = "veryfast",
        threads: int = 1,
        audio_bitrate: int = 64_000,
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Keep the settings; the file is opened by the ``with`` statement."""
        self.path = Path(path)
        self.frames = 0
        self._options = {"crf": str(crf), "preset": preset, "threads": str(threads)}
        self._sound = sound
        self._bitrate = audio_bitrate
        self._metadata = dict(metadata or {})
        self._av = _import_av()
        self._part = _temporary(self.path)
        self._container: Any = None
        self._video: Any = None
        self._audio: Any = None
        self._pending: list[NDArray[np.float32]] = []
        self._samples = 0

    def __enter__(self) -> VideoWriter:
        """Open the temporary file."""
        options = {"movflags": "+faststart+use_metadata_tags"}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._av.open(str(self._part), "w", format="mp4", options=options)
        except OSError as error:
            raise _write_failed(self.path, error) from error
        self._container.metadata.update(self._metadata)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish and rename the file, or remove it when anything failed."""
        try:
            if kind is None:
                self._finish()
        except OSError as failed:
            raise _write_failed(self.path, failed) from failed
        finally:
            self._close_quietly()
            self._part.unlink(missing_ok=True)

    def write_frame(self, frame: NDArray[np.uint8]) -> None:
        """Append one picture.

        Args:
            frame: RGB, ``(H, W, 3)`` uint8, even sides, all frames alike.

        Raises:
            ShapeError: Not such a picture.
            DataError: The file cannot be written.
        """
        self._check_frame(frame)
        try:
            if self._video is None:
                self._add_streams(frame.shape[1], frame.shape[0])
            picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = self.frames
            self._container.mux(self._video.encode(picture))
            self.frames += 1
            self._encode_audio(self.frames * SAMPLES_PER_FRAME, last=False)
        except OSError as error:
            raise _write_failed(self.path, error) from error

    def write_audio(self, samples: NDArray[np.float32]) -> None:
        """Append sound; it is encoded as the picture reaches it, so give it before its frames.

        Args:
            samples: ``(S,)`` float in [-1, 1] at 16 kHz, any number at a time.

        Raises:
            ShapeError: Not one-dimensional floating-point samples.
            DataError: The writer was opened without sound.
        """
        if not self._sound:
            raise DataError(
                f"{self.path} was opened without sound; open VideoWriter with sound=True."
            )
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise ShapeError(
                f"sound must be (S,) float samples in [-1, 1], got {samples.shape} "
                f"{samples.dtype}; mix down to mono and scale first."
            )
        self._pending.append(np.asarray(samples, np.float32))

    def _check_frame(self, frame: NDArray[np.uint8]) -> None:
        """Refuse what the encoder would refuse with a cryptic message."""
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ShapeError(f"expected (H, W, 3) uint8 RGB, got {frame.shape} {frame.dtype}.")
        if frame.shape[0] % 2 or frame.shape[1] % 2:
            raise ShapeError(f"yuv420p needs even sides, got {frame.shape}; crop or pad the frame.")
        if self._video is not None and frame.shape[:2] != (self._video.height, self._video.width):
            raise ShapeError(
                f"all frames must be {self._video.height} x {self._video.width}, "
                f"got {frame.shape[0]} x {frame.shape[1]}; resize them alike."
            )

    def _add_streams(self, width: int, height: int) -> None:
        """Both streams must exist before the first packet is written."""
        self._video = self._container.add_stream("libx264", rate=FPS, options=self._options)
        self._video.width, self._video.height = width, height
        self._video.pix_fmt = "yuv420p"
        context = self._video.codec_context
        context.gop_size = _GOP_FRAMES
        # Without B-frames decoding starts at time 0, so readers that ignore edit lists agree too.
        context.max_b_frames = 0
        if self._sound:
            self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
            self._audio.bit_rate = self._bitrate

    def _encode_audio(self, until: int, *, last: bool) -> None:
        """Encode the sound up to sample ``until``: whole AAC frames, at the end also the rest."""
        if self._audio is None:
            return
        wanted = until - self._samples
        if not last:
            wanted -= wanted % _AAC_FRAME
        if wanted <= 0 or not (last or sum(map(len, self._pending)) >= wanted):
            return
        # A single block is sliced, not copied: a whole sound track may be waiting here.
        blocks = self._pending or [np.zeros(0, np.float32)]
        pending = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        chunk, rest = pending[:wanted], pending[wanted:]
        self._pending = [rest] if len(rest) else []
        chunk = np.pad(chunk, (0, wanted - len(chunk)))
        for start in range(0, wanted, _AAC_FRAME):
            part = np.ascontiguousarray(chunk[None, start : start + _AAC_FRAME])
            sound = self._av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            sound.sample_rate = SAMPLE_RATE_HZ
            sound.pts = self._samples
            self._container.mux(self._audio.encode(sound))
            self._samples += part.shape[1]

    def _finish(self) -> None:
        """Flush the encoders, close and rename."""
        if self._video is None:
            raise DataError(f"no frame was written to {self.path}; a video needs at least one.")
        self._encode_audio(self.frames * SAMPLES_PER_FRAME, last=True)
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
            self._container.mux(self._audio.encode(None))
        container, self._container = self._container, None
        container.close()
        self._part.replace(self.path)

    def _close_quietly(self) -> None:
        """Free the encoders after a failure; the file is thrown away, its errors do not matter."""
        if self._container is None:
            return
        try:
            self._container.close()
        except (OSError, ValueError):
            # The trailer of a failed file: the first error is already on its way to the caller.
            return
        finally:
            self._container = None


def write_video(
    path: Path | str,
    frames: Iterable[NDArray[np.uint8]],
    audio: NDArray[np.float32] | None = None,
    *,
    crf: int = 20,
    preset: str = "veryfast",
    threads: int = 1,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a whole clip; see :class:`VideoWriter` for the format and the errors.

    Args:
        path: The mp4 to write.
        frames: ``(H, W, 3)`` uint8 RGB pictures, taken one at a time.
        audio: ``(S,)`` float32 in [-1, 1] at 16 kHz, or None for a silent file.
        crf: Constant rate factor of x264.
        preset: Speed preset of x264.
        threads: Encoder threads.
        metadata: Container tags.

    Returns:
        ``path``.
    """
    writer = VideoWriter(
        path,
        sound=audio is not None,
        crf=crf,
        preset=preset,
        threads=threads,
        metadata=metadata,
    )
    with writer:
        if audio is not None:
            writer.write_audio(audio)
        for frame in frames:
            writer.write_frame(frame)
    return Path(path)


def write_wav(path: Path | str, wave: NDArray[np.float32], rate: int = SAMPLE_RATE_HZ) -> Path:
    """Write 16-bit mono wav.

    Args:
        path: The wav to write; its folder is created.
        wave: ``(S,)`` float in [-1, 1]; what lies outside is clipped.
        rate: Samples a second.

    Returns:
        ``path``.

    Raises:
        ShapeError: Not one-dimensional.
        DataError: The file cannot be written.
    """
    target = Path(path)
    if wave.ndim != 1:
        raise ShapeError(f"a wav is written from (S,) samples, got {wave.shape}; mix down to mono.")
    samples = np.round(np.clip(wave, -1.0, 1.0) * 32767.0).astype("<i2")
    part = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as raw, wave_file.open(raw, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(rate)
            out.writeframes(samples.tobytes())
        part.replace(target)
    except OSError as error:
        raise _write_failed(target, error) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def write_png(path: Path | str, picture: NDArray[np.uint8]) -> Path:
    """Write an RGB picture.

    Args:
        path: The PNG to write; its folder is created.
        picture: ``(H, W, 3)``.

    Returns:
        ``path``.

    Raises:
        ShapeError: Not RGB bytes.
        DataError: The file cannot be written.
    """
    import cv2

    target = Path(path)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise ShapeError(
            f"a picture is written from (H, W, 3) uint8, got {picture.dtype} {picture.shape}."
        )
    part = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        part.replace(target)
    except OSError as error:
        raise _write_failed(target, error) from error
    finally:
        part.unlink(missing_ok=True)
    return target
