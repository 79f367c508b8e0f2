"""Moves a still portrait by its landmarks, without training: a textured mesh warp.

The portrait's own pixels lie on its landmark mesh. Rings of extra vertices around the face carry
hair, neck and background along, less and less towards the border of the picture, which stays put.
Eyes are re-drawn from the portrait so that lids slide over the eyeball and irises move inside the
opening; the inside of a mouth that was closed in the portrait is painted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.render import rasterizer as rz
from talkhead.render.face_details import MouthPaint, mouth_shapes, paint_mouth
from talkhead.render.head_parts import grid_triangles
from talkhead.render.portrait_details import redraw_eye, redraw_open_mouth
from talkhead.specs import N_LANDMARKS

FloatArray = NDArray[np.float32]
ImageArray = NDArray[np.uint8]

RING_SCALES = (1.12, 1.3, 1.7, 2.3)
"""Size of each ring around the face against the face oval."""
RING_FOLLOW = (0.95, 0.82, 0.45, 0.15)
"""Share of the face outline's motion that each ring follows."""
OUTSIDE = 1.3
"""Size of the last, fixed ring against the picture."""
CLOSED_MOUTH = 0.06
"""Inner-lip distance over eye distance up to which a portrait's mouth counts as closed."""

_EYES = (
    (ft.PICTURE_LEFT_UPPER_LID, ft.PICTURE_LEFT_LOWER_LID, ft.PICTURE_LEFT_IRIS),
    (ft.PICTURE_RIGHT_UPPER_LID, ft.PICTURE_RIGHT_LOWER_LID, ft.PICTURE_RIGHT_IRIS),
)


class PortraitAnimator:
    """Draws a portrait with other landmarks.

    Args:
        image: Square portrait ``(H, W, 3)`` uint8 RGB.
        landmarks: Its landmarks ``(478, 3)`` in crop units.
        size: Side of the pictures drawn, in pixels; None keeps the portrait's.

    Raises:
        ShapeError: The image is not square RGB uint8 or there are not 478 landmarks.
    """

    def __init__(self, image: ImageArray, landmarks: FloatArray, size: int | None = None) -> None:
        """Check the portrait and lay the mesh over it."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ShapeError(
                f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}; "
                "read it as RGB first."
            )
        if image.shape[0] != image.shape[1]:
            raise ShapeError(
                f"image: expected a square crop, got {image.shape[1]}x{image.shape[0]}; "
                "crop it and give landmarks in units of that crop."
            )
        self.size = size or int(image.shape[0])
        self._image = _resized(image, self.size)
        self._source = self._pixels(_checked(landmarks))
        self._rings = _rings(self._source[:, :2], self.size)
        oval = np.append(ft.FACE_OVAL, ft.FACE_OVAL[0])
        self._triangles = np.concatenate([ft.triangles(), _ring_triangles(oval)])
        self._layers = np.append(
            np.ones(len(ft.triangles()), int),
            np.zeros(len(self._triangles) - len(ft.triangles()), int),
        )
        self._uv = np.concatenate([self._source[: ft.N_MESH, :2], self._rings.reshape(-1, 2)])
        self._face = _pose_free(self._source)
        self._mouth_shapes = mouth_shapes(self._face)
        self._mouth_paint = self._mouth_tones()

    def draw(self, landmarks: FloatArray) -> ImageArray:
        """The portrait with its landmarks at new places.

        Args:
            landmarks: ``(478, 3)`` in crop units.

        Returns:
            ``(size, size, 3)`` uint8 RGB, every pixel filled.

        Raises:
            ShapeError: There are not 478 landmarks.
        """
        target = self._pixels(_checked(landmarks))
        picture = self._warp(target)
        for upper, lower, iris in _EYES:
            redraw_eye(picture, self._image, self._source, target, (upper, lower, iris))
        self._fill_mouth(picture, target)
        return picture

    def _pixels(self, landmarks: FloatArray) -> FloatArray:
        return np.asarray(landmarks * self.size - np.array([0.5, 0.5, 0.0], np.float32), np.float32)

    def _warp(self, target: FloatArray) -> ImageArray:
        """The mesh warp of the whole picture."""
        moved = _smooth_ring(target[ft.FACE_OVAL, :2] - self._source[ft.FACE_OVAL, :2])
        moved = np.concatenate([moved, moved[:1]])
        follow = np.asarray([*RING_FOLLOW, 0.0], np.float32)[:, None, None]
        rings = (self._rings + follow * moved).reshape(-1, 2)
        points = np.concatenate([target[: ft.N_MESH, :2], rings]).astype(np.float32)
        depths = np.append(target[: ft.N_MESH, 2], np.zeros(len(rings), np.float32))
        keep = (rz.signed_areas(points, self._triangles) < 0) | (self._layers == 0)
        order = rz.paint_order(depths, self._triangles, self._layers, keep)
        ids = rz.triangle_ids(points, self._triangles, order, self.size, self.size)
        uv = rz.interpolate(ids, points, self._triangles, self._uv)
        missing = ids < 0
        if missing.any():
            rows, columns = np.nonzero(missing)
            uv[rows, columns] = np.stack([columns, rows], axis=1)
        return np.asarray(rz.sample_texture(self._image, uv), np.uint8)

    def _fill_mouth(self, picture: ImageArray, target: FloatArray) -> None:
        """Draw the inside of the mouth, in place: the portrait's own if it shows one."""
        cavity = self._mouth_paint.cavity
        if _mouth_opening(self._source) > CLOSED_MOUTH:
            if _mouth_opening(target) > 1.05 * _mouth_opening(self._source):
                redraw_open_mouth(picture, self._image, self._source, target, cavity)
            return
        if _mouth_opening(target) < max(0.02, 1.2 * _mouth_opening(self._source)):
            return
        scale, rotation, shift = _similarity(self._face[ft.RIGID], target[ft.RIGID])
        free = (target - shift) @ rotation / scale
        drop = free[14] - self._face[14]

        def project(name: str) -> FloatArray:
            local = self._mouth_shapes[name] + (0.0 if name == "upper_teeth" else 0.92 * drop)
            return np.asarray((scale * local @ rotation.T + shift)[:, :2], np.float32)

        upper, lower = target[ft.LIPS_INNER_UPPER], target[ft.LIPS_INNER_LOWER]
        paint_mouth(picture, upper, lower, self._mouth_paint, project)

    def _mouth_tones(self) -> MouthPaint:
        """Colours of teeth, tongue and cavity that suit the portrait's light and lips."""

        def mean(indices: tuple[int, ...]) -> FloatArray:
            at = np.clip(np.rint(self._source[list(indices), :2]), 0, self.size - 1).astype(int)
            return np.asarray(self._image[at[:, 1], at[:, 0]].mean(axis=0), np.float32)

        lip = mean((15, 16, 85, 315, 86, 316))
        skin = mean((50, 280, 205, 425, 151))
        light = float(np.clip(skin.max() / 235.0, 0.35, 1.0))

        def colour(values: NDArray[Any]) -> tuple[float, float, float]:
            r, g, b = np.clip(values, 0, 255).tolist()
            return (r, g, b)

        return MouthPaint(
            cavity=colour(lip * np.array([0.24, 0.14, 0.15], np.float32)),
            teeth=colour(np.array([214, 203, 188], np.float32) * (0.30 + 0.62 * light)),
            tongue=colour(lip * np.array([0.82, 0.66, 0.68], np.float32)),
            seam=colour(lip * np.array([0.55, 0.42, 0.42], np.float32)),
        )


def _checked(landmarks: FloatArray) -> FloatArray:
    if landmarks.shape != (N_LANDMARKS, 3):
        raise ShapeError(
            f"landmarks: expected ({N_LANDMARKS}, 3), got {landmarks.shape}; "
            "pass one frame with irises."
        )
    return np.asarray(landmarks, np.float32)


def _resized(image: ImageArray, size: int) -> ImageArray:
    cv2 = rz.opencv()
    if image.shape[0] == size:
        return image.copy()
    method = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), np.uint8)


def _mouth_opening(points: FloatArray) -> float:
    upper, lower = points[ft.INNER_LIP_PAIR]
    left, right = points[ft.EYE_OUTER]
    return float(np.linalg.norm(upper - lower)) / max(float(np.linalg.norm(left - right)), 1e-6)


def _rings(source: FloatArray, size: int) -> FloatArray:
    """Rings around the face oval in pixels, ``(5, 37, 2)``; the last is outside the picture."""
    oval = source[ft.FACE_OVAL]
    centre = oval.mean(axis=0)
    rays = oval - centre
    low, high = (0.0 - centre), (size - 1.0 - centre)
    with np.errstate(divide="ignore"):
        reach = np.where(rays > 0, high / rays, np.where(rays < 0, low / rays, np.inf))
    border = np.clip(reach.min(axis=1), 0.2, None)
    rings = []
    for scale, share in zip(RING_SCALES, (0.25, 0.45, 0.65, 0.85), strict=True):
        # Near the border the rings crowd together instead of leaving the picture.
        inside = 1.0 + np.maximum(border - 1.0, 0.04) * share
        rings.append(centre + rays * np.minimum(scale, inside)[:, None])
    last = np.maximum(border * OUTSIDE, 1.0 + np.maximum(border - 1.0, 0.04) * OUTSIDE) + 0.1
    rings.append(centre + rays * last[:, None])
    closed = np.stack(rings)
    return np.asarray(np.concatenate([closed, closed[:, :1]], axis=1), np.float32)


def _ring_triangles(oval: NDArray[np.intp]) -> NDArray[np.intp]:
    """Triangles between the closed oval (mesh indices) and the rings, numbered after the mesh."""
    rows, columns = len(RING_SCALES) + 2, len(oval)
    index = np.concatenate([oval, ft.N_MESH + np.arange((rows - 1) * columns)])
    return np.asarray(index[grid_triangles(rows, columns, flip=True)], np.intp)


def _smooth_ring(values: FloatArray, rounds: int = 3) -> FloatArray:
    for _ in range(rounds):
        values = 0.5 * values + 0.25 * (np.roll(values, 1, axis=0) + np.roll(values, -1, axis=0))
    return values


def _pose_free(points: FloatArray) -> FloatArray:
    """The landmarks turned and scaled into face space, ``(478, 3)``."""
    canonical = ft.canonical_landmarks()
    scale, rotation, shift = _similarity(canonical[ft.RIGID], points[ft.RIGID])
    return np.asarray((points - shift) @ rotation / scale, np.float32)


def _similarity(source: FloatArray, target: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Scale, rotation ``(3, 3)`` and shift ``(3,)`` from ``source`` to ``target``, both ``(N, 3)``.

    ``target ~ scale * source @ rotation.T + shift``.

    Source: Umeyama 1991, least-squares estimation of transformation parameters.
    """
    a, b = source.mean(axis=0), target.mean(axis=0)
    u, s, vt = np.linalg.svd((target - b).T @ (source - a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((s * sign).sum() / ((source - a) ** 2).sum())
    shift = b - scale * rotation @ a
    return scale, rotation.astype(np.float32), shift.astype(np.float32)
