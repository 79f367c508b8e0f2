"""Read video, sound and pictures: any frame rate to exactly 25 fps, any sound to 16 kHz mono.

The clock of a clip starts at the presentation time of its first video frame. Output frame ``t`` is
the source frame on screen at ``(t + 0.5) / 25`` seconds of that clock, whatever the source's rate
says, so variable frame rates, 29.97 against 30 and start offsets of streams cause no drift. Sample
0 of the sound is time 0 of the same clock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import DataError, MissingDependencyError, ShapeError
from talkhead.specs import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

Picture = NDArray[np.uint8]
Wave = NDArray[np.float32]

_log = logging.getLogger(__name__)
_SHORT_BY = 0.1
"""Share of the declared length that may be missing before a file counts as cut off."""


@dataclass(frozen=True)
class MediaInfo:
    """What a file's header says.

    Attributes:
        width: Picture width in pixels after rotation.
        height: Picture height in pixels after rotation.
        fps: Mean frame rate of the video stream; 0.0 if the header does not say.
        duration_s: Length of the video stream in seconds; 0.0 if the header does not say.
        video: Whether there is a video stream.
        audio: Whether there is an audio stream.
        audio_offset_s: Start of the sound minus start of the video in seconds.
    """

    width: int
    height: int
    fps: float
    duration_s: float
    video: bool
    audio: bool
    audio_offset_s: float


def import_av() -> Any:
    """The PyAV module.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "reading media needs PyAV; install it with: pip install 'av>=18,<19'"
        ) from error
    # FFmpeg's own messages repeat what the DataErrors say, once for each damaged packet.
    av.logging.set_level(av.logging.PANIC)
    return av


def _open(path: Path | str) -> Any:
    """An open container, or a DataError that says what is wrong with the file."""
    av = import_av()
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no media file at {path}; check the path.")
    if path.stat().st_size == 0:
        raise DataError(f"corrupt file {path}: it is empty; copy or download it again.")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(
            f"corrupt or unknown file {path}: {error}; copy or download it again."
        ) from error


def _video_stream(container: Any, path: Path | str) -> Any:
    """The first moving video stream (cover pictures of sound files do not count)."""
    av = import_av()
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise DataError(f"{path} has no video stream; pass a video file.")


def _seconds(value: int | None, base: Any) -> float:
    """A stream time in seconds, 0.0 when unknown."""
    return float(value * base) if value is not None and base is not None else 0.0


def probe(path: Path | str) -> MediaInfo:
    """Read a file's header; no frame is decoded unless the header lacks the length.

    Raises:
        DataError: Missing, corrupt or unknown file, or neither video nor sound in it.
        MissingDependencyError: PyAV is not installed.
    """
    with _open(path) as container:
        has_audio = bool(container.streams.audio)
        try:
            stream = _video_stream(container, path)
        except DataError:
            if not has_audio:
                raise
            return MediaInfo(0, 0, 0.0, 0.0, False, True, 0.0)
        start = _seconds(stream.start_time, stream.time_base)
        offset = 0.0
        if has_audio:
            sound = container.streams.audio[0]
            offset = _seconds(sound.start_time, sound.time_base) - start
        duration = _seconds(stream.duration, stream.time_base)
        if duration == 0.0 and container.duration is not None:
            duration = container.duration / 1e6
        rate = stream.average_rate or stream.guessed_rate
        return MediaInfo(
            width=int(stream.codec_context.width),
            height=int(stream.codec_context.height),
            fps=float(rate) if rate else 0.0,
            duration_s=duration,
            video=True,
            audio=has_audio,
            audio_offset_s=offset,
        )


def _timed_frames(
    container: Any, stream: Any, path: Path | str, start_s: float
) -> Iterator[tuple[float, float, Any]]:
    """Decoded frames as ``(start, end, frame)``, seconds of the clip's clock, increasing."""
    av = import_av()
    stream.thread_type = "SLICE"
    stream.codec_context.thread_count = 1  # one core a worker; parallelism is over clips
    rate = stream.average_rate or stream.guessed_rate or FPS
    step = 1.0 / float(rate)
    origin: float | None = None
    if start_s > 0 and stream.start_time is not None:
        origin = _seconds(stream.start_time, stream.time_base)
        container.seek(int((origin + start_s) / stream.time_base), stream=stream, backward=True)
    last = -np.inf
    try:
        for frame in container.decode(stream):
            now = float(frame.time) if frame.time is not None else last + step
            if origin is None:
                origin = now if np.isfinite(now) else 0.0
            now = now - origin if np.isfinite(now) else 0.0
            if now <= last:  # a repeated time stamp: the later frame never was on screen
                continue
            last = now
            length = _seconds(frame.duration, frame.time_base) or step
            yield now, now + length, frame
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(
            f"corrupt file {path}: decoding failed after {max(last, 0.0):.2f} s ({error}); "
            "copy or download it again."
        ) from error


class _Converter:
    """Turns decoded frames into RGB arrays with one scaling context for the whole clip.

    ``VideoFrame.to_ndarray(format=...)`` makes a context for each frame, 0.3 ms at 224 pixels.
    """

    def __init__(self) -> None:
        self._reformatter = import_av().video.reformatter.VideoReformatter()

    def __call__(self, frame: Any) -> Picture:
        # Rotation comes from the container's display matrix: phones store portrait video this way.
        picture = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = round(getattr(frame, "rotation", 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def iter_frames(
    path: Path | str, fps: int = FPS, *, start_s: float = 0.0, end_s: float | None = None
) -> Iterator[Picture]:
    """Frames of a video at exactly ``fps`` frames a second, one at a time.

    Frame ``t`` is the last source frame that began at or before ``start_s + (t + 0.5) / fps``; the
    clip ends with the last source frame's display time. 12 fps to 25 repeats frames, 30 to 25 drops
    every sixth. A repeated frame is the *same array* again: do not write into what is yielded.

    Args:
        path: Video file.
        fps: Output rate.
        start_s: Where to begin, in seconds after the first frame.
        end_s: Where to stop, in seconds after the first frame; the end of the file if None.

    Yields:
        RGB pictures, ``(H, W, 3)`` uint8.

    Raises:
        DataError: Missing, corrupt or cut off file, no video stream, or no frame in it.
        MissingDependencyError: PyAV is not installed.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        declared = _seconds(stream.duration, stream.time_base)
        convert = _Converter()
        half = 0.5 / fps
        count, end = 0, 0.0
        held: Any = None  # the frame on screen, not yet converted
        picture: Picture | None = None
        for begin, until, frame in _timed_frames(container, stream, path, start_s):
            while held is not None and start_s + count / fps + half < begin - 1e-6:
                if end_s is not None and start_s + count / fps + half >= end_s:
                    return
                if picture is None:
                    picture = convert(held)
                yield picture
                count += 1
            held, picture, end = frame, None, until
        if held is None:
            raise DataError(f"{path} has zero frames; copy or download it again.")
        stop = min(end, end_s) if end_s is not None else end
        while start_s + count / fps + half < stop - 1e-6:
            picture = convert(held) if picture is None else picture
            yield picture
            count += 1
        # FFmpeg often stops without an error where a file was cut off.
        expected = min(declared, end_s) if end_s is not None else declared
        if end < expected * (1 - _SHORT_BY) - 0.2:
            raise DataError(
                f"truncated file {path}: the header says {declared:.2f} s, the frames end at "
                f"{end:.2f} s; copy or download it again."
            )


def read_audio(
    path: Path | str,
    rate: int = SAMPLE_RATE_HZ,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Wave:
    """The sound of a media file as mono float samples on the clock of its video.

    Sample 0 is ``start_s`` after the first video frame: sound that starts later is padded with
    zeros in front, sound that starts earlier is cut. Files without video start at their own start.

    Args:
        path: Video or sound file.
        rate: Output sample rate in hertz.
        start_s: Where to begin, in seconds.
        end_s: Where to stop, in seconds; the end of the sound if None.

    Returns:
        Samples in about ``[-1, 1]``, ``(S,)`` float32.

    Raises:
        DataError: Missing or corrupt file, no audio stream, or no sample in it.
        MissingDependencyError: PyAV is not installed.
    """
    av = import_av()
    with _open(path) as container:
        if not container.streams.audio:
            raise DataError(f"{path} has no audio stream; pass a file with sound.")
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        zero = start_s + _origin_s(container, stream)
        if start_s > 1.0:
            # Half a second earlier, so that the decoder has settled where the piece begins.
            container.seek(int((zero - 0.5) / stream.time_base), stream=stream, backward=True)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts: list[Wave] = []
        first: float | None = None
        try:
            for frame in container.decode(stream):
                if first is None:
                    first = float(frame.time) if frame.time is not None else 0.0
                parts += [out.to_ndarray().reshape(-1) for out in resampler.resample(frame)]
                now = frame.time if frame.time is not None else -np.inf
                if end_s is not None and now - zero > end_s - start_s:
                    break
            parts += [out.to_ndarray().reshape(-1) for out in resampler.resample(None)]
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(
                f"corrupt sound in {path}: {error}; copy or download it again."
            ) from error
    wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if first is None or wave.size == 0:
        raise DataError(f"{path} has an audio stream without samples; pass a file with sound.")
    shift = round((first - zero) * rate)
    wave = np.pad(wave, (shift, 0)) if shift >= 0 else wave[-shift:]
    if end_s is not None:
        wave = wave[: max(0, round((end_s - start_s) * rate))]
    return np.ascontiguousarray(wave, np.float32)


def _origin_s(container: Any, sound: Any) -> float:
    """Time of the first video frame on the container's clock; of the sound if there is no video."""
    av = import_av()
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return _seconds(stream.start_time, stream.time_base)
    return _seconds(sound.start_time, sound.time_base)


def fit_audio(wave: Wave, frames: int) -> Wave:
    """Cut or zero-pad sound to exactly ``frames`` video frames.

    Args:
        wave: Samples at 16 kHz, ``(S,)``.
        frames: Number of video frames at 25 fps.

    Returns:
        ``(frames * 640,)`` float32.

    Raises:
        ShapeError: ``wave`` is not one-dimensional or ``frames`` is negative.
    """
    if wave.ndim != 1 or frames < 0:
        raise ShapeError(f"expected samples (S,) and frames >= 0, got {wave.shape} and {frames}.")
    want = frames * SAMPLES_PER_FRAME
    out = np.zeros(want, np.float32)
    out[: min(want, len(wave))] = wave[:want]
    return out


def read_image(path: Path | str) -> Picture:
    """A still picture as RGB, turned upright by its EXIF orientation.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        DataError: Missing file or not a picture.
    """
    import cv2

    path = Path(path)
    if not path.is_file():
        raise DataError(f"no picture at {path}; check the path.")
    # From bytes, so that any file name works; cv2 applies the EXIF orientation itself.
    data = np.frombuffer(path.read_bytes(), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise DataError(f"{path} is not a picture that can be read; pass a JPEG or PNG file.")
    return np.ascontiguousarray(picture[:, :, ::-1], np.uint8)
