from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from talkhead.errors import ShapeError
from talkhead.ridge import RidgeSums, best_alpha, fit_ridge, r_squared, ridge_fits


def data(n: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    x = x * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0]) + 4.0
    y = x @ torch.randn(5, 2, generator=generator, dtype=torch.float64) + 1.0
    return x, y + 0.1 * torch.randn(n, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 2.0])
def test_equals_scikit_learn_on_standardised_inputs(alpha: float) -> None:
    x, y = data()
    fitted = ridge_fits(RidgeSums.of(x, y), [alpha])[0]
    scale = x.std(0, unbiased=False)
    referee = Ridge(alpha=alpha * len(x)).fit(((x - x.mean(0)) / scale).numpy(), y.numpy())
    expected = referee.predict(((x - x.mean(0)) / scale).numpy())
    np.testing.assert_allclose((x @ fitted.weight + fitted.bias).numpy(), expected, rtol=1e-8)


def test_error_from_sums_equals_error_from_rows() -> None:
    x, y = data()
    fitted = ridge_fits(RidgeSums.of(*data(seed=1)), [0.1])[0]
    expected = (y - x @ fitted.weight - fitted.bias).square().sum(0)
    torch.testing.assert_close(fitted.squared_error(RidgeSums.of(x, y)), expected)
    torch.testing.assert_close(RidgeSums.of(x, y).spread(), (y - y.mean(0)).square().sum(0))


def test_sums_add_and_subtract() -> None:
    x, y = data()
    both = RidgeSums.of(x[:80], y[:80]) + RidgeSums.of(x[80:], y[80:])
    torch.testing.assert_close(both.xy, RidgeSums.of(x, y).xy)
    torch.testing.assert_close((both - RidgeSums.of(x[:80], y[:80])).yy, y[80:].square().sum(0))


def test_constant_input_gets_no_weight() -> None:
    x, y = data()
    x[:, 2] = 7.0
    fitted = ridge_fits(RidgeSums.of(x, y), [1e-6])[0]
    assert fitted.weight[2].tolist() == [0.0, 0.0]
    assert torch.isfinite(fitted.weight).all()


def test_noise_asks_for_a_large_penalty_and_signal_for_a_small_one() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [
        RidgeSums.of(
            torch.randn(15, 10, generator=generator), torch.randn(15, 1, generator=generator)
        )
        for _ in range(4)
    ]
    assert best_alpha(noise, (1e-6, 100.0)) == 100.0
    x, y = data()
    folds = [RidgeSums.of(a, b) for a, b in zip(x.split(50), y.split(50), strict=True)]
    assert fit_ridge(folds, (1e-6, 100.0))[1] == 1e-6


def test_r_squared_is_nan_without_variance_and_folds_are_required() -> None:
    out = r_squared(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0]))
    assert out[0].item() == 0.75
    assert out[1].isnan()
    with pytest.raises(ShapeError, match="at least 2 folds"):
        best_alpha([RidgeSums.of(*data())])
    with pytest.raises(ShapeError, match="inputs"):
        RidgeSums.of(torch.zeros(3, 2), torch.zeros(4, 2))
