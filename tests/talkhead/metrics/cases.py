"""Every metric class with seven clips to score and shapes to refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.metrics.blinks import BlinkRate
from talkhead.metrics.csim import CSIM
from talkhead.metrics.diversity import DiversityRatio
from talkhead.metrics.fid import FID
from talkhead.metrics.fid_dfm import FIDdfm
from talkhead.metrics.fid_fm import FIDfm, FIDfmPooled
from talkhead.metrics.frechet import FrechetDistance
from talkhead.metrics.jitter import Jitter
from talkhead.metrics.leakage import LinearProbe
from talkhead.metrics.lmd import LandmarkDistance
from talkhead.metrics.lpips import LPIPS
from talkhead.metrics.multimodality import Multimodality
from talkhead.metrics.offset import OffsetAccuracy
from talkhead.metrics.part_distances import (
    DescriptorDistance,
    Part,
    PartError,
    ReadingDistance,
)
from talkhead.metrics.pictures import PSNR, SSIM
from talkhead.metrics.retrieval import WindowRetrieval
from talkhead.metrics.rigid_offset import RigidOffset
from talkhead.metrics.silence import SilenceMotion
from talkhead.metrics.snd import SND
from talkhead.metrics.spectrum import DistanceName, ProcessDistance, SequenceMoments
from talkhead.metrics.sync_scores import SyncOffsetAccuracy, SyncScore
from talkhead.metrics.variance import Variance
from talkhead.networks.gaze import GazeNet
from tests.talkhead.metrics.landmark_faces import noisy, with_opening

CLIPS = 7
NAMES = [f"speaker{i}/clip" for i in range(CLIPS)]


@dataclass(frozen=True)
class Case:
    """One metric class, set up in one way.

    Attributes:
        make: A fresh metric.
        add: Adds the clips of some numbers, together where the metric takes batches.
        misfits: Updates whose shapes do not fit.
        once: Whether a clip of one name counts once however often it comes.
    """

    make: Callable[[], Metric]
    add: Callable[[Any, list[int]], None]
    misfits: tuple[Callable[[Any], object], ...]
    once: bool = True


def score(metric: Metric) -> dict[str, float]:
    """All numbers of a metric by name."""
    found = metric.compute()
    named = found if isinstance(found, dict) else {"value": found}
    return {name: float(value) for name, value in named.items()}


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Channels(nn.Module):
    """Mean of every channel: three features of a picture."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))


class Apart(nn.Module):
    """Mean difference of two pictures."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean((1, 2, 3))


def _batches(
    make: Callable[[], Metric], *data: Tensor, misfits: tuple[Callable[[Any], object], ...]
) -> Case:
    """A metric that takes batches of named clips; one name for two clips does not fit either."""

    def add(metric: Any, rows: list[int]) -> None:
        metric.update(*(side[rows] for side in data), clip=[NAMES[i] for i in rows])

    def nameless(metric: Any) -> None:
        metric.update(*(side[:2] for side in data), clip=NAMES[:1])

    return Case(make, add, (*misfits, nameless))


def _singles(
    make: Callable[[], Metric], *data: Tensor, misfits: tuple[Callable[[Any], object], ...]
) -> Case:
    """A metric that takes one clip at a time."""

    def add(metric: Any, rows: list[int]) -> None:
        for i in rows:
            metric.update(*(side[i] for side in data), clip=NAMES[i])

    return Case(make, add, misfits)


def _pictures() -> dict[str, Case]:
    ours, real = (drawn(CLIPS, 5, 3, 12, 12, seed=s).sigmoid() for s in (0, 1))

    def add(metric: Any, rows: list[int]) -> None:
        metric.update(ours[rows].flatten(0, 1), real=False)
        metric.update(real[rows].flatten(0, 1), real=True)

    fid = (
        lambda m: m.update((real[0] * 255).to(torch.uint8), real=True),
        lambda m: m.update(real[0, :, :2], real=True),
        lambda m: m.update(real[0], real=True, valid=torch.ones(4)),
    )
    pair = (
        lambda m: m.update(ours[0], real[0, :4]),
        lambda m: m.update(ours[0, :, :2], real[0, :, :2]),
    )
    return {
        "fid": Case(lambda: FID(Channels(), 3), add, fid, once=False),
        "psnr": _singles(PSNR, ours, real, misfits=pair),
        "ssim": _singles(
            SSIM,
            ours,
            real,
            misfits=(*pair, lambda m: m.update(ours[0, :, :, :8], real[0, :, :, :8])),
        ),
        "lpips": _singles(lambda: LPIPS(Apart()), ours, real, misfits=pair),
    }


def _embeddings() -> dict[str, Case]:
    heard, seen = drawn(CLIPS, 40, 6, seed=2), drawn(CLIPS, 40, 6, seed=3)
    truth = torch.arange(CLIPS) - 3
    levels = [(drawn(CLIPS, n, 6, seed=n), drawn(CLIPS, n, 6, seed=n + 1)) for n in (40, 30, 20)]

    def shifts(metric: Any, rows: list[int]) -> None:
        metric.update(heard[rows], seen[rows], truth[rows])

    def windows(metric: Any, rows: list[int]) -> None:
        metric.update(heard[rows], seen[rows])

    def rigid(metric: Any, rows: list[int]) -> None:
        metric.update([(p[rows], a[rows]) for p, a in levels], [NAMES[i] for i in rows])

    unequal = (lambda m: m.update(heard, seen[:, 1:], truth),)
    wrong_truth = (
        lambda m: m.update(heard, seen, truth[:, None]),
        lambda m: m.update(heard, seen, truth[:1]),
        lambda m: m.update(heard, seen, truth, torch.ones(40, CLIPS)),
    )
    return {
        "csim": _batches(
            CSIM,
            seen,
            heard,
            misfits=(lambda m: m.update(seen, heard[:, 1:]), lambda m: m.update(seen, heard[1:])),
        ),
        "sync_scores": _batches(
            lambda: SyncScore(training_confidence=0.7),
            seen,
            heard,
            misfits=(lambda m: m.update(seen, heard[:, 1:]), lambda m: m.update(seen[0, 0], seen)),
        ),
        "sync_offset": Case(
            lambda: SyncOffsetAccuracy(tolerance=9), shifts, (*unequal, *wrong_truth), once=False
        ),
        "offset": Case(
            lambda: OffsetAccuracy(tolerance=9), shifts, (*unequal, *wrong_truth), once=False
        ),
        "retrieval": Case(
            WindowRetrieval, windows, (lambda m: m.update(heard, seen[:, 1:]),), once=False
        ),
        "rigid_offset": Case(
            RigidOffset,
            rigid,
            (
                lambda m: m.update(levels[:2]),
                lambda m: m.update([*levels[:2], (levels[2][0][1:], levels[2][1][1:])]),
                lambda m: m.update([*levels[:2], (levels[2][0], levels[2][1][:, 1:])]),
                lambda m: m.update(levels, NAMES[:1]),
            ),
        ),
    }


def _landmarks() -> dict[str, Case]:
    frames = 24
    ours, real = noisy(CLIPS, frames, seed=1), noisy(CLIPS, frames, seed=2)
    opening = torch.ones(CLIPS, frames, dtype=torch.float64)
    for clip in range(1, CLIPS, 2):
        opening[clip, 4 : 4 + clip] = 0.0
    silent = torch.arange(frames).expand(CLIPS, -1) < torch.arange(CLIPS)[:, None] * 4
    mesh = torch.zeros(CLIPS, frames, 478, 3)
    pair = (
        lambda m: m.update(ours, real[:, 1:]),
        lambda m: m.update(mesh, mesh),
        lambda m: m.update(ours, real, torch.ones(CLIPS, frames - 1)),
    )
    alone = (
        lambda m: m.update(mesh),
        lambda m: m.update(ours, torch.ones(CLIPS, frames - 1)),
    )
    kinds: dict[str, Callable[[], Metric]] = {
        "m_lmd": LandmarkDistance,
        "f_lmd": lambda: LandmarkDistance("face"),
        "frontal_lmd": lambda: LandmarkDistance("mouth", "frontal"),
        "lmd_by_eyes": lambda: LandmarkDistance("face", "frontal", "inter_ocular", centred=False),
    }
    lmd = {name: _batches(make, ours, real, misfits=pair) for name, make in kinds.items()}
    return lmd | {
        "jitter": _batches(Jitter, ours, misfits=alone),
        "blink_rate": _batches(BlinkRate, with_opening(opening), misfits=alone),
        "silence_motion": _batches(
            SilenceMotion,
            ours,
            silent,
            misfits=(
                lambda m: m.update(ours, silent[:, 1:]),
                lambda m: m.update(mesh, silent),
            ),
        ),
    }


def _parts() -> dict[str, Case]:
    face = torch.from_numpy(np.array(canonical_landmarks(), np.float64))
    ours, real = (face + 0.02 * drawn(CLIPS, 4, 478, 3, seed=s) for s in (4, 5))
    codes = [side[:, :, :3].flatten(2) for side in (ours, real)]
    standard = (torch.zeros(9), torch.arange(1.0, 10.0))
    pictures = drawn(CLIPS, 4, 3, 24, 24, seed=6).sigmoid().float()
    points = (0.5 + 0.3 * face).float().expand(CLIPS, 4, -1, -1)
    pair = (
        lambda m: m.update(ours, real[:, 1:]),
        lambda m: m.update(ours[:, :, :68], real[:, :, :68]),
        lambda m: m.update(ours, real, torch.ones(CLIPS, 3)),
    )
    descriptors = (
        lambda m: m.update(codes[0], codes[1][:, 1:]),
        lambda m: m.update(codes[0], codes[1][..., 1:]),
        lambda m: m.update(*codes, torch.ones(CLIPS, 3)),
    )
    parts: dict[str, Part] = {
        "blink_distance": "eyes",
        "gaze_distance": "irises",
        "mouth_distance": "mouth",
    }
    cases = {
        name: _batches(lambda part=part: PartError(part), ours, real, misfits=pair)  # type: ignore[misc]  # binds now
        for name, part in parts.items()
    }
    return cases | {
        "expression_distance": _batches(DescriptorDistance, *codes, misfits=descriptors),
        "pose_distance": _batches(
            lambda: DescriptorDistance(standard, "mean_square"), *codes, misfits=descriptors
        ),
        "reading_distance": _singles(
            lambda: ReadingDistance(gaze_network()),
            pictures,
            pictures**2,
            points,
            points,
            misfits=(
                lambda m: m.update(pictures[0], pictures[0, 1:], points[0], points[0]),
                lambda m: m.update(pictures[0], pictures[0], points[0], points[0, 1:]),
            ),
        ),
    }


def gaze_network() -> GazeNet:
    """A small one that reads nothing but differs from picture to picture."""
    torch.manual_seed(0)
    network = GazeNet(height=8, width=12, widths=[4, 8], dim=6).eval()
    network.set_statistics(torch.tensor([0.3, 0.3, 0.0, 0.0]), torch.tensor([0.1, 0.1, 0.5, 0.5]))
    return network


def _motion() -> dict[str, Case]:
    ours, real = (drawn(CLIPS, 30, 4, seed=s).cumsum(1) / 5 for s in (7, 8))
    standard = (torch.full((4,), 0.1), torch.tensor([1.0, 2.0, 0.5, 3.0]))
    mask = torch.ones(CLIPS, 29)
    pair = (
        lambda m: m.update(ours, real[1:]),
        lambda m: m.update(ours, real[..., :3]),
        lambda m: m.update(ours[0, 0], real[0, 0]),
        lambda m: m.update(ours, real, mask),
    )
    kinds: dict[str, type[Metric]] = {"fid_fm": FIDfm, "fid_dfm": FIDdfm, "snd": SND}
    cases = {
        name: _batches(lambda kind=kind: kind(standard), ours, real, misfits=pair)  # type: ignore[misc]  # binds now
        for name, kind in kinds.items()
    }

    def still(metric: Any, rows: list[int]) -> None:
        metric.update(ours[rows], real=False)
        metric.update(real[rows], real=True)

    def moving(metric: Any, rows: list[int]) -> None:
        metric.update(ours[rows].diff(dim=1), real=False)
        metric.update(real[rows].diff(dim=1), real=True)

    pooled = (
        lambda m: m.update(ours[..., :3], real=True),
        lambda m: m.update(ours, real=True, valid=mask),
        lambda m: m.update(ours, real=True, valid=torch.ones(30, CLIPS)),
    )
    return cases | {
        "fid_fm_pooled": Case(lambda: FIDfmPooled(4, standard), still, pooled, once=False),
        "fid_dfm_pooled": Case(lambda: FrechetDistance(4), moving, pooled, once=False),
        "var": _batches(
            Variance,
            ours,
            misfits=(lambda m: m.update(ours[0, 0]), lambda m: m.update(ours, mask)),
        ),
        **_takes(ours, real),
    }


def _takes(ours: Tensor, real: Tensor) -> dict[str, Case]:
    many = torch.stack([ours, real, ours + real, ours - real, 2.0 * ours], dim=1)
    law = [SequenceMoments.from_takes(real[:, :, :3] + i, 6) for i in range(CLIPS)]
    names: tuple[DistanceName, ...] = get_args(DistanceName)

    def processes(metric: Any, rows: list[int]) -> None:
        metric.update(many[rows][..., :3], [law[i] for i in rows], [NAMES[i] for i in rows])

    def probe(metric: Any, rows: list[int]) -> None:
        metric.update(ours[rows], real[rows, :, :2] + ours[rows, :, :2], [NAMES[i] for i in rows])

    wrong_law = (
        lambda m: m.update(many[:2, ..., :3], law[:1]),
        lambda m: m.update(many[:1], law[:1]),
        lambda m: m.update(many[:1, :1, :, :3], law[:1]),
        lambda m: m.update(many[:2, ..., :3], law[:2], NAMES[:1]),
    )
    distances = {
        f"process_{name}": Case(lambda name=name: ProcessDistance(name, 6), processes, wrong_law)  # type: ignore[misc]  # binds now
        for name in names
    }
    return distances | {
        "multimodality": _batches(
            lambda: Multimodality(pairs=3),
            many,
            misfits=(
                lambda m: m.update(many[:, :1]),
                lambda m: m.update(many[None]),
                lambda m: m.update(many, torch.ones(CLIPS + 1, 30)),
                lambda m: m.update(many, torch.ones(CLIPS, 29)),
            ),
        ),
        "diversity_ratio": _batches(
            DiversityRatio,
            many[:, :3],
            many[:, 2:],
            misfits=(
                lambda m: m.update(many, many[:1]),
                lambda m: m.update(many, many[..., 1:]),
                lambda m: m.update(many, many[:, :, 1:]),
                lambda m: m.update(many, many[:, :1]),
            ),
        ),
        "linear_probe": Case(
            lambda: LinearProbe(4, 2),
            probe,
            (
                lambda m: m.update(ours, real[..., :2], NAMES[:1]),
                lambda m: m.update(ours, real[1:, :, :2], NAMES),
                lambda m: m.update(ours[..., :1], real[..., :2], NAMES),
                lambda m: m.update(ours, real[:, 1:, :2], NAMES),
                lambda m: m.update(ours, real[..., :2], NAMES, torch.ones(CLIPS, 29)),
            ),
            once=False,
        ),
    }


CASES = _pictures() | _embeddings() | _landmarks() | _parts() | _motion()
