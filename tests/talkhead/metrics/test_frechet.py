from __future__ import annotations

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.metrics.frechet import FrechetDistance, frechet_distance, gaussian_frechet
from tests.oracles.frechet import frechet_sqrtm


def samples(n: int, d: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    mixed: torch.Tensor = scale * rows @ mix + 0.1 * seed
    return mixed


def test_shifted_unit_gaussians_are_as_far_apart_as_their_dimension() -> None:
    eye = torch.eye(16)
    assert gaussian_frechet(torch.zeros(16), eye, torch.ones(16), eye).item() == pytest.approx(16.0)


def test_diagonal_closed_form() -> None:
    first, second = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 1.0])
    expected = ((first.sqrt() - second.sqrt()) ** 2).sum().item()
    got = gaussian_frechet(torch.zeros(3), first.diag(), torch.zeros(3), second.diag())
    assert got.item() == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 20), (60, 80, 12)])
def test_agrees_with_scipy_matrix_square_root(n: int, m: int, d: int) -> None:
    a, b = samples(n, d, 1), samples(m, d, 2, 0.7)
    assert frechet_distance(a, b).item() == pytest.approx(
        frechet_sqrtm(a.numpy(), b.numpy()), rel=1e-7
    )


def test_low_rank_route_equals_the_covariance_route_on_singular_covariances() -> None:
    a, b = samples(30, 50, 1), samples(40, 50, 2, 0.7)
    direct = gaussian_frechet(a.mean(0), torch.cov(a.mT), b.mean(0), torch.cov(b.mT))
    # Square roots of eigenvalues that should be 0 are about 1e-8 each in the covariance route.
    assert frechet_distance(a, b).item() == pytest.approx(direct.item(), rel=1e-6)


def test_eps_on_the_diagonal_barely_moves_a_singular_case() -> None:
    a, b = samples(30, 50, 1), samples(40, 50, 2, 0.7)
    plain, padded = frechet_distance(a, b), frechet_distance(a, b, eps=1e-6)
    assert padded.item() != plain.item()
    assert padded.item() == pytest.approx(plain.item(), rel=2e-2)


def test_identical_and_constant_samples_score_zero() -> None:
    a = samples(50, 8, 1)
    assert frechet_distance(a, a).item() == pytest.approx(0.0, abs=1e-9)
    frozen = torch.ones(20, 8)
    assert frechet_distance(frozen, frozen).item() == 0.0


def test_symmetric_and_unchanged_by_rotation() -> None:
    a, b = samples(90, 6, 1), samples(70, 6, 2)
    turn, _ = torch.linalg.qr(samples(6, 6, 3))
    value = frechet_distance(a, b).item()
    assert frechet_distance(b, a).item() == pytest.approx(value)
    assert frechet_distance(a @ turn, b @ turn).item() == pytest.approx(value)


def test_pooled_metric_does_not_depend_on_batches() -> None:
    a, b = samples(60, 5, 1), samples(80, 5, 2)
    whole, parts = FrechetDistance(5), FrechetDistance(5)
    whole.update(a, real=False)
    whole.update(b, real=True)
    for chunk in a.split(7):
        parts.update(chunk, real=False)
    for chunk in b.reshape(2, 40, 5):
        parts.update(chunk, real=True)
    assert whole.compute().item() == pytest.approx(frechet_distance(a, b).item(), rel=1e-9)
    assert parts.compute().item() == pytest.approx(whole.compute().item(), rel=1e-9)


def test_pooled_metric_masks_rows_and_starts_empty() -> None:
    a, b = samples(20, 3, 1), samples(20, 3, 2)
    metric = FrechetDistance(3, standard=(b.mean(0), b.std(0)))
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().isnan()
    metric.reset()
    metric.update(torch.cat([a, a + 100]), real=False, valid=torch.arange(40) < 20)
    metric.update(b, real=True)
    scaled = [(x - b.mean(0)) / b.std(0) for x in (a, b)]
    assert metric.compute().item() == pytest.approx(frechet_distance(*scaled).item(), rel=1e-9)


def test_refuses_one_row_and_unequal_widths() -> None:
    with pytest.raises(ShapeError, match="at least 2 rows"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ShapeError, match="two means"):
        gaussian_frechet(torch.zeros(3), torch.eye(3), torch.zeros(2), torch.eye(2))


@pytest.mark.slow
def test_image_size_distance_equals_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1000, 2048, generator=generator, dtype=torch.float64) for _ in range(2))
    ours = frechet_distance(a, 0.8 * b + 0.1).item()
    expected = frechet_sqrtm(a.numpy(), (0.8 * b + 0.1).numpy())
    assert ours == pytest.approx(expected, rel=1e-4)
