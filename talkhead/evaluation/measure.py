"""Everything about one pair of videos that needs pictures, sound or a network, as arrays.

A pair is decoded, tracked and embedded once; all scores but those of picture against picture are
computed from the arrays later (:mod:`talkhead.evaluation.scores`), which costs next to nothing and lets
real clips be compared with each other, too.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.mfcc import mfcc, mfcc_window_count, mfcc_windows
from talkhead.errors import DataError
from talkhead.evaluation.judges import FaceJudge, Judges, Picture, rigid_run, to_unit
from talkhead.geometry.crop import Box, clip_box, to_crop_units
from talkhead.geometry.points68 import ibug_points
from talkhead.media.decode import MediaInfo, Wave, fit_audio, read_audio
from talkhead.metrics.lpips import lpips
from talkhead.metrics.pictures import psnr, ssim
from talkhead.metrics.silence import silent_frames
from talkhead.networks.rigid_syncer import RigidSyncer
from talkhead.networks.syncnet import WINDOW_FRAMES, SyncNet

FORMAT = 3
MIN_FRAMES = 12
"""Fewer common frames than this are no clip: halves of six frames are the least that has statistics."""
CHUNK_FRAMES = 25
_SAME_SHAPE = 0.01
"""Pictures whose height-to-width ratios differ by less than this share show the same field of view."""


class Video(Protocol):
    """What is asked of a decoded and tracked video (``datamodules.prepare.tracked.TrackedVideo``)."""

    path: Path
    info: MediaInfo
    width: int
    height: int
    points: NDArray[np.float32]
    tracked: NDArray[np.bool_]
    most_faces: int

    def crops(self, box: Box, size: int, frames: int) -> Iterator[Picture]:
        """Crops of the first frames."""
        ...


@dataclass(frozen=True)
class MeasureOptions:
    """What decides the arrays of a pair.

    Attributes:
        size: Side in pixels of the crops that pictures are compared on.
        face_share: Share of the crop's width that the face takes.
        fid_every: Every so many-th frame goes into FID and CSIM.
    """

    size: int = 256
    face_share: float = 0.5
    fid_every: int = 1


@dataclass
class Side:
    """One video of a pair over the ``T`` frames both have.

    Attributes:
        landmarks: Crop units, ``(T, 478, 3)``.
        tracked: Whether the face was found, ``(T,)``.
        silent: Whether nothing is heard, ``(T,)``; None without sound.
        identity: Space -> face embeddings of every ``fid_every``-th frame, ``(n, D)``; NaN without a face.
        inception: Space -> FID's features of the same frames, ``(n, 2048)``.
        visual: Space -> SyncNet's visual embeddings, ``(T - 5, D)``.
        audio: Space -> its audio embeddings, ``(T - 5, D)``.
        rigid_points: Scale in ms -> the rigid syncer's embeddings of the head in ``R`` runs, ``(R, N, D)``.
        rigid_audio: Scale in ms -> those of the sound.
        readings: Space -> eye opening and gaze of every frame as a network reads them, ``(T, 4)``; NaN
            without a face.
        coefficients: Rotation and expression of a face-model track, ``(T, 67)``; None without one. They
            are read anew each time and not kept with the measurement.
    """

    landmarks: Tensor
    tracked: Tensor
    silent: Tensor | None = None
    identity: dict[str, Tensor] = field(default_factory=dict)
    inception: dict[str, Tensor] = field(default_factory=dict)
    visual: dict[str, Tensor] = field(default_factory=dict)
    audio: dict[str, Tensor] = field(default_factory=dict)
    rigid_points: dict[str, Tensor] = field(default_factory=dict)
    rigid_audio: dict[str, Tensor] = field(default_factory=dict)
    readings: dict[str, Tensor] = field(default_factory=dict)
    coefficients: Tensor | None = None

    @property
    def frames(self) -> int:
        """Number of frames ``T``."""
        return len(self.tracked)


@dataclass
class Measurement:
    """Both sides of a pair.

    Attributes:
        generated: The generated video.
        reference: The real one.
        pictures: Scores of picture against picture, by name.
        facts: Frames, rates, boxes and what had to be cut, for the result.
    """

    generated: Side
    reference: Side
    pictures: dict[str, float]
    facts: dict[str, Any]

    def save(self, path: Path, key: str) -> None:
        """Write everything into one ``.npz`` through a temporary name; ``key`` says what it was made of."""
        arrays: dict[str, NDArray[Any]] = {}
        for prefix, side in (("generated", self.generated), ("reference", self.reference)):
            arrays[f"{prefix}/landmarks"] = side.landmarks.numpy()
            arrays[f"{prefix}/tracked"] = side.tracked.numpy()
            if side.silent is not None:
                arrays[f"{prefix}/silent"] = side.silent.numpy()
            for part in _PARTS:
                for space, rows in getattr(side, part).items():
                    arrays[f"{prefix}/{part}/{space}"] = rows.numpy()
        meta = {"format": FORMAT, "key": key, "pictures": self.pictures, "facts": self.facts}
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                np.savez(file, **arrays)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, key: str) -> Measurement | None:
        """What :meth:`save` wrote; None if the file is missing, broken or was made of something else."""
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                meta = json.loads(arrays["meta"].tobytes())
                if meta["format"] != FORMAT or meta["key"] != key:
                    return None
                sides = {name: _side(arrays, name) for name in ("generated", "reference")}
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        return cls(sides["generated"], sides["reference"], meta["pictures"], meta["facts"])


_PARTS = ("identity", "inception", "visual", "audio", "rigid_points", "rigid_audio", "readings")


def _side(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Side:
    """One side of a saved measurement."""
    tensors = {
        name.removeprefix(f"{prefix}/"): torch.from_numpy(arrays[name])
        for name in arrays
        if name.startswith(f"{prefix}/")
    }
    side = Side(tensors["landmarks"], tensors["tracked"], tensors.get("silent"))
    for part in _PARTS:
        found = {
            name.removeprefix(f"{part}/"): rows
            for name, rows in tensors.items()
            if name.startswith(f"{part}/")
        }
        setattr(side, part, found)
    return side


def measure(
    generated: Video, reference: Video, judges: Judges, options: MeasureOptions
) -> Measurement:
    """Arrays and picture scores of one pair.

    Both videos are on the clock of 25 frames a second that starts with their first frame; the longer one
    is cut. Pictures and landmarks are compared in the box of the real video, carried over to the generated
    one by the ratio of their sizes; only where the two do not show the same field of view (another ratio
    of height to width) does each have its own box. Judges see each video in its own box.

    Args:
        generated: The generated video.
        reference: The real one.
        judges: Networks.
        options: Crop and frames.

    Returns:
        The measurement.

    Raises:
        DataError: Too few common frames, or sound that cannot be decoded.
    """
    frames = min(len(generated.tracked), len(reference.tracked))
    if frames < MIN_FRAMES:
        raise DataError(
            f"expected at least {MIN_FRAMES} common frames at 25 a second, got "
            f"{len(generated.tracked)} in {generated.path} and {len(reference.tracked)} in "
            f"{reference.path}; leave such clips out."
        )
    shared = _same_view(generated, reference)
    real_box = _own_box(reference, options.face_share, frames)
    if shared:
        pair_box = _carried(real_box, generated, reference)
    else:
        pair_box = _own_box(generated, options.face_share, frames)
    pictures = _picture_scores(
        generated.crops(pair_box, options.size, frames),
        reference.crops(real_box, options.size, frames),
        judges,
    )
    waves = {"reference": _sound(reference, frames), "generated": _sound(generated, frames)}
    heard = "generated" if waves["generated"] is not None else "reference"
    sides = [
        _judged(video, box, frames, wave, judges, options)
        for video, box, wave in (
            (generated, pair_box, waves[heard]),
            (reference, real_box, waves["reference"]),
        )
    ]
    facts = {
        "frames": frames,
        "frames_generated": len(generated.tracked),
        "frames_reference": len(reference.tracked),
        "fps_generated": round(generated.info.fps, 3),
        "fps_reference": round(reference.info.fps, 3),
        "box": "reference" if shared else "own",
        "box_px": real_box.side,
        "faces": generated.most_faces,
        "sound": heard if waves[heard] is not None else "none",
    }
    return Measurement(sides[0], sides[1], pictures, facts)


def _same_view(generated: Video, reference: Video) -> bool:
    """Whether both pictures have the same ratio of height to width."""
    ours, theirs = generated.height / generated.width, reference.height / reference.width
    return abs(ours / theirs - 1.0) < _SAME_SHAPE


def _own_box(video: Video, face_share: float, frames: int) -> Box:
    """The box of a video's own face over the frames that count."""
    return clip_box(video.points[:frames], video.width, video.height, face_share)


def _carried(box: Box, generated: Video, reference: Video) -> Box:
    """A box of the real video in pixels of the generated one."""
    ratio = generated.width / reference.width
    return Box(round(box.x * ratio), round(box.y * ratio), max(2, round(box.side * ratio)))


def _chunks(pictures: Iterator[Picture]) -> Iterator[Picture]:
    """Stacks ``(n, H, W, 3)`` of up to :data:`CHUNK_FRAMES` pictures."""
    while chunk := list(itertools.islice(pictures, CHUNK_FRAMES)):
        yield np.stack(chunk)


def _picture_scores(
    generated: Iterator[Picture], reference: Iterator[Picture], judges: Judges
) -> dict[str, float]:
    """PSNR, SSIM and LPIPS, means over frames."""
    sums: dict[str, list[float]] = {}
    counts = []
    for ours, theirs in zip(_chunks(generated), _chunks(reference), strict=True):
        g, r = to_unit(ours), to_unit(theirs)
        values = {"psnr": float(psnr(g, r)), "ssim": float(ssim(g, r))}
        if judges.lpips is not None:
            values["lpips[alex]"] = float(lpips(g, r, judges.lpips))
        counts.append(len(g))
        for name, value in values.items():
            sums.setdefault(name, []).append(value * len(g))
    return {name: math.fsum(values) / sum(counts) for name, values in sums.items()}


def _sound(video: Video, frames: int) -> Wave | None:
    """The clip's sound, or None for a silent file."""
    return fit_audio(read_audio(video.path), frames) if video.info.audio else None


def _judged(
    video: Video,
    box: Box,
    frames: int,
    wave: Wave | None,
    judges: Judges,
    options: MeasureOptions,
) -> Side:
    """One side: landmarks in the pair's box, judges in the video's own."""
    side = Side(
        landmarks=torch.from_numpy(to_crop_units(video.points[:frames], box)),
        tracked=torch.from_numpy(np.ascontiguousarray(video.tracked[:frames])),
        silent=None if wave is None else silent_frames(torch.from_numpy(wave)),
    )
    for judge in judges.faces:
        side.identity[judge.space] = _embedded(video, frames, judge, options.fid_every)
    if judges.gaze is not None:
        side.readings[judges.gaze.space] = _embedded(video, frames, judges.gaze, every=1)
    if judges.inception is not None:
        own = _own_box(video, options.face_share, frames)
        every = itertools.islice(video.crops(own, options.size, frames), 0, None, options.fid_every)
        with torch.no_grad():
            rows = [judges.inception(to_unit(chunk)) for chunk in _chunks(every)]
        side.inception[judges.inception.judge] = torch.cat(rows)
    if judges.syncnet is not None and wave is not None:
        own = _own_box(video, judges.syncnet_share, frames)
        seen, heard = _sync_embeddings(
            judges.syncnet, video.crops(own, judges.syncnet.image_size, frames), wave, frames
        )
        side.visual[judges.syncnet.judge] = seen
        side.audio[judges.syncnet.judge] = heard
    if judges.rigid_syncer is not None and wave is not None:
        _add_rigid_embeddings(side, judges.rigid_syncer, wave)
    return side


def _add_rigid_embeddings(side: Side, network: RigidSyncer, wave: Wave) -> None:
    """Embeddings of the whole runs of a clip; a shorter clip gets none."""
    run = rigid_run(network)
    if side.frames < run:
        return
    levels = network.embed_clip(ibug_points(side.landmarks), torch.from_numpy(wave), run)
    for scale, (points, audio) in zip(network.scales, levels, strict=True):
        side.rigid_points[str(scale)], side.rigid_audio[str(scale)] = points, audio


def _embedded(video: Video, frames: int, judge: FaceJudge, every: int) -> Tensor:
    """Embeddings ``(n, D)`` of every so many-th frame; NaN where the face was lost."""
    box = _own_box(video, judge.face_share, frames)
    points = to_crop_units(video.points[:frames], box) * judge.size
    chosen = np.arange(0, frames, every)
    crops = itertools.islice(video.crops(box, judge.size, frames), 0, None, every)
    rows = []
    for start, chunk in enumerate(_chunks(crops)):
        at = chosen[start * CHUNK_FRAMES :][: len(chunk)]
        found = judge.embed(chunk, points[at]).float()
        found[torch.from_numpy(~video.tracked[at])] = math.nan
        rows.append(found)
    return torch.cat(rows)


def _sync_embeddings(
    network: SyncNet, pictures: Iterator[Picture], wave: Wave, frames: int
) -> tuple[Tensor, Tensor]:
    """Visual and audio embeddings of every window, ``(T - 5, D)`` each."""
    count = mfcc_window_count(frames)
    windows = mfcc_windows(mfcc(torch.from_numpy(wave)), torch.arange(count))
    seen: list[Tensor] = []
    kept: Picture | None = None
    with torch.no_grad():
        for chunk in _chunks(pictures):
            # The last frames of a chunk begin windows that end in the next one.
            run = chunk if kept is None else np.concatenate([kept, chunk])
            kept = run[-(WINDOW_FRAMES - 1) :]
            if len(run) >= WINDOW_FRAMES:
                seen.append(network.visual(2.0 * to_unit(run)[None] - 1.0)[0])
        heard = [network.audio(part) for part in windows.split(CHUNK_FRAMES)]
    return torch.cat(seen)[:count], torch.cat(heard)
