"""The repeated-pole process against independent referees."""

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.stats import multivariate_normal

from talkhead.corpus.autoregression import RepeatedPole, gaussian_log_likelihood


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_autocorrelation_is_the_transform_of_the_spectrum(order: int) -> None:
    process = RepeatedPole(6.0, order)
    grid = np.arange(4096) / 4096
    correlation = np.fft.ifft(process.spectrum(grid)).real
    assert process.spectrum(grid).mean() == pytest.approx(1.0)
    assert [process.autocorrelation(k) for k in range(30)] == pytest.approx(correlation[:30])
    assert process.autocorrelation(-5) == process.autocorrelation(5)


def test_double_pole_closed_form() -> None:
    """rho(k) = a^k (1 + k (1 - a^2) / (1 + a^2)), worked out by hand."""
    process = RepeatedPole(5.0, 2)
    a = process.pole
    expected = [a**k * (1 + k * (1 - a**2) / (1 + a**2)) for k in range(20)]
    assert [process.autocorrelation(k) for k in range(20)] == pytest.approx(expected)
    assert process.innovation_variance == pytest.approx((1 - a**2) ** 3 / (1 + a**2))


@pytest.mark.parametrize("order", [2, 3])
def test_samples_have_the_moments_from_the_first_frame_on(order: int) -> None:
    process = RepeatedPole(4.0, order)
    x = process.sample(12, 20_000, np.random.default_rng(0))
    measured = x @ x.T / x.shape[1]
    expected = toeplitz([process.autocorrelation(k) for k in range(12)])
    assert measured == pytest.approx(expected, abs=0.04)


def test_log_likelihood_is_that_of_the_joint_normal() -> None:
    rng = np.random.default_rng(1)
    slow, fast = RepeatedPole(20.0, 2), RepeatedPole(3.0, 3)
    first = np.array([[1.0, 0.3], [0.3, 0.5]])
    second = np.array([[0.4, -0.1], [-0.1, 0.8]])
    frames = 15
    joint = np.zeros((2 * frames, 2 * frames))
    for process, covariance in ((slow, first), (fast, second)):
        correlation = toeplitz([process.autocorrelation(k) for k in range(frames)])
        joint += np.kron(correlation, covariance)
    series = rng.standard_normal((3, frames, 2))
    expected = multivariate_normal(np.zeros(2 * frames), joint).logpdf(series.reshape(3, -1))
    found = gaussian_log_likelihood(series, [(slow, first), (fast, second)])
    assert found == pytest.approx(expected, rel=1e-7)
