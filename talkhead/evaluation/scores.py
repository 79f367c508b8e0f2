"""Scores of measured pairs: per clip, pooled over clips, and of real clips against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from talkhead.evaluation.measure import Side
from talkhead.geometry.motion import MotionModel
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
from talkhead.metrics.sequences import Standard, frame_differences, standardised
from talkhead.metrics.silence import silence_motion
from talkhead.metrics.snd import snd
from talkhead.metrics.sync_scores import sync_scores
from talkhead.metrics.variance import motion_variance
from talkhead.stages.syncnet import MIN_WINDOWS

SPACE = "descriptor"
"""Name that scores of motion descriptors carry."""
N_EXPRESSION = 16
_MIN_VALID = 8
"""Fewer frames with a face on both sides than this have no second moments worth comparing."""


@dataclass(frozen=True)
class MotionSpace:
    """What turns landmarks into the descriptors that motion is compared in.

    Attributes:
        model: Expression basis.
        standard: Mean and deviation of the descriptors.
        source: Where both come from, for the result.
    """

    model: MotionModel
    standard: Standard
    source: str

    @classmethod
    def of_clips(cls, names: Sequence[str], load: Callable[[str], Side]) -> MotionSpace:
        """Fitted on real clips: scores then compare on these clips only.

        Args:
            names: Names of the clips.
            load: A real clip by its name; each is read twice.

        Raises:
            DataError: Faces that never move.
        """
        model = MotionModel.fit((load(name).landmarks.numpy() for name in names), N_EXPRESSION)
        fitted = cls(model, (torch.zeros(model.dim), torch.ones(model.dim)), "")
        rows = torch.cat([fitted.encode(side)[side.tracked] for side in map(load, names)]).double()
        standard = (rows.mean(0), rows.std(0))
        return cls(model, standard, f"fitted on these {len(names)} real clips")

    def encode(self, side: Side) -> Tensor:
        """Descriptors of a clip, ``(T, D)``."""
        return torch.from_numpy(self.model.encode(side.landmarks.numpy()))


def cut(side: Side, start: int, stop: int) -> Side:
    """A run of frames without embeddings, which belong to other clocks."""
    silent = None if side.silent is None else side.silent[start:stop]
    return Side(side.landmarks[start:stop], side.tracked[start:stop], silent)


def scores_alone(side: Side, space: MotionSpace) -> dict[str, float]:
    """What a video scores without another one to compare with.

    Returns:
        ``found``, ``blink_rate``, ``jitter[px256]``, ``silence_motion``, ``var[descriptor]``, and for each
        SyncNet ``sync_confidence``, ``sync_distance``, ``sync_offset`` (absolute) and ``sync_signed_offset``,
        for each scale of the rigid syncer ``rigid_offset_…`` (absolute) and ``rigid_confidence_…``. What
        the clip is too short or too silent for is NaN; without one whole run there are no rigid scores.
    """
    points, valid = ibug_points(side.landmarks), side.tracked
    scores = {"found": float(valid.double().mean())}
    names = ("blink_rate", "jitter[px256]", "silence_motion", f"var[{SPACE}]")
    scores |= dict.fromkeys(names, math.nan)
    if _moves(side):
        motion = space.encode(side)
        scores[names[0]] = float(blink_rate(points, valid))
        if bool(valid.unfold(0, 4, 1).all(-1).any()):
            scores[names[1]] = float(jitter(points, valid))
        if side.silent is not None:
            scores[names[2]] = float(silence_motion(points, side.silent, valid))
        scores[names[3]] = float(motion_variance(motion, valid, standard=space.standard))
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


def scores_against(generated: Side, reference: Side, space: MotionSpace) -> dict[str, float]:
    """What one video scores against another, frame by frame or as motion.

    Args:
        generated: The video judged.
        reference: What it should be; the longer one is cut.
        space: Motion descriptors.

    Returns:
        Distances of landmarks, parts and readings, CSIM and the motion distances per video, by name.
    """
    frames = min(generated.frames, reference.frames)
    ours, theirs = cut(generated, 0, frames), cut(reference, 0, frames)
    both = ours.tracked & theirs.tracked
    scores = identity_scores(generated, reference)
    if int(both.sum()) < _MIN_VALID:
        return scores
    points = (ibug_points(ours.landmarks), ibug_points(theirs.landmarks), both)
    scores |= {
        "lmd_mouth[px256]": float(m_lmd(*points)),
        "lmd_mouth[inter_ocular]": float(m_lmd(*points, unit="inter_ocular")),
        "lmd_frontal[px256]": float(frontal_lmd(*points)),
        "lmd_frontal[inter_ocular]": float(frontal_lmd(*points, unit="inter_ocular")),
        "lmd_face[px256]": float(f_lmd(*points)),
        "lmd_face[inter_ocular]": float(f_lmd(*points, unit="inter_ocular")),
    }
    marks = (ours.landmarks[both], theirs.landmarks[both])
    scores |= {
        "blink_distance": float(blink_distance(*marks)),
        "gaze_distance": float(gaze_distance(*marks)),
        "mouth_distance": float(mouth_distance(*marks)),
    }
    scores |= reading_scores(generated, reference, both)
    moves = [standardised(space.encode(side), space.standard) for side in (ours, theirs)]
    for name, columns in (("expression", "expression"), ("pose", "rotation")):
        part = space.model.layout[columns]
        apart = descriptor_distance(moves[0][both][:, part], moves[1][both][:, part])
        scores[f"{name}_distance[{SPACE}]"] = float(apart)
    return scores | motion_scores(generated, reference, space)


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


def motion_scores(generated: Side, reference: Side, space: MotionSpace) -> dict[str, float]:
    """FID_fm, FID_dfm and SND of one video; the two need not be of one length."""
    sides = (space.encode(generated), space.encode(reference), generated.tracked, reference.tracked)
    if not (_moves(generated) and _moves(reference)):
        return {}
    still = float(fid_fm(*sides, standard=space.standard))
    moving = float(fid_dfm(*sides, standard=space.standard))
    return {
        f"fid_fm[{SPACE}]": still,
        f"fid_dfm[{SPACE}]": moving,
        f"snd[{SPACE}]": still + moving,
    }


def _moves(side: Side) -> bool:
    """Whether enough frames, and enough neighbouring ones, show a face."""
    steps = int((side.tracked[1:] & side.tracked[:-1]).sum())
    return int(side.tracked.sum()) >= _MIN_VALID and steps >= _MIN_VALID - 1


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


def scores_shuffled(reference: Side, other: Side, space: MotionSpace) -> dict[str, float]:
    """A real clip that stands in for another: what right pictures of the wrong moment score.

    Sync is that of the clip's pictures with the other's sound.
    """
    scores = scores_against(other, reference, space)
    for name in reference.visual.keys() & other.audio.keys():
        windows = min(len(reference.visual[name]), len(other.audio[name]))
        scores |= sync(reference.visual[name][:windows], other.audio[name][:windows], name)
    if reference.rigid_points.keys() == other.rigid_audio.keys():
        scores |= rigid_sync(reference.rigid_points, other.rigid_audio)
    return scores


def scores_floor(reference: Side, space: MotionSpace) -> dict[str, float]:
    """The second half of a real clip as if generated for the first: what perfect results would score."""
    scores = identity_scores(*halves(reference))
    if int(reference.tracked.sum()) < _MIN_VALID:
        return scores
    motion = space.encode(reference)
    for name, distance in (("fid_fm", fid_fm), ("fid_dfm", fid_dfm), ("snd", snd)):
        value = halves_floor(motion, reference.tracked, distance=distance, standard=space.standard)
        scores[f"{name}[{SPACE}]"] = float(value)
    return scores


class Pooled:
    """Distances over all clips at once: FID of pictures, and motion as one Gaussian a side."""

    def __init__(self, space: MotionSpace) -> None:
        """Nothing is known before the first clip."""
        self._space = space
        mean, std = space.standard
        self._still = FrechetDistance(space.model.dim, space.standard)
        # Differences have no offset.
        self._moving = FrechetDistance(space.model.dim, (torch.zeros_like(mean), std))
        self._rows: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def add(self, generated: Side, reference: Side) -> None:
        """Add one pair."""
        for real, side in ((False, generated), (True, reference)):
            motion = self._space.encode(side)
            self._still.update(motion, real=real, valid=side.tracked)
            self._moving.update(frame_differences(motion, side.tracked), real=real)
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
        still, moving = float(self._still.compute()), float(self._moving.compute())
        values = {"fid_fm_pooled": still, "fid_dfm_pooled": moving, "snd_pooled": still + moving}
        return scores | {f"{name}[{SPACE}]": value for name, value in values.items()}


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
