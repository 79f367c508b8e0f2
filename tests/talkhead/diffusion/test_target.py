from __future__ import annotations

import pytest
import torch

from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.diffusion.target import Target, from_x0, to_x0
from talkhead.errors import ConfigError

KINDS: tuple[Target, ...] = ("x0", "eps", "v")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 400, 990])
def test_round_trip(kind: Target, n: int) -> None:
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    alpha, sigma = schedule.alpha[n], schedule.sigma[n]
    x = alpha * x0 + sigma * eps
    prediction = from_x0(kind, x0, x, alpha, sigma)
    expected = {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0}[kind]
    torch.testing.assert_close(prediction, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(to_x0(kind, prediction, x, alpha, sigma), x0, rtol=1e-6, atol=1e-6)


def test_hand_value() -> None:
    alpha, sigma = torch.tensor(0.6), torch.tensor(0.8)
    x = alpha * 2.0 + sigma * -1.0  # 0.4
    assert float(to_x0("eps", torch.tensor(-1.0), x, alpha, sigma)) == pytest.approx(2.0)
    assert float(from_x0("v", torch.tensor(2.0), x, alpha, sigma)) == pytest.approx(-2.2)


def test_unknown_kind() -> None:
    one = torch.ones(1)
    with pytest.raises(ConfigError, match="x0, eps, v"):
        to_x0("score", one, one, one, one)  # type: ignore[arg-type]  # what a YAML file could hold
    with pytest.raises(ConfigError, match="x0, eps, v"):
        from_x0("score", one, one, one, one)  # type: ignore[arg-type]  # as above
