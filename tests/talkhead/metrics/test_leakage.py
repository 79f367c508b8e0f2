from __future__ import annotations

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.metrics.leakage import LinearProbe, linear_probe
from talkhead.metrics.sequences import clip_key


def clips(count: int = 12, frames: int = 80, seed: int = 0) -> tuple[list[torch.Tensor], ...]:
    """Codes whose first half carries the truth and whose second half is noise."""
    generator = torch.Generator().manual_seed(seed)
    truth = [torch.randn(frames, 3, generator=generator) for _ in range(count)]
    mix = torch.randn(3, 6, generator=generator)
    noise = [torch.randn(frames, 6, generator=generator) for _ in range(count)]
    carried = [t @ mix + 0.5 * torch.randn(frames, 6, generator=generator) for t in truth]
    return truth, carried, noise


def test_probe_reads_what_is_there_and_nothing_else() -> None:
    truth, carried, noise = clips()
    names = [str(i) for i in range(len(truth))]
    read = linear_probe(carried, truth, names)
    assert read.min() > 0.45
    assert read.mean() > 0.7
    assert linear_probe(noise, truth, names).abs().max() < 0.03


def test_probe_is_scored_on_unseen_clips() -> None:
    # A code that only names its clip explains the training clips perfectly, unseen ones not.
    truth, _, _ = clips(count=8)
    level = [t + 3.0 * i for i, t in enumerate(truth)]
    names = [f"clip{i}" for i in range(8)]
    one_hot = [torch.eye(8)[i].expand(80, 8) for i in range(8)]
    assert linear_probe(one_hot, level, names, folds=8).max() < 0.0


def test_metric_depends_on_neither_order_nor_batches() -> None:
    truth, carried, _ = clips(count=15)
    names = [f"s{i}/c" for i in range(15)]
    assert len({clip_key(n) % 5 for n in names}) >= 3
    codes, states = torch.stack(carried), torch.stack(truth)
    whole, parts = LinearProbe(6, 3), LinearProbe(6, 3)
    whole.update(codes, states, names)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1)).tolist()
    for i in order:
        parts.update(codes[i : i + 1], states[i : i + 1], [names[i]])
    assert parts.compute().item() == pytest.approx(whole.compute().item(), rel=1e-9)
    assert whole.compute_per_entry().shape == (3,)
    assert whole.compute() > 0.7


def test_metric_ignores_padding() -> None:
    truth, carried, _ = clips(count=15)
    names = [f"s{i}/c" for i in range(15)]
    codes, states = torch.stack(carried), torch.stack(truth)
    plain, masked = LinearProbe(6, 3), LinearProbe(6, 3)
    plain.update(codes[:, :70], states[:, :70], names)
    states[:, 70:] = 1e6
    masked.update(codes, states, names, (torch.arange(80) < 70).expand(15, -1))
    assert masked.compute().item() == pytest.approx(plain.compute().item(), rel=1e-9)


def test_too_few_clips_are_refused() -> None:
    truth, carried, _ = clips(count=2)
    with pytest.raises(ShapeError, match="at least 3 folds"):
        linear_probe(carried, truth, ["a", "b"])
    with pytest.raises(ShapeError, match="one code, truth and name"):
        linear_probe(carried, truth, ["a"])
