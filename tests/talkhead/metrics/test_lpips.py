from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from talkhead.errors import ShapeError
from talkhead.metrics.lpips import CHUNK_FRAMES, LPIPS, lpips


class MeanDistance(nn.Module):
    """Mean absolute difference of two pictures, blurred by a dropout that evaluation switches off."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.drop((a - b).abs()).mean((1, 2, 3))
        return out


def _clip(frames: int, seed: int = 0) -> Tensor:
    return torch.rand(frames, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_by_hand_pictures_reach_the_network_in_minus_one_to_one() -> None:
    real = torch.full((2, 3, 8, 8), 0.5)
    real[1] += 0.1
    value = lpips(torch.full_like(real, 0.5), real, MeanDistance().eval())
    assert float(value) == pytest.approx((0.0 + 0.2) / 2, abs=1e-6)


def test_perfect_clips_and_more_noise() -> None:
    real, noise = _clip(3), _clip(3, 1) - 0.5
    values = [float(lpips(real + k * noise, real, MeanDistance().eval())) for k in (0, 0.1, 0.3)]
    assert values[0] == 0.0
    assert values[2] == pytest.approx(3 * values[1], rel=1e-5)


def test_long_clips_are_compared_in_pieces() -> None:
    frames = 2 * CHUNK_FRAMES + 3
    a, b = _clip(frames, 1), _clip(frames, 2)
    expected = 2 * (a.double() - b.double()).abs().mean()
    assert float(lpips(a, b, MeanDistance().eval())) == pytest.approx(float(expected), rel=1e-6)


def test_refuses_what_is_no_pair_of_clips() -> None:
    with pytest.raises(ShapeError, match="the same frames"):
        lpips(_clip(2), _clip(3), MeanDistance())


def test_mean_over_clips_counts_each_clip_once_and_the_network_stays_in_eval_mode() -> None:
    clips = {name: (_clip(n, n), _clip(n, n + 10)) for name, n in (("a", 2), ("b", 5))}
    metric = LPIPS(MeanDistance()).train()
    for name in ("a", "b", "a"):
        metric.update(*clips[name], clip=name)
    expected = [float(lpips(*pair, MeanDistance().eval())) for pair in clips.values()]
    assert float(metric.compute()) == pytest.approx(sum(expected) / 2, rel=1e-9)
