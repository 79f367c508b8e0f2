"""Two real processes must score what one scores, also when one of them has no data."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from talkhead.metrics.frechet import FrechetDistance
from talkhead.metrics.leakage import LinearProbe
from talkhead.metrics.lpips import LPIPS
from talkhead.metrics.snd import SND

CLIPS = [f"speaker{i}/clip" for i in range(9)]


def motion(seed: int) -> torch.Tensor:
    return torch.randn(9, 30, 4, generator=torch.Generator().manual_seed(seed))


class Apart(torch.nn.Module):
    """Mean difference of two pictures."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3))


def scores(rows: list[int]) -> list[float]:
    """SND, pooled distance, probe and LPIPS of some clips, synchronised when a group exists."""
    ours, real = motion(0)[rows], motion(1)[rows]
    names = [CLIPS[i] for i in rows]
    snd, pooled, probe = SND(), FrechetDistance(4), LinearProbe(4, 4)
    snd.update(ours, real, clip=names)
    pooled.update(ours, real=False)
    pooled.update(real, real=True)
    probe.update(ours, real + ours, names)
    pictures = LPIPS(Apart())
    for g, r, name in zip(ours, real, names, strict=True):
        pictures.update(g.view(10, 3, 2, 2).sigmoid(), r.view(10, 3, 2, 2).sigmoid(), clip=name)
    return [m.compute().item() for m in (snd, pooled, probe, pictures)]


def rank(index: int, folder: str) -> None:
    """Three splits: half the clips each, all on rank 0, and the first clip on both."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=index, world_size=2
    )
    halves = scores([[0, 1, 2, 3, 4], [5, 6, 7, 8]][index])
    alone, twice = SND(), SND()
    if index == 0:
        alone.update(motion(0), motion(1), clip=CLIPS)
    rows = [[0, 1, 2, 3, 4], [0, 5, 6, 7, 8]][index]
    twice.update(motion(0)[rows], motion(1)[rows], clip=[CLIPS[i] for i in rows])
    with warnings.catch_warnings():
        # Rank 1 computes without an update of its own: the case under test.
        warnings.simplefilter("ignore", UserWarning)
        lonely = alone.compute().item()
    torch.save([*halves, lonely, twice.compute().item()], f"{folder}/rank{index}.pt")
    distributed.destroy_process_group()


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    spawn(rank, (str(tmp_path),), nprocs=2)
    expected = scores(list(range(9)))
    for index in range(2):
        got = torch.load(tmp_path / f"rank{index}.pt")
        assert got[:4] == pytest.approx(expected, rel=1e-9)
        assert got[4:] == pytest.approx([expected[0]] * 2, rel=1e-9)
