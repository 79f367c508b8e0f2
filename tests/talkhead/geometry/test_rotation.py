from __future__ import annotations

import numpy as np
import pytest

from talkhead.errors import ShapeError
from talkhead.geometry.rotation import euler_to_matrix, matrix_to_euler


def _axis(axis: int, angle: float) -> np.ndarray:  # type: ignore[type-arg]
    a, b = [i for i in range(3) if i != axis]
    c, s = np.cos(angle), np.sin(angle)
    out = np.eye(3)
    out[a, a] = out[b, b] = c
    sign = -1.0 if axis == 1 else 1.0
    out[a, b], out[b, a] = -sign * s, sign * s
    return out


def test_product_of_the_three_axes() -> None:
    rng = np.random.default_rng(0)
    for pitch, yaw, roll in rng.uniform(-1.5, 1.5, (20, 3)):
        expected = _axis(2, roll) @ _axis(1, yaw) @ _axis(0, pitch)
        assert euler_to_matrix(np.array([pitch, yaw, roll])) == pytest.approx(expected, abs=1e-12)


def test_signs_of_the_docstring() -> None:
    nose, right = np.array([0.0, 0.0, -1.0]), np.array([1.0, 0.0, 0.0])
    angle = 0.3
    down = euler_to_matrix(np.array([angle, 0, 0])) @ nose
    left = euler_to_matrix(np.array([0, angle, 0])) @ nose
    clockwise = euler_to_matrix(np.array([0, 0, angle])) @ right
    assert down == pytest.approx([0, np.sin(angle), -np.cos(angle)])
    assert left == pytest.approx([-np.sin(angle), 0, -np.cos(angle)])
    assert clockwise == pytest.approx([np.cos(angle), np.sin(angle), 0])


def test_round_trip_and_shapes() -> None:
    angles = np.random.default_rng(1).uniform(-1.5, 1.5, (4, 5, 3))
    matrices = euler_to_matrix(angles)
    assert matrices.shape == (4, 5, 3, 3)
    assert matrix_to_euler(matrices) == pytest.approx(angles, abs=1e-9)
    assert matrices @ matrices.swapaxes(-1, -2) == pytest.approx(
        np.broadcast_to(np.eye(3), matrices.shape), abs=1e-12
    )


def test_quarter_turn_keeps_the_matrix() -> None:
    matrix = euler_to_matrix(np.array([0.4, np.pi / 2, 0.1]))
    again = euler_to_matrix(matrix_to_euler(matrix))
    assert again == pytest.approx(matrix, abs=1e-7)
    assert matrix_to_euler(matrix)[2] == 0.0


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="pitch, yaw, roll"):
        euler_to_matrix(np.zeros((3, 2)))
    with pytest.raises(ShapeError, match="3, 3"):
        matrix_to_euler(np.zeros((3, 2)))
