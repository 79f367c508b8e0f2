"""One raw clip to arrays: decode, track, crop, encode; or a reason why not.

Memory does not grow with the length of a recording: long ones are cut into pieces, and of the
decoded frames only a few are held at a time.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.prepare.layouts import RawClip
from datamodules.prepare.options import ClipOptions
from datamodules.prepare.spool import FrameSpool
from talkhead.errors import DataError
from talkhead.geometry.crop import Box, clip_box, crop_frame, to_crop_units
from talkhead.landmarks.base import Landmarker, Landmarks, Picture
from talkhead.landmarks.gaps import bridge, longest_run
from talkhead.media.decode import MediaInfo, fit_audio, iter_frames, probe, read_audio
from talkhead.specs import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

JPEG_QUALITY = 95
_LOOKAHEAD_FRAMES = 25
_LOOKAHEAD_BYTES = 64 << 20
_MIN_FRAMES = 12
"""Fewer frames than this cannot be told from a damaged file (auto_avsr's integrity rule)."""
_MIN_AUDIO_SHARE = 0.875
"""Sound must cover the video to 560 of 640 samples a frame (auto_avsr's integrity rule)."""
_SEARCH_ROOM = 1.5
"""Face widths searched on each side of the largest of several faces."""


@dataclass(frozen=True)
class Rejection:
    """Why a clip was not taken.

    ``reason`` is one of ``corrupt``, ``no_audio``, ``silent``, ``short_audio``, ``no_face``,
    ``low_track_share``, ``too_few_frames``, ``too_short``, ``fps_too_low``, ``crashed``, ``audit``
    (and those of the layouts: ``layout``, ``no_speaker``, ``no_interval``).
    """

    source: str
    reason: str
    detail: str


@dataclass
class ClipResult:
    """A clip ready for a shard, all parts over the same ``T`` frames at 25 fps.

    Attributes:
        raw: Where it came from.
        jpegs: ``T`` encoded square crops.
        landmarks: Crop units, ``(T, 478, 3)`` float32.
        audio: 16 kHz samples, ``(640 T,)`` int16.
        facts: ``fps_in``, ``box`` ``[x, y, w, h]`` px, ``silence_share``, ``tracked_share``,
            ``first_frame`` (frames cut off in front), ``faces`` (most seen at once), ``flags``.
    """

    raw: RawClip
    jpegs: list[bytes]
    landmarks: Landmarks
    audio: NDArray[np.int16]
    facts: dict[str, Any]

    @property
    def frames(self) -> int:
        """Number of frames ``T``."""
        return len(self.jpegs)


class _Reject(Exception):  # noqa: N818 - control flow within this file, never leaves it
    """Carries a reason out of the steps below."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@functools.cache
def jpeg_encoder() -> Callable[[Picture], bytes]:
    """JPEG at quality 95 with 4:2:0 chroma, by simplejpeg if installed, else OpenCV."""
    try:
        import simplejpeg
    except ImportError:
        import cv2

        def with_cv2(picture: Picture) -> bytes:
            flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            return bytes(cv2.imencode(".jpg", picture[:, :, ::-1], flags)[1].tobytes())

        return with_cv2

    def with_simplejpeg(picture: Picture) -> bytes:
        return bytes(
            simplejpeg.encode_jpeg(picture, JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")
        )

    return with_simplejpeg


def active_share(wave: NDArray[np.float32], active_db: float) -> float:
    """Share of 20 ms stretches louder than a level in dB of full scale; 0 for no sound."""
    step = SAMPLE_RATE_HZ // 50
    rows = wave[: len(wave) // step * step].reshape(-1, step).astype(np.float64)
    if len(rows) == 0:
        return 0.0
    level = 10 * np.log10(np.maximum((rows**2).mean(axis=1), 1e-12))
    return float((level > active_db).mean())


def pieces(raw: RawClip, info: MediaInfo, max_seconds: float) -> list[RawClip]:
    """Cut a long clip into equal pieces on the frame grid; a short one comes back as it is."""
    start = raw.start_s or 0.0
    end = raw.end_s if raw.end_s is not None else info.duration_s
    if info.duration_s:
        end = min(end, info.duration_s)
    if raw.whole or end - start <= max_seconds:
        return [raw]
    count = math.ceil((end - start) / max_seconds)
    edges = [start + round((end - start) * FPS * i / count) / FPS for i in range(count)]
    stops: list[float | None] = [*edges[1:], raw.end_s]
    return [
        replace(raw, id=f"{raw.id}@{int(a * 1000):08d}", start_s=a, end_s=b)
        for a, b in zip(edges, stops, strict=True)
    ]


def check_header(raw: RawClip, options: ClipOptions) -> MediaInfo | Rejection:
    """What the header says, or why the clip need not be decoded at all."""
    try:
        info = probe(raw.path)
    except DataError as error:
        return Rejection(raw.source, "corrupt", str(error))
    if not info.video:
        return Rejection(raw.source, "corrupt", f"{raw.path} has no video stream.")
    sound = info.audio if raw.audio is None else raw.audio.is_file()
    if options.require_audio and not sound:
        where = raw.path if raw.audio is None else raw.audio
        return Rejection(raw.source, "no_audio", f"{where} has no sound.")
    if 0 < info.fps < options.min_fps:
        detail = f"{info.fps:.2f} fps, expected at least {options.min_fps:g} (--min-fps)."
        return Rejection(raw.source, "fps_too_low", detail)
    if 0 < info.duration_s < options.min_seconds:
        detail = f"{info.duration_s:.2f} s, expected at least {options.min_seconds:g}."
        return Rejection(raw.source, "too_short", detail)
    return info


def process_clip(
    raw: RawClip,
    options: ClipOptions,
    landmarker: Landmarker,
    *,
    info: MediaInfo | None = None,
    scratch: Path | None = None,
) -> ClipResult | Rejection:
    """Turn one clip of bounded length into arrays.

    Args:
        raw: The clip, of at most ``options.max_seconds`` (see :func:`pieces`).
        options: Settings.
        landmarker: Face tracker; it starts anew.
        info: Header, if it was read already.
        scratch: Folder for frames that do not fit in memory.

    Returns:
        The clip, or the reason why it was not taken.
    """
    if info is None:
        header = check_header(raw, options)
        if isinstance(header, Rejection):
            return header
        info = header
    try:
        # Sound first: it is 100 times cheaper than the picture and rejects as surely.
        wave = _sound(raw, info, options)
        return _picture(raw, info, options, landmarker, wave, scratch)
    except _Reject as reject:
        return Rejection(raw.source, reject.reason, reject.detail)
    except DataError as error:
        return Rejection(raw.source, "corrupt", str(error))


def _sound(raw: RawClip, info: MediaInfo, options: ClipOptions) -> NDArray[np.float32]:
    """16 kHz samples of the clip, loud enough."""
    if raw.audio is None and not info.audio:
        return np.zeros(0, np.float32)
    if raw.audio is not None and not raw.audio.is_file():
        return np.zeros(0, np.float32)
    wave = read_audio(raw.audio or raw.path, start_s=raw.start_s or 0.0, end_s=raw.end_s)
    share = active_share(wave, options.active_db)
    if options.require_audio and share < options.min_active:
        raise _Reject(
            "silent",
            f"{share:.0%} of the sound is above {options.active_db:g} dB of full scale, expected "
            f"at least {options.min_active:.0%} (--min-active).",
        )
    return wave


@dataclass
class Tracking:
    """What the first pass over a clip knows.

    Attributes:
        faces: Landmarks ``(478, 3)`` of every frame in picture pixels, None where the face was lost.
        width: Width of the pictures in pixels.
        height: Height of the pictures in pixels.
        most_faces: Most faces seen at once in the frames looked at.
    """

    faces: list[Landmarks | None] = field(default_factory=list)
    width: int = 0
    height: int = 0
    most_faces: int = 0


def _frames(raw: RawClip) -> Iterator[Picture]:
    """Decoded frames of the clip at 25 fps."""
    return iter_frames(raw.path, start_s=raw.start_s or 0.0, end_s=raw.end_s)


def _region(
    head: list[Picture], raw: RawClip, landmarker: Landmarker
) -> tuple[tuple[int, int, int, int] | None, int]:
    """Where to track, ``(left, top, right, bottom)`` px or None for all, and how many faces."""
    height, width = head[0].shape[:2]
    if raw.box is not None:
        x, y, w, h = (round(v * height) for v in raw.box)
        region = (max(0, x), max(0, y), min(width, x + w), min(height, y + h))
        if region[2] - region[0] > 16 and region[3] - region[1] > 16:
            return region, 1
    found = max((landmarker.detect(f) for f in (head[0], head[-1])), key=len)
    if len(found) < 2:
        return None, len(found)
    # One face only fits in the tracker: show it the largest one's neighbourhood and nothing else.
    low, high = found[0][:, :2].min(axis=0), found[0][:, :2].max(axis=0)
    room = _SEARCH_ROOM * (high[0] - low[0])
    left, top = np.maximum(low - room, 0).astype(int)
    right, bottom = np.minimum(high + room, (width, height)).astype(int)
    return (int(left), int(top), int(right), int(bottom)), len(found)


def first_pass(
    raw: RawClip, options: ClipOptions, landmarker: Landmarker, scratch: Path | None
) -> tuple[Tracking, FrameSpool]:
    """Decode and track every frame, keeping the neighbourhood of the head for the crop.

    Args:
        raw: The clip.
        options: Settings; the crop's size and face share decide what is kept.
        landmarker: Face tracker; it starts anew.
        scratch: Folder for frames that do not fit in memory.

    Returns:
        What was tracked, and the kept pictures, which the caller has to close.

    Raises:
        DataError: A file that cannot be decoded.
    """
    stream = _frames(raw)
    head = [next(stream)]
    limit = max(2, min(_LOOKAHEAD_FRAMES, _LOOKAHEAD_BYTES // head[0].nbytes))
    head += itertools.islice(stream, limit - 1)
    out = Tracking(height=head[0].shape[0], width=head[0].shape[1])
    region, out.most_faces = _region(head, raw, landmarker)
    waiting: deque[Picture] = deque()
    early = len(head)

    def shown() -> Iterator[Picture]:
        # The tracker knows a repeated frame by its identity, so a cut must be kept, too.
        before: Picture | None = None
        cut: Picture | None = None
        while (frame := head.pop(0) if head else next(stream, None)) is not None:
            waiting.append(frame)
            if region is None:
                yield frame
                continue
            if frame is not before or cut is None:
                cut = np.ascontiguousarray(frame[region[1] : region[3], region[0] : region[2]])
                before = frame
            yield cut

    shift = np.array([region[0], region[1], 0] if region else [0, 0, 0], np.float32)
    spool: FrameSpool | None = None
    for face in landmarker.track(shown()):
        out.faces.append(None if face is None else face + shift)
        if spool is None and len(out.faces) == early:
            spool = _spool(out, options, scratch)
        if spool is not None:
            while waiting:
                spool.write(waiting.popleft())
    if spool is None:
        spool = _spool(out, options, scratch)
    while waiting:
        spool.write(waiting.popleft())
    return out, spool


def _spool(tracking: Tracking, options: ClipOptions, scratch: Path | None) -> FrameSpool:
    """A store around the faces seen so far."""
    seen = [f for f in tracking.faces if f is not None]
    width, height = tracking.width, tracking.height
    guess = clip_box(np.stack(seen), width, height, options.face_share) if seen else None
    return FrameSpool(guess, width, height, options.size, scratch)


def _usable_run(tracking: Tracking, raw: RawClip, options: ClipOptions) -> tuple[int, int]:
    """First and last (exclusive) frame to keep."""
    tracked = np.array([f is not None for f in tracking.faces])
    total = len(tracked)
    if total < _MIN_FRAMES:
        raise _Reject("too_few_frames", f"{total} frames at 25 fps, expected {_MIN_FRAMES}.")
    if not tracked.any():
        raise _Reject("no_face", f"no face in any of {total} frames.")
    start, stop = (0, total) if raw.whole else longest_run(tracked, options.max_gap)
    share = float(tracked[start:stop].mean())
    if share < options.min_tracked or stop - start < options.min_tracked * total / 2:
        raise _Reject(
            "low_track_share",
            f"face found in {tracked.mean():.0%} of {total} frames, longest stretch "
            f"{stop - start} frames; expected {options.min_tracked:.0%} (--min-tracked).",
        )
    if stop - start < options.min_seconds * FPS:
        raise _Reject(
            "too_short",
            f"{(stop - start) / FPS:.2f} s with a face, expected {options.min_seconds:g} s.",
        )
    return start, stop


def _encode(frames: Iterator[Picture], run: tuple[int, int], box: Box, size: int) -> list[bytes]:
    """JPEG crops of a run of frames."""
    encode = jpeg_encoder()
    return [encode(crop_frame(f, box, size)) for f in itertools.islice(frames, *run)]


def _picture(
    raw: RawClip,
    info: MediaInfo,
    options: ClipOptions,
    landmarker: Landmarker,
    wave: NDArray[np.float32],
    scratch: Path | None,
) -> ClipResult | Rejection:
    """Track, crop and encode, and put everything on the same frames."""
    tracking, spool = first_pass(raw, options, landmarker, scratch)
    with spool:
        run = _usable_run(tracking, raw, options)
        start, stop = run
        if options.require_audio and len(wave) < _MIN_AUDIO_SHARE * stop * SAMPLES_PER_FRAME:
            raise _Reject(
                "short_audio",
                f"{len(wave) / SAMPLE_RATE_HZ:.2f} s of sound for {stop / FPS:.2f} s of video.",
            )
        points, tracked = bridge(tracking.faces[start:stop])
        box = clip_box(points, tracking.width, tracking.height, options.face_share)
        if spool.covers(box):
            box = spool.snapped(box)
            jpegs = _encode(spool.read(), run, spool.local(box), options.size)
        else:
            jpegs = _encode(_frames(raw), run, box, options.size)
    if len(jpegs) != stop - start:
        raise _Reject("corrupt", f"{raw.path}: {len(jpegs)} frames the second time, not {stop}.")
    sound = fit_audio(wave, stop)[start * SAMPLES_PER_FRAME :]
    facts = {
        "fps_in": round(info.fps, 3),
        "box": box.as_list(),
        "silence_share": round(1.0 - active_share(sound, options.active_db), 4),
        "tracked_share": round(float(tracked.mean()), 4),
        "first_frame": start,
        "faces": tracking.most_faces,
        "flags": _flags(tracking, info, box, run, options),
    }
    audio = np.clip(np.round(sound * 32767.0), -32768, 32767).astype(np.int16)
    return ClipResult(raw, jpegs, to_crop_units(points, box), audio, facts)


def _flags(
    tracking: Tracking, info: MediaInfo, box: Box, run: tuple[int, int], options: ClipOptions
) -> list[str]:
    """What a user may want to look at before trusting an accepted clip."""
    inside = (
        box.x >= 0
        and box.y >= 0
        and box.x + box.side <= tracking.width
        and box.y + box.side <= tracking.height
    )
    checks = {
        "several_faces": tracking.most_faces > 1,
        "low_fps": 0 < info.fps < 0.75 * FPS,
        "enlarged": box.side < options.size,
        "padded": not inside,
        "trimmed": run != (0, len(tracking.faces)),
    }
    return [name for name, hit in checks.items() if hit]
