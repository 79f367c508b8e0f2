"""The rasteriser against a slow loop over pixels and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.render import rasterizer as rz

SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
TWO = np.array([[0, 3, 2], [0, 2, 1]])  # wound like the face mesh


def _slow_values(
    points: NDArray[np.float64], triangle: NDArray[np.intp], values: NDArray[np.float64], at: int
) -> dict[tuple[int, int], float]:
    """Barycentric interpolation, one pixel at a time, strictly inside one triangle."""
    a, b, c = points[triangle]
    matrix = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]])
    out = {}
    for row in range(at):
        for column in range(at):
            weights = np.linalg.solve(matrix, [column, row, 1.0])
            if (weights > 0.05).all():
                out[row, column] = float(weights @ values[triangle])
    return out


def test_interpolation_matches_slow_barycentrics() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(2, 38, (3, 2)) + np.array([[0.0, 0.0], [0.0, 20.0], [20.0, 0.0]])
    triangle = np.array([[0, 1, 2]])
    values = rng.normal(size=(3, 5)).astype(np.float32)
    ids = rz.triangle_ids(points.astype(np.float32), triangle, np.array([0]), 64, 64)
    got = rz.interpolate(ids, points.astype(np.float32), triangle, values)
    assert got.shape == (64, 64, 5)
    for kind in (0, 4):
        expected = _slow_values(points, triangle[0], values[:, kind].astype(np.float64), 64)
        assert len(expected) > 50
        for (row, column), value in expected.items():
            assert ids[row, column] == 0
            assert got[row, column, kind] == pytest.approx(value, abs=2e-3)
    assert (got[ids < 0] == 0).all()


def test_texture_is_reproduced_on_a_square_of_its_own_size() -> None:
    texture = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    corners = SQUARE * 39
    picture, mask = rz.render_mesh(corners, TWO, 40, 40, uv=corners, texture=texture)
    assert mask.all()
    assert np.abs(picture.astype(int) - texture).max() <= 2


def test_nearer_triangles_hide_farther_ones_in_any_order() -> None:
    near = np.column_stack([SQUARE * 20 + 10, np.full(4, -1.0)])
    far = np.column_stack([SQUARE * 39, np.full(4, 1.0)])
    colours = np.repeat([[200.0, 0, 0], [0, 0, 200.0]], 4, axis=0)
    for first, second, paint in ((near, far, colours), (far, near, colours[::-1])):
        points = np.concatenate([first, second]).astype(np.float32)
        triangles = np.concatenate([TWO, TWO + 4])
        picture, _ = rz.render_mesh(points, triangles, 40, 40, colours=paint.astype(np.float32))
        assert picture[20, 20].tolist() == [200, 0, 0]
        assert picture[3, 3].tolist() == [0, 0, 200]


def test_layers_beat_depth_and_back_faces_are_culled() -> None:
    depths = np.array([0, 0, 0, 0], np.float32)
    order = rz.paint_order(depths, TWO, np.array([5, 2]), np.array([True, True]))
    assert order.tolist() == [1, 0]
    kept = rz.paint_order(depths, TWO, None, np.array([False, True]))
    assert kept.tolist() == [1]
    flipped = TWO[:, ::-1].copy()
    _, mask = rz.render_mesh(SQUARE * 39, flipped, 40, 40, colours=np.full((4, 3), 9, np.float32))
    assert not mask.any()


def test_normals_of_a_sphere_point_outwards() -> None:
    theta, phi = np.meshgrid(np.linspace(0.3, 2.8, 14), np.linspace(-1.2, 1.2, 14), indexing="ij")
    sphere = np.stack(
        [np.sin(theta) * np.sin(phi), -np.cos(theta), -np.sin(theta) * np.cos(phi)], axis=-1
    ).reshape(-1, 3)
    index = np.arange(196).reshape(14, 14)
    a, b, d, c = (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:])
    triangles = np.concatenate(
        [np.stack([a, d, c], -1).reshape(-1, 3), np.stack([a, c, b], -1).reshape(-1, 3)]
    )
    normals = rz.vertex_normals(sphere.astype(np.float32), triangles, smooth=0)
    inner = index[2:-2, 2:-2].ravel()
    assert (normals[inner] * sphere[inner]).sum(axis=1).min() > 0.99
    light = rz.lambert(normals, np.array([0.0, 0.0, -2.0], np.float32), ambient=0.3)
    np.testing.assert_allclose(light, 0.3 + 0.7 * np.clip(-normals[:, 2], 0, 1), atol=1e-5)


def test_the_canonical_face_is_drawn_without_holes() -> None:
    points = ft.canonical_vertices() * np.float32(100) + np.array([128, 128, 0], np.float32)
    shade = rz.lambert(
        rz.vertex_normals(points, ft.triangles()), np.array([0.3, -0.4, -1.0], np.float32)
    )
    colours = np.full((468, 3), 220.0, np.float32)
    picture, mask = rz.render_mesh(points, ft.triangles(), 256, 256, colours=colours, shade=shade)
    outline = np.zeros((256, 256), np.uint8)
    cv2 = rz.opencv()
    cv2.fillPoly(outline, [np.rint(points[ft.FACE_OVAL, :2]).astype(np.int32)], 1)
    inside = cv2.erode(outline, np.ones((3, 3), np.uint8)).astype(bool)
    assert mask[inside].all()
    assert picture[inside].min() > 60


def test_soften_edges_changes_borders_only() -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:, 10:] = 200
    soft = rz.soften_edges(picture, (np.arange(20) >= 10)[None].repeat(20, 0))
    assert (soft[:, :9] == 0).all()
    assert (soft[:, 11:] == 200).all()
    assert 0 < soft[10, 9, 0] < soft[10, 10, 0] < 200


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ShapeError, match="exactly one kind of paint"):
        rz.render_mesh(SQUARE, TWO, 8, 8)
    ids = np.zeros((4, 4), np.int32)
    with pytest.raises(ShapeError, match="one row for each of 4"):
        rz.interpolate(ids, SQUARE, TWO, np.zeros((3, 1), np.float32))
