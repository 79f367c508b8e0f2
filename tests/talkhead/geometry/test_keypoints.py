from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import (
    JACOBIAN_FLOOR,
    N_KEYPOINTS,
    ROW_DIM,
    guarded_inverse,
    pack,
    scaled_and_shifted,
    smoothed,
    unpack,
)


def rows(*lead: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, ROW_DIM, generator=generator, dtype=torch.float64)


def test_a_row_is_x_y_and_the_jacobian_row_by_row() -> None:
    points = torch.tensor([[0.5, -0.25], [0.0, 1.0]])
    jacobians = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    assert pack(points, jacobians).tolist() == [0.5, -0.25, 1, 2, 3, 4, 0, 1, 5, 6, 7, 8]


def test_packing_and_unpacking_are_inverse() -> None:
    values = rows(2, 3)
    points, jacobians = unpack(values)
    assert points.shape == (2, 3, N_KEYPOINTS, 2)
    assert jacobians.shape == (2, 3, N_KEYPOINTS, 2, 2)
    assert torch.equal(pack(points, jacobians), values)


def test_shapes_that_are_no_keypoints_are_refused() -> None:
    with pytest.raises(
        ShapeError, match=r"Jacobians \(..., K, 2, 2\), got \(10, 2\) and \(9, 2, 2\)"
    ):
        pack(torch.zeros(10, 2), torch.zeros(9, 2, 2))
    with pytest.raises(ShapeError, match=r"expected points"):
        pack(torch.zeros(10, 3), torch.zeros(10, 3, 2))
    for shape in ((4, 59), (), (3, 0)):
        with pytest.raises(ShapeError, match=r"expected rows \(..., 6 K\)"):
            unpack(torch.zeros(shape))


def test_scaling_and_shifting_move_a_point_as_the_picture_does() -> None:
    one = torch.tensor([0.5, -0.5, 1.0, 0.0, 0.0, 2.0]).expand(2, 3, 6)
    moved = scaled_and_shifted(one, torch.tensor([1.1, 1.0]), torch.tensor([[0.1, -0.1], [0, 0]]))
    torch.testing.assert_close(moved[0, 2], torch.tensor([0.65, -0.65, 1.1, 0.0, 0.0, 2.2]))
    assert torch.equal(moved[1], one[1])
    values = rows(2, 4)
    scale, shift = rows(2)[:, 0], rows(2)[:, 1:3]
    points, jacobians = unpack(values)
    found = unpack(scaled_and_shifted(values, scale, shift))
    for b in range(2):
        torch.testing.assert_close(found.points[b], points[b] * scale[b] + shift[b])
        torch.testing.assert_close(found.jacobians[b], jacobians[b] * scale[b])


def test_one_scale_and_shift_for_each_sequence() -> None:
    for scale, shift in (((3,), (2, 2)), ((2,), (2, 3)), ((2, 1), (2, 2))):
        with pytest.raises(ShapeError, match="draw one of each"):
            scaled_and_shifted(rows(2, 4), torch.ones(scale), torch.zeros(shift))
    with pytest.raises(ShapeError, match=r"got \(2, 60\)"):
        scaled_and_shifted(rows(2), torch.ones(2), torch.zeros(2, 2))


def test_smoothing_is_a_moving_average_with_repeated_ends() -> None:
    assert smoothed(torch.tensor([[0.0], [3.0], [0.0]])).flatten().tolist() == [1.0, 1.0, 1.0]
    found = smoothed(torch.tensor([[3.0], [0.0], [0.0], [9.0]])).flatten()
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 3.0, 6.0]))
    values = rows(2, 7)
    assert torch.equal(smoothed(values, taps=1), values)
    wide = smoothed(values, taps=5)
    padded = [values[:, min(max(t, 0), 6)] for t in range(-2, 9)]
    for t in range(7):
        torch.testing.assert_close(wide[:, t], sum(padded[t : t + 5], torch.zeros(2, 60)) / 5)
    torch.testing.assert_close(smoothed(values[0]), smoothed(values)[0])
    with pytest.raises(ConfigError, match="odd number"):
        smoothed(values, taps=4)
    with pytest.raises(ShapeError, match="whole sequences"):
        smoothed(torch.zeros(60))


def with_singular_values(large: float, small: float, seed: int) -> Tensor:
    """A turned and mirrored matrix of given singular values."""
    first, second = torch.rand(2, generator=torch.Generator().manual_seed(seed)).double() * 7
    left, right = (
        torch.stack([x.cos(), -x.sin(), x.sin(), x.cos()]).reshape(2, 2) for x in (first, second)
    )
    return left @ torch.diag(torch.tensor([large, small], dtype=torch.float64)) @ right


def slow_inverse(matrix: Tensor, floor: float) -> Tensor:
    u, s, vt = torch.linalg.svd(matrix)
    guarded = torch.tensor([1 / v if v >= floor else v / floor**2 for v in s.tolist()]).double()
    inverse: Tensor = vt.T @ torch.diag(guarded) @ u.T
    return inverse


def test_the_inverse_of_sound_matrices_is_the_true_one() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(2000, 2, 2, generator=generator, dtype=torch.float64)
    sound = matrices[torch.linalg.svdvals(matrices).amin(-1) > 0.05]
    assert len(sound) > 1500
    torch.testing.assert_close(guarded_inverse(sound), torch.linalg.inv(sound))
    eye = torch.eye(2)
    assert torch.equal(guarded_inverse(eye.expand(3, 4, 2, 2)), eye.expand(3, 4, 2, 2))


CASES = [
    (1.0, 0.5),
    (0.7, 0.7),
    (0.7, -0.7),
    (0.5, 0.01),
    (0.5, -0.01),
    (0.5, 0.0),
    (0.02, 0.01),
    (0.01, 0.01),
]


@pytest.mark.parametrize(("large", "small"), CASES)
def test_a_collapsing_direction_stays_bounded(large: float, small: float) -> None:
    for seed in range(20):
        matrix = with_singular_values(large, small, seed)
        found = guarded_inverse(matrix)
        torch.testing.assert_close(found, slow_inverse(matrix, JACOBIAN_FLOOR))
        assert torch.linalg.svdvals(found).amax() <= (1 + 1e-9) / JACOBIAN_FLOOR
        torch.testing.assert_close(
            guarded_inverse(matrix.float()).double(), found, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("large", "small"), CASES)
def test_its_slope_is_that_of_a_finite_difference(large: float, small: float) -> None:
    matrix = with_singular_values(large, small, 3).requires_grad_()
    assert torch.autograd.gradcheck(guarded_inverse, (matrix,), eps=1e-7, atol=1e-3, rtol=1e-3)


def test_no_matrix_has_an_infinite_slope() -> None:
    edge = JACOBIAN_FLOOR
    cases = torch.tensor([
        [[0.0, 0.0], [0.0, 0.0]],
        [[1.0, 0.0], [0.0, 1.0]],
        [[1.0, 0.0], [0.0, -1.0]],
        [[1.0, 0.0], [0.0, 0.0]],
        [[edge, 0.0], [0.0, edge]],
        [[edge, 0.0], [0.0, -edge]],
        [[edge, 0.0], [0.0, 0.0]],
        [[0.999999 * edge, 0.0], [0.0, 1.000001 * edge]],
        [[0.999999 * edge, 0.0], [0.0, -1.000001 * edge]],
        [[1e-30, 0.0], [0.0, -1e-30]],
    ])  # fmt: skip
    for dtype in (torch.float32, torch.float64):
        for out in range(4):
            matrices = cases.to(dtype, copy=True).requires_grad_()
            guarded_inverse(matrices).flatten(1)[:, out].sum().backward()
            assert matrices.grad is not None
            assert matrices.grad.abs().max() <= 2 / edge**2
    assert torch.equal(guarded_inverse(torch.zeros(2, 2)), torch.zeros(2, 2))


def test_a_determinant_that_changes_sign_does_not_make_it_jump() -> None:
    steps = torch.linspace(-0.1, 0.1, 2001, dtype=torch.float64)
    matrices = torch.stack([with_singular_values(0.8, step, 5) for step in steps.tolist()])
    jumps = guarded_inverse(matrices).diff(dim=0).abs().amax()
    assert jumps <= 1.01 * 1e-4 / JACOBIAN_FLOOR**2
    naive = torch.linalg.inv(matrices[(steps != 0)]).abs().amax()
    assert naive > 1000 > 1.01 / JACOBIAN_FLOOR > guarded_inverse(matrices).abs().amax()


def test_half_precision_and_bad_arguments() -> None:
    half = guarded_inverse(torch.tensor([[0.5, 0.0], [0.0, 0.01]], dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert half.diagonal().tolist() == pytest.approx([2.0, 4.0], rel=0.2)
    with pytest.raises(ShapeError, match=r"expected Jacobians \(..., 2, 2\), got \(4,\)"):
        guarded_inverse(torch.zeros(4))
    with pytest.raises(ConfigError, match="above 0"):
        guarded_inverse(torch.eye(2), floor=0.0)
