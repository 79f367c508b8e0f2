from __future__ import annotations

import numpy as np
import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.metrics.correlation import best_lag, correlation


def curves(frames: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, 3, generator=torch.Generator().manual_seed(seed)).cumsum(0)


def test_equals_numpy_column_by_column() -> None:
    a, b = curves(), curves(seed=1)
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(3)]
    assert correlation(a, b).tolist() == pytest.approx(expected, abs=1e-6)


def test_scale_and_shift_do_not_count_and_sign_does() -> None:
    a = curves()
    factors = torch.tensor([2.0, -0.5, 10.0])
    assert correlation(a, factors * a + 3.0).tolist() == pytest.approx([1.0, -1.0, 1.0])
    still = a.clone()
    still[:, 1] = 4.0
    assert correlation(a, still)[1].item() == 0.0


@pytest.mark.parametrize("lag", [-5, -1, 0, 3, 8])
def test_a_known_lag_is_found(lag: int) -> None:
    source = curves(100)
    first, second = source[20:70], source[20 - lag : 75 - lag]
    found, means = best_lag(first, second)
    assert found == lag
    assert len(means) == 17
    assert means[lag + 8].item() == pytest.approx(1.0)


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ShapeError, match="frames they share"):
        correlation(curves(5), curves(6))
    with pytest.raises(ShapeError, match="T >= 2"):
        correlation(curves(1), curves(1))
    with pytest.raises(ShapeError, match="T >= 2"):
        best_lag(curves(9), curves(9), max_lag=8)
