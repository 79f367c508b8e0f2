from __future__ import annotations

import numpy as np
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


def test_a_code_that_holds_the_truth_is_read_perfectly_and_noise_takes_its_share() -> None:
    """With noise of deviation ``s`` a line through unit truth explains ``1 / (1 + s^2)``."""
    generator = torch.Generator().manual_seed(1)
    truth = [torch.randn(4000, 2, generator=generator).double() for _ in range(6)]
    names = [f"clip{i}" for i in range(6)]
    turned = [t @ torch.tensor([[2.0, 1.0], [0.0, -3.0]]).double() + 5.0 for t in truth]
    assert linear_probe(turned, truth, names).tolist() == pytest.approx([1.0, 1.0], abs=1e-9)
    for size in (0.5, 1.0, 2.0):
        noisy = [t + size * torch.randn(4000, 2, generator=generator) for t in truth]
        expected = [1 / (1 + size**2)] * 2
        assert linear_probe(noisy, truth, names).tolist() == pytest.approx(expected, abs=0.01)


def test_equals_least_squares_on_the_clips_left_out() -> None:
    truth, carried, _ = clips(count=3, frames=20)
    errors, spreads = np.zeros(3), np.zeros(3)
    for out in range(3):
        kept = [i for i in range(3) if i != out]
        rows, wanted = (
            np.concatenate([side[i].double().numpy() for i in kept]) for side in (carried, truth)
        )
        weight = np.linalg.lstsq(np.c_[rows, np.ones(40)], wanted, rcond=None)[0]
        read = np.c_[carried[out].double().numpy(), np.ones(20)] @ weight
        held = truth[out].double().numpy()
        errors += ((read - held) ** 2).sum(0)
        spreads += ((held - held.mean(0)) ** 2).sum(0)
    found = linear_probe(carried, truth, ["a", "b", "c"], folds=3, alphas=[1e-12])
    assert found.tolist() == pytest.approx((1 - errors / spreads).tolist(), rel=1e-6)


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


def test_what_does_not_fit_is_refused() -> None:
    probe, names = LinearProbe(6, 3), ["a", "b"]
    codes, states = torch.zeros(2, 9, 6), torch.zeros(2, 9, 3)
    for other, true, given in (
        (codes, states, ["a"]),
        (codes[..., :1], states, names),
        (codes, states[..., :1], names),
        (codes, states[:, 1:], names),
        (codes[0], states[0], names),
    ):
        with pytest.raises(ShapeError, match="one name a clip"):
            probe.update(other, true, given)
    with pytest.raises(ShapeError, match="one flag a frame"):
        probe.update(codes, states, names, torch.ones(9, 2))
