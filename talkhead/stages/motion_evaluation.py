"""Test-time bookkeeping of the motion priors: scores per clip, baselines, pooled distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from talkhead.metrics.fid_dfm import fid_dfm
from talkhead.metrics.fid_fm import fid_fm
from talkhead.metrics.frechet import FrechetDistance
from talkhead.metrics.multimodality import pairwise_distance
from talkhead.metrics.sequences import Standard
from talkhead.metrics.variance import motion_variance
from talkhead.ranks import gather_lists, gather_rows

MIN_FRAMES = 8
"""Shortest clip that is scored; its halves still have differences to compare."""

VARIANTS = ("model", "gt", "floor", "mean", "shuffled")
"""The model; the real motion itself, for its Var; real against real (first against second half of a
clip); the training mean repeated; the real motion of another test clip."""

OWN_SCORES = ("var[", "border_jump[", "edit_jump[", "av_", "rigid_", "lmd_", "drift_")
"""Scores of motion by itself or against the sound, and of rendered motion: the real motion has them too."""


@dataclass(frozen=True)
class ClipSample:
    """Generated and real motion codes of one test run of frames.

    Attributes:
        clip: Clip id.
        start: First frame within the clip.
        generated: ``(K, T, D)``, ``K`` takes.
        real: ``(T', D)``; ``T' == T`` except for the floor and shuffled baselines.
        audio: ``(T', Da)`` features the takes were made from.
        variant: One of :data:`VARIANTS`.
    """

    clip: str
    start: int
    generated: Tensor
    real: Tensor
    audio: Tensor
    variant: str = "model"


ClipEvaluator = Callable[[ClipSample], Mapping[str, float]]
"""Further scores of a clip, by name with the space in brackets, such as ``"snd[readout]"``."""


def motion_scores(
    generated: Tensor, real: Tensor, standard: Standard | None, space: str
) -> dict[str, float]:
    """Var, FID_fm, FID_dfm, SND and Multimodality of one clip.

    Args:
        generated: ``(K, T, D)`` takes; distances are averaged over them.
        real: ``(T', D)``.
        standard: Mean and deviation of the training split.
        space: Written in brackets behind every name, for example ``"code"``.

    Returns:
        Scores by name; Multimodality needs two takes. It is the exact mean over all pairs of takes.
    """
    targets = real.expand(generated.shape[0], *real.shape)
    still = fid_fm(generated, targets, standard=standard).mean().item()
    moving = fid_dfm(generated, targets, standard=standard).mean().item()
    scores = {
        "var": motion_variance(generated, standard=standard).mean().item(),
        "fid_fm": still,
        "fid_dfm": moving,
        "snd": still + moving,
    }
    if generated.shape[0] > 1:
        scores["multimodality"] = pairwise_distance(generated, standard=standard).mean().item()
    return {f"{name}[{space}]": value for name, value in scores.items()}


def baselines(sample: ClipSample, mean: Tensor, other: Tensor) -> list[ClipSample]:
    """What a model must beat, and the floor it cannot fall below, for one clip.

    Args:
        sample: The model's sample.
        mean: Training mean of the codes, ``(D,)``.
        other: Real codes of another clip, ``(T'', D)``.
    """
    half = sample.real.shape[0] // 2
    return [
        replace(sample, variant="gt", generated=sample.real[None]),
        replace(
            sample,
            variant="floor",
            generated=sample.real[None, :half],
            real=sample.real[half : 2 * half],
            audio=sample.audio[half : 2 * half],
        ),
        replace(sample, variant="mean", generated=mean.expand_as(sample.real)[None]),
        replace(sample, variant="shuffled", generated=other[None]),
    ]


def derangement(clips: Sequence[str]) -> list[int]:
    """For each run its clip is given of, the position of a run of another clip, the next if there is one."""
    count = len(clips)
    chosen = []
    for i, clip in enumerate(clips):
        steps = (i + k for k in range(1, count))
        others = (j % count for j in steps if clips[j % count] != clip)
        chosen.append(next(others, (i + 1) % count))
    return chosen


class PooledDistance:
    """SND over all frames of all clips at once, one pair of Gaussians a variant.

    Per-video distances of short clips are inflated by their own sampling error, the same for every
    model; the pooled one is not, but is blind to what differs between clips.
    """

    def __init__(self, dim: int, standard: Standard, variants: Sequence[str]) -> None:
        """Accumulators of width ``dim`` for each variant."""
        zero = (torch.zeros_like(standard[0]), standard[1])  # differences have no offset
        device = standard[0].device
        self.still = {v: FrechetDistance(dim, standard).to(device) for v in variants}
        self.moving = {v: FrechetDistance(dim, zero).to(device) for v in variants}

    def update(self, sample: ClipSample) -> None:
        """Add one clip's takes and its real codes."""
        for codes, real in ((sample.generated, False), (sample.real, True)):
            self.still[sample.variant].update(codes, real=real)
            self.moving[sample.variant].update(codes.diff(dim=-2), real=real)

    def compute(self, variant: str, space: str) -> dict[str, float]:
        """Pooled FID_fm, FID_dfm and SND of a variant, synchronised over ranks."""
        still = float(self.still[variant].compute())
        moving = float(self.moving[variant].compute())
        values = {"fid_fm_pooled": still, "fid_dfm_pooled": moving, "snd_pooled": still + moving}
        return {f"{name}[{space}]": value for name, value in values.items()}


class TestScores:
    """Collects scored samples of one test run and reduces them over clips and ranks.

    Attributes:
        samples: The model's samples, on the CPU.
        rows: Variant -> one row of scores a clip, ``{"clip", "start", name: value, …}``.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(
        self, evaluate: Callable[[ClipSample], Mapping[str, float]], standard: Standard, space: str
    ) -> None:
        """``evaluate`` scores one clip; ``standard`` and ``space`` as in :func:`motion_scores`."""
        self._evaluate, self._mean, self._space = evaluate, standard[0].cpu(), space
        self._pooled = PooledDistance(len(self._mean), standard, VARIANTS)
        self.samples: list[ClipSample] = []
        self.rows: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}

    def add(self, sample: ClipSample) -> None:
        """Score a sample of the model and keep it for the baselines."""
        self._record(sample)
        on_cpu = {name: getattr(sample, name).cpu() for name in ("generated", "real", "audio")}
        self.samples.append(replace(sample, **on_cpu))

    def finish(self) -> dict[str, float]:
        """Score the baselines; means over clips as ``<name>`` and ``<baseline>/<name>``."""
        everywhere = [(s.clip, s.start, s.real) for s in self.samples]
        known = {(clip, start): real for clip, start, real in gather_lists(everywhere)}
        order = sorted(known)
        other = dict(zip(order, derangement([clip for clip, _ in order]), strict=True))
        for item in self.samples:
            partner = known[order[other[item.clip, item.start]]]
            for baseline in baselines(item, self._mean, partner):
                self._record(baseline)
        means: dict[str, float] = {}
        for variant in VARIANTS:
            self.rows[variant] = gather_rows(self.rows[variant])
            scores = row_means(self.rows[variant]) | self._pooled.compute(variant, self._space)
            means |= _reported(variant, scores)
        return means

    def clip_rows(self) -> list[dict[str, Any]]:
        """One row a run of frames, after :meth:`finish`: the model's scores and those of every baseline."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for variant in VARIANTS:
            for row in self.rows[variant]:
                place = {name: row[name] for name in ("clip", "start")}
                scores = {name: value for name, value in row.items() if name not in place}
                known = found.setdefault((row["clip"], row["start"]), place)
                known |= _reported(variant, scores)
        return list(found.values())

    def _record(self, sample: ClipSample) -> None:
        row = {"clip": sample.clip, "start": sample.start, **self._evaluate(sample)}
        self.rows[sample.variant].append(row)
        self._pooled.update(sample)


def _reported(variant: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's scores under their full names; without the real motion's distances to itself."""
    if variant == "model":
        return dict(scores)
    return {
        f"{variant}/{name}": value
        for name, value in scores.items()
        # A distance to itself says nothing unless rendering lies between.
        if variant != "gt" or name.startswith(OWN_SCORES) or "[retracked" in name
    }


def row_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean over rows of every float; rows without it, or where it is not finite, are left out."""
    names = dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, float))
    means = {}
    for name in names:
        values = [row[name] for row in rows if name in row and math.isfinite(row[name])]
        if values:
            means[name] = math.fsum(values) / len(values)
    return means
