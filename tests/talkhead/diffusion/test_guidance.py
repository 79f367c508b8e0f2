from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.diffusion.guidance import guided_denoiser


class _Network:
    """Answers ``x * weight + condition`` and counts rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, n: Tensor, condition: Tensor, extra: Tensor | None) -> Tensor:
        assert x.shape[0] == n.shape[0] == condition.shape[0]
        self.rows.append(x.shape[0])
        return 0.5 * x + condition + n[:, None, None]


@pytest.mark.parametrize(("scale", "rows"), [(0.0, 3), (1.0, 3), (2.5, 6), (-1.0, 6)])
def test_formula_and_cost(scale: float, rows: int) -> None:
    network = _Network()
    generator = torch.Generator().manual_seed(0)
    x, condition, null = torch.randn(3, 3, 4, 2, generator=generator)
    n = torch.tensor([5, 6, 7])
    guided = guided_denoiser(network, (condition, None), (null, None), scale)
    got = guided(x, n)
    plain = _Network()
    expected = scale * plain(x, n, condition, None) + (1 - scale) * plain(x, n, null, None)
    torch.testing.assert_close(got, expected)
    assert network.rows == [rows]
    uncond, cond = plain(x, n, null, None), plain(x, n, condition, None)
    torch.testing.assert_close(got, uncond + scale * (cond - uncond))


def test_conditions_are_stacked_once() -> None:
    seen: list[int] = []

    def network(x: Tensor, n: Tensor, condition: Tensor) -> Tensor:
        seen.append(condition.data_ptr())
        return x

    guided = guided_denoiser(network, (torch.ones(1, 2, 2),), (torch.zeros(1, 2, 2),), 2.0)
    for _ in range(3):
        guided(torch.zeros(1, 2, 2), torch.tensor([1]))
    assert len(set(seen)) == 1
