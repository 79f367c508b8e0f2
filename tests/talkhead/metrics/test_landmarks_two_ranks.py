"""The landmark and identity metrics score on two ranks what they score on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from talkhead.metrics.blinks import BlinkRate
from talkhead.metrics.csim import CSIM
from talkhead.metrics.jitter import Jitter
from talkhead.metrics.lmd import LandmarkDistance
from talkhead.metrics.silence import SilenceMotion
from tests.ranks import run_ranks
from tests.talkhead.metrics.landmark_faces import noisy, with_opening

CLIPS, FRAMES = 7, 24


def scores(rows: list[int]) -> Tensor:
    """Every metric of some clips, synchronised when a group exists; clips come one or three at a time."""
    ours, real = noisy(CLIPS, FRAMES, seed=1), noisy(CLIPS, FRAMES, seed=2)
    opening = torch.ones(CLIPS, FRAMES, dtype=torch.float64)
    for clip in range(1, CLIPS, 2):
        opening[clip, 4 : 4 + clip] = 0.0
    lids = with_opening(opening)
    silent = torch.arange(FRAMES).expand(CLIPS, -1) < torch.arange(CLIPS)[:, None] * 4
    codes = torch.randn(2, CLIPS, FRAMES, 8, generator=torch.Generator().manual_seed(3))
    distance, frontal = LandmarkDistance(), LandmarkDistance("face", "frontal", "inter_ocular")
    jitter, blinks, silence, identity = Jitter(), BlinkRate(), SilenceMotion(), CSIM()
    for part in (rows[:1], rows[1:4], rows[4:]):
        if not part:
            continue
        names = [f"speaker/clip{i}" for i in part]
        distance.update(ours[part], real[part], clip=names)
        frontal.update(ours[part], real[part], clip=names)
        jitter.update(ours[part], clip=names)
        blinks.update(lids[part], clip=names)
        silence.update(ours[part], silent[part], clip=names)
        identity.update(codes[0][part], codes[1][part], clip=names)
    metrics = (distance, frontal, jitter, blinks, silence, identity)
    return torch.stack([metric.compute() for metric in metrics])


def both_splits(rank: int, ranks: int) -> dict[str, Tensor]:
    """Clips in turns with one repeated to fill up, as a distributed sampler does, and a lonely last one."""
    turns = [i % CLIPS for i in range(rank, CLIPS + 1, ranks)]
    return {"turns": scores(turns), "lonely": scores([[0, 1, 2, 3, 4, 5], [6]][rank])}


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    expected = scores(list(range(CLIPS)))
    assert expected.isfinite().all()
    assert (expected != 0).all()
    for got in run_ranks(both_splits, tmp_path):
        for split in ("turns", "lonely"):
            assert got[split].tolist() == pytest.approx(expected.tolist(), rel=1e-12)
