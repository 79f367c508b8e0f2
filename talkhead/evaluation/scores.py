"""Scores of measured pairs: per clip, pooled over clips, and of real clips against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from talkhead.evaluation.measure import Side
from talkhead.evaluation.spaces import MotionSpace, Spaces
from talkhead.geometry.points68 import ibug_points
from talkhead.metrics.blinks import blink_rate
from talkhead.metrics.csim import csim
from talkhead.metrics.fid_dfm import fid_dfm
from talkhead.metrics.fid_fm import fid_fm
from talkhead.metrics.floor import halves_floor
from talkhead.metrics.frechet import FrechetDistance, frechet_distance
from talkhead.metrics.jitter import jitter
from talkhead.metrics.lmd import f_lmd, frontal_lmd, m_lmd
from talkhead.metrics.part_distances import (
    blink_distance,
    descriptor_distance,
    distance_of_readings,
    gaze_distance,
    mouth_distance,
)
from talkhead.metrics.rigid_offset import rigid_offsets
from talkhead.metrics.sequences import frame_differences, standardised
from talkhead.metrics.silence import silence_motion
from talkhead.metrics.snd import snd
from talkhead.metrics.sync_scores import sync_scores
from talkhead.metrics.variance import motion_variance
from talkhead.stages.sync_clips import MIN_WINDOWS

_MIN_VALID = 8
"""Fewer frames with a face on both sides than this have no second moments worth comparing."""


def cut(side: Side, start: int, stop: int) -> Side:
    """A run of frames without embeddings, which belong to other clocks."""
    run = slice(start, stop)
    silent = None if side.silent is None else side.silent[run]
    coefficients = None if side.coefficients is None else side.coefficients[run]
    return Side(side.landmarks[run], side.tracked[run], silent, coefficients=coefficients)


def scores_alone(side: Side, spaces: Spaces) -> dict[str, float]:
    """What a video scores without another one to compare with.

    Returns:
        ``found``, ``blink_rate``, ``jitter[px256]``, ``silence_motion``, ``var[…]`` in every space that
        describes the clip; for each SyncNet ``sync_confidence``, ``sync_distance``, ``sync_offset``
        (absolute) and ``sync_signed_offset``; for each scale of the rigid syncer ``rigid_offset_…``
        (absolute) and ``rigid_confidence_…``. What the clip is too short or too silent for is NaN;
        without one whole run there are no rigid scores.
    """
    points, valid = ibug_points(side.landmarks), side.tracked
    scores = {"found": float(valid.double().mean())}
    names = ("blink_rate", "jitter[px256]", "silence_motion")
    scores |= dict.fromkeys(names, math.nan)
    if _moves(valid):
        scores[names[0]] = float(blink_rate(points, valid))
        if bool(valid.unfold(0, 4, 1).all(-1).any()):
            scores[names[1]] = float(jitter(points, valid))
        if side.silent is not None:
            scores[names[2]] = float(silence_motion(points, side.silent, valid))
    for space in spaces:
        described = space.describe(side)
        if described is not None:
            enough = _moves(described.valid)
            spread = motion_variance(*described, standard=space.standard) if enough else math.nan
            scores[f"var[{space.name}]"] = float(spread)
    for name in side.visual:
        scores |= sync(side.visual[name], side.audio[name], name)
    return scores | rigid_sync(side.rigid_points, side.rigid_audio)


def rigid_sync(points: Mapping[str, Tensor], audio: Mapping[str, Tensor]) -> dict[str, float]:
    """The rigid syncer's scores of one clip, means over its runs; nothing for a clip without one."""
    scores = {}
    for scale in points:
        runs = min(len(points[scale]), len(audio[scale]))
        found = rigid_offsets([(points[scale][:runs], audio[scale][:runs])])
        offset, confidence = found.offset.double().abs().mean(), found.confidence.mean()
        scores[f"rigid_offset_{scale}ms[rigid_syncer]"] = float(offset)
        scores[f"rigid_confidence_{scale}ms[rigid_syncer]"] = float(confidence)
    return scores


def sync(visual: Tensor, audio: Tensor, space: str) -> dict[str, float]:
    """SyncNet's scores of one clip; NaN where it has too few windows for the shifts tried."""
    names = ("sync_confidence", "sync_distance", "sync_offset", "sync_signed_offset")
    values = (math.nan,) * 4
    if len(visual) >= MIN_WINDOWS:
        found = sync_scores(visual, audio)
        offset = float(found.offset)
        values = (float(found.lse_c), float(found.lse_d), abs(offset), offset)
    return {f"{name}[{space}]": value for name, value in zip(names, values, strict=True)}


def scores_against(generated: Side, reference: Side, spaces: Spaces) -> dict[str, float]:
    """What one video scores against another, frame by frame or as motion.

    Args:
        generated: The video judged.
        reference: What it should be; the longer one is cut.
        spaces: Motion descriptors.

    Returns:
        Distances of landmarks, parts and readings, CSIM and the motion distances per video, by name.
    """
    frames = min(generated.frames, reference.frames)
    ours, theirs = cut(generated, 0, frames), cut(reference, 0, frames)
    both = ours.tracked & theirs.tracked
    scores = identity_scores(generated, reference)
    if int(both.sum()) >= _MIN_VALID:
        scores |= _landmark_scores(ours, theirs, both) | reading_scores(generated, reference, both)
    for space in spaces:
        scores |= _descriptor_distances(ours, theirs, space)
    return scores | motion_scores(generated, reference, spaces)


def _landmark_scores(ours: Side, theirs: Side, both: Tensor) -> dict[str, float]:
    """Distances of landmarks over the frames in which both faces are seen."""
    points = (ibug_points(ours.landmarks), ibug_points(theirs.landmarks), both)
    marks = (ours.landmarks[both], theirs.landmarks[both])
    return {
        "lmd_mouth[px256]": float(m_lmd(*points)),
        "lmd_mouth[inter_ocular]": float(m_lmd(*points, unit="inter_ocular")),
        "lmd_frontal[px256]": float(frontal_lmd(*points)),
        "lmd_frontal[inter_ocular]": float(frontal_lmd(*points, unit="inter_ocular")),
        "lmd_face[px256]": float(f_lmd(*points)),
        "lmd_face[inter_ocular]": float(f_lmd(*points, unit="inter_ocular")),
        "blink_distance": float(blink_distance(*marks)),
        "gaze_distance": float(gaze_distance(*marks)),
        "mouth_distance": float(mouth_distance(*marks)),
    }


def _descriptor_distances(ours: Side, theirs: Side, space: MotionSpace) -> dict[str, float]:
    """E_d and P_d of two clips of one length, where both are described."""
    made, real = space.describe(ours), space.describe(theirs)
    if made is None or real is None:
        return {}
    both = made.valid & real.valid
    if int(both.sum()) < _MIN_VALID:
        return {}
    moves = [standardised(side.motion, space.standard)[both] for side in (made, real)]
    scores = {}
    for name, part in (("expression", "expression"), ("pose", "rotation")):
        columns = space.parts[part]
        apart = descriptor_distance(moves[0][:, columns], moves[1][:, columns])
        scores[f"{name}_distance[{space.name}]"] = float(apart)
    return scores


def reading_scores(generated: Side, reference: Side, valid: Tensor) -> dict[str, float]:
    """Distances of gaze and eye opening as networks read them, over the first frames, those ``valid``."""
    scores = {}
    for name in sorted(generated.readings.keys() & reference.readings.keys()):
        rows = [side.readings[name][: len(valid)] for side in (generated, reference)]
        gaze = distance_of_readings(rows[0], rows[1], valid, part="gaze")
        lids = distance_of_readings(rows[0], rows[1], valid, part="eyes")
        scores[f"gaze_reading_distance[{name}]"] = float(gaze)
        scores[f"lid_reading_distance[{name}]"] = float(lids)
    return scores


def motion_scores(generated: Side, reference: Side, spaces: Spaces) -> dict[str, float]:
    """FID_fm, FID_dfm and SND of one video in every space; the two need not be of one length."""
    scores: dict[str, float] = {}
    for space in spaces:
        ours, theirs = space.describe(generated), space.describe(reference)
        if ours is None or theirs is None or not (_moves(ours.valid) and _moves(theirs.valid)):
            continue
        sides = (ours.motion, theirs.motion, ours.valid, theirs.valid)
        still = float(fid_fm(*sides, standard=space.standard))
        moving = float(fid_dfm(*sides, standard=space.standard))
        scores |= {
            f"fid_fm[{space.name}]": still,
            f"fid_dfm[{space.name}]": moving,
            f"snd[{space.name}]": still + moving,
        }
    return scores


def _moves(valid: Tensor) -> bool:
    """Whether enough frames, and enough neighbouring ones, count."""
    steps = int((valid[1:] & valid[:-1]).sum())
    return int(valid.sum()) >= _MIN_VALID and steps >= _MIN_VALID - 1


def identity_scores(generated: Side, reference: Side) -> dict[str, float]:
    """CSIM in every space, frame against frame over the frames both have."""
    scores = {}
    for name in generated.identity.keys() & reference.identity.keys():
        rows = min(len(generated.identity[name]), len(reference.identity[name]))
        ours, theirs = generated.identity[name][:rows], reference.identity[name][:rows]
        valid = ours.isfinite().all(-1) & theirs.isfinite().all(-1)
        if bool(valid.any()):
            scores[f"csim[{name}]"] = float(csim(ours, theirs, valid))
    return dict(sorted(scores.items()))


def scores_shuffled(reference: Side, other: Side, spaces: Spaces) -> dict[str, float]:
    """A real clip that stands in for another: what right pictures of the wrong moment score.

    Sync is that of the clip's pictures with the other's sound.
    """
    scores = scores_against(other, reference, spaces)
    for name in reference.visual.keys() & other.audio.keys():
        windows = min(len(reference.visual[name]), len(other.audio[name]))
        scores |= sync(reference.visual[name][:windows], other.audio[name][:windows], name)
    if reference.rigid_points.keys() == other.rigid_audio.keys():
        scores |= rigid_sync(reference.rigid_points, other.rigid_audio)
    return scores


def scores_floor(reference: Side, spaces: Spaces) -> dict[str, float]:
    """The second half of a real clip as if generated for the first: what perfect results would score."""
    scores = identity_scores(*halves(reference))
    distances = (("fid_fm", fid_fm), ("fid_dfm", fid_dfm), ("snd", snd))
    for space in spaces:
        described = space.describe(reference)
        if described is None or int(described.valid.sum()) < _MIN_VALID:
            continue
        for name, distance in distances:
            value = halves_floor(*described, distance=distance, standard=space.standard)
            scores[f"{name}[{space.name}]"] = float(value)
    return scores


class Pooled:
    """Distances over all clips at once: FID of pictures, and motion as one Gaussian a side."""

    def __init__(self, spaces: Spaces) -> None:
        """Nothing is known before the first clip."""
        self._motion = [_PooledMotion(space) for space in spaces]
        self._rows: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def add(self, generated: Side, reference: Side) -> None:
        """Add one pair."""
        for motion in self._motion:
            motion.add(generated, reference)
        for real, side in ((False, generated), (True, reference)):
            # Only Inception's distance is FID; any other network's must not be read as one.
            named = {f"fid[{name}]": rows for name, rows in side.inception.items()}
            named |= {f"frechet[{name}]": rows for name, rows in side.identity.items()}
            for name, rows in named.items():
                kept = rows[rows.isfinite().all(-1)]
                self._rows.setdefault(name, ([], []))[int(real)].append(kept)

    def compute(self) -> dict[str, float]:
        """``fid[…]``, ``frechet[…]``, pooled FID_fm, FID_dfm and SND; NaN where rows are too few."""
        scores = {}
        for name, sides in sorted(self._rows.items()):
            ours, theirs = torch.cat(sides[0]), torch.cat(sides[1])
            enough = min(len(ours), len(theirs)) > 1
            scores[name] = float(frechet_distance(ours, theirs)) if enough else math.nan
        for motion in self._motion:
            scores |= motion.compute()
        return scores


class _PooledMotion:
    """FID_fm, FID_dfm and SND of one space over the pairs that it describes on both sides."""

    def __init__(self, space: MotionSpace) -> None:
        self._space, self._pairs = space, 0
        mean, std = space.standard
        self._still = FrechetDistance(space.dim, space.standard)
        # Differences have no offset.
        self._moving = FrechetDistance(space.dim, (torch.zeros_like(mean), std))

    def add(self, generated: Side, reference: Side) -> None:
        ours, theirs = self._space.describe(generated), self._space.describe(reference)
        if ours is None or theirs is None:
            return
        self._pairs += 1
        for real, side in ((False, ours), (True, theirs)):
            self._still.update(side.motion, real=real, valid=side.valid)
            self._moving.update(frame_differences(*side), real=real)

    def compute(self) -> dict[str, float]:
        if self._pairs == 0:
            return {}
        still, moving = float(self._still.compute()), float(self._moving.compute())
        values = {"fid_fm_pooled": still, "fid_dfm_pooled": moving, "snd_pooled": still + moving}
        return {f"{name}[{self._space.name}]": value for name, value in values.items()}


def halves(side: Side) -> tuple[Side, Side]:
    """Second and first half of a clip with its embeddings of pictures."""
    half = side.frames // 2
    parts = []
    for number in (1, 0):
        part = cut(side, number * half, (number + 1) * half)
        for kind in ("identity", "inception"):
            for name, rows in getattr(side, kind).items():
                size = len(rows) // 2
                getattr(part, kind)[name] = rows[number * size : (number + 1) * size]
        parts.append(part)
    return parts[0], parts[1]
