"""The index tables agree with the shape they index and with MediaPipe's own edge lists."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.geometry import face_topology as ft


def test_face_space_is_centred_oriented_and_in_eye_units() -> None:
    mesh = ft.canonical_vertices()
    assert mesh.shape == (468, 3)
    np.testing.assert_allclose(mesh.mean(axis=0), 0.0, atol=1e-6)
    assert np.linalg.norm(np.subtract(*mesh[ft.EYE_OUTER])) == pytest.approx(1.0, abs=1e-6)
    assert mesh[33, 0] < mesh[263, 0]  # x right
    assert mesh[10, 1] < mesh[152, 1]  # y down: forehead above chin
    assert mesh[4, 2] < mesh[[234, 454], 2].min()  # z away: the nose tip is nearest


def test_landmarks_add_irises_in_mediapipe_order() -> None:
    points = ft.canonical_landmarks()
    assert points.shape == (478, 3)
    np.testing.assert_array_equal(points[:468], ft.canonical_vertices())
    for iris, eye in (
        (ft.PICTURE_LEFT_IRIS, ft.PICTURE_LEFT_EYE),
        (ft.PICTURE_RIGHT_IRIS, ft.PICTURE_RIGHT_EYE),
    ):
        centre, right, top, left, bottom = points[iris]
        low, high = points[eye].min(axis=0), points[eye].max(axis=0)
        assert (low[:2] < centre[:2]).all()
        assert (centre[:2] < high[:2]).all()
        assert right[0] > centre[0] > left[0]
        assert bottom[1] > centre[1] > top[1]
    assert points[468, 0] < 0 < points[473, 0]


def test_texture_coordinates_lie_like_the_picture() -> None:
    uv = ft.canonical_uv()
    assert uv.shape == (468, 2)
    assert uv.min() >= 0
    assert uv.max() <= 1
    assert uv[33, 0] < uv[263, 0]
    assert uv[10, 1] < uv[4, 1] < uv[152, 1]


def test_arrays_are_shared_and_read_only() -> None:
    assert ft.canonical_landmarks() is ft.canonical_landmarks()
    with pytest.raises(ValueError, match="read-only"):
        ft.canonical_landmarks()[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        ft.LIPS_OUTER[0] = 1


def test_triangles_cover_the_mesh() -> None:
    triangles = ft.triangles()
    assert triangles.shape == (898, 3)
    assert set(triangles.ravel().tolist()) == set(range(468))
    # Euler: a disc has V - E + F = 1.
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert 468 - len(np.unique(edges, axis=0)) + 898 == 1


def test_pairs_mirror_each_other() -> None:
    mesh = ft.canonical_vertices()
    mirror = np.array([-1.0, 1.0, 1.0])
    for left, right in (
        (ft.PICTURE_LEFT_UPPER_LID, ft.PICTURE_RIGHT_UPPER_LID[::-1]),
        (ft.PICTURE_LEFT_LOWER_LID, ft.PICTURE_RIGHT_LOWER_LID[::-1]),
        (ft.PICTURE_LEFT_BROW, ft.PICTURE_RIGHT_BROW),
    ):
        np.testing.assert_allclose(mesh[left] * mirror, mesh[right], atol=2e-3)
    for lid in (*ft.LID_PAIRS, ft.INNER_LIP_PAIR):
        assert mesh[lid[0], 1] < mesh[lid[1], 1]
    assert mesh[ft.MOUTH_CORNERS[0], 0] < 0 < mesh[ft.MOUTH_CORNERS[1], 0]


def test_rings_are_simple_contours() -> None:
    mesh = ft.canonical_vertices()[:, :2].astype(np.float64)
    for ring in (
        ft.LIPS_OUTER,
        ft.LIPS_INNER,
        ft.PICTURE_LEFT_EYE,
        ft.PICTURE_RIGHT_EYE,
        ft.FACE_OVAL,
        ft.PICTURE_LEFT_BROW,
        ft.PICTURE_RIGHT_BROW,
    ):
        assert len(set(ring.tolist())) == len(ring)
        x, y = mesh[ring].T
        area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        perimeter = np.linalg.norm(mesh[ring] - np.roll(mesh[ring], -1, axis=0), axis=1).sum()
        assert area > 0
        assert perimeter < 2 * (np.ptp(x) + np.ptp(y))  # an unordered ring zigzags


def test_tables_match_mediapipe_edges() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edges = importlib.import_module("mediapipe.python.solutions.face_mesh_connections")

    def ring_edges(ring: NDArray[np.intp]) -> set[frozenset[int]]:
        return {frozenset((int(a), int(b))) for a, b in zip(ring, np.roll(ring, -1), strict=True)}

    def as_sets(pairs: frozenset[tuple[int, int]]) -> set[frozenset[int]]:
        return {frozenset(p) for p in pairs}

    assert ring_edges(ft.FACE_OVAL) == as_sets(edges.FACEMESH_FACE_OVAL)
    assert ring_edges(ft.PICTURE_LEFT_EYE) == as_sets(edges.FACEMESH_RIGHT_EYE)
    assert ring_edges(ft.PICTURE_RIGHT_EYE) == as_sets(edges.FACEMESH_LEFT_EYE)
    assert ring_edges(ft.LIPS_OUTER) | ring_edges(ft.LIPS_INNER) == as_sets(edges.FACEMESH_LIPS)


def test_mirror_order_swaps_the_sides() -> None:
    order = ft.mirror_order()
    assert sorted(order) == list(range(478))
    np.testing.assert_array_equal(order[order], np.arange(478))
    face = ft.canonical_landmarks()
    np.testing.assert_allclose(face[order] * (-1, 1, 1), face, atol=1e-6)
    assert order[[13, 33, 61, 468, 469, 470]].tolist() == [13, 263, 291, 473, 476, 475]
    assert not order.flags.writeable


def test_distances_along_the_skin_go_round_the_open_mouth() -> None:
    mesh = ft.canonical_vertices().astype(np.float64)
    distance = ft.along_the_skin([14])
    assert distance[14] == 0
    assert distance[17] >= np.linalg.norm(mesh[17] - mesh[14])
    corner = min(distance[61], distance[291])
    assert distance[13] > corner > 10 * np.linalg.norm(mesh[13] - mesh[14]) / 3
    both = ft.along_the_skin([14, 13])
    np.testing.assert_allclose(both, np.minimum(distance, ft.along_the_skin([13])))
