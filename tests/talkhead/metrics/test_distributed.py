"""Two real processes must score what one scores, also when one of them has no data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from talkhead.metrics.frechet import FrechetDistance
from talkhead.metrics.leakage import LinearProbe
from talkhead.metrics.snd import SND

CLIPS = [f"speaker{i}/clip" for i in range(9)]


def motion(seed: int) -> torch.Tensor:
    return torch.randn(9, 30, 4, generator=torch.Generator().manual_seed(seed))


def scores(rows: list[int]) -> list[float]:
    """SND, pooled distance and probe of some clips, synchronised when a group exists."""
    ours, real = motion(0)[rows], motion(1)[rows]
    names = [CLIPS[i] for i in rows]
    snd, pooled, probe = SND(), FrechetDistance(4), LinearProbe(4, 4)
    if rows:
        snd.update(ours, real, clip=names)
        pooled.update(ours, real=False)
        pooled.update(real, real=True)
        probe.update(ours, real + ours, names)
    return [m.compute().item() for m in (snd, pooled, probe)]


def rank(index: int, folder: str, split: list[list[int]]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=index, world_size=2
    )
    torch.save(scores(split[index]), f"{folder}/rank{index}.pt")
    distributed.destroy_process_group()


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    mp.spawn(rank, (str(tmp_path), [[0, 1, 2, 3, 4], [5, 6, 7, 8]]), nprocs=2)
    expected = scores(list(range(9)))
    for index in range(2):
        assert torch.load(tmp_path / f"rank{index}.pt") == pytest.approx(expected, rel=1e-9)


def test_a_rank_without_clips_and_a_repeated_clip_change_nothing(tmp_path: Path) -> None:
    expected = SND()
    expected.update(motion(0), motion(1), clip=CLIPS)
    mp.spawn(lonely_rank, (str(tmp_path),), nprocs=2)
    for index in range(2):
        got = torch.load(tmp_path / f"rank{index}.pt")
        assert got[0] == pytest.approx(expected.compute().item(), rel=1e-9)
        assert got[1] == pytest.approx(expected.compute().item(), rel=1e-9)


def lonely_rank(index: int, folder: str) -> None:
    """Once with all clips on rank 0, once with the first clip on both ranks."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=index, world_size=2
    )
    alone, twice = SND(), SND()
    if index == 0:
        alone.update(motion(0), motion(1), clip=CLIPS)
        twice.update(motion(0)[:5], motion(1)[:5], clip=CLIPS[:5])
    else:
        rows = [0, 5, 6, 7, 8]
        twice.update(motion(0)[rows], motion(1)[rows], clip=[CLIPS[i] for i in rows])
    torch.save([alone.compute().item(), twice.compute().item()], f"{folder}/rank{index}.pt")
    distributed.destroy_process_group()
