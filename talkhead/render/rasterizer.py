"""A small software rasteriser for textured triangle meshes on the CPU.

Triangles are written into a buffer of triangle numbers (painter's order, one OpenCV call each,
about 1.5 microseconds), then every pixel looks up the affine function of its triangle, so that the
rest is vectorised. A 256-pixel face of 898 triangles takes a few milliseconds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import MissingDependencyError, ShapeError

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]
ImageArray = NDArray[np.uint8]
LabelArray = NDArray[np.int32]

SUBPIXEL_BITS = 4
MAX_TRIANGLES = 32_767
MIN_HEIGHT_PX = 1.0
"""Triangles seen edge-on are thinner than this and take one constant value, no steep slope."""


def opencv() -> Any:
    """The ``cv2`` module, imported on first use.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "drawing needs OpenCV (expected module cv2, got none); it comes with mediapipe: "
            "pip install talkhead"
        ) from error
    return cv2


def signed_areas(points: FloatArray, triangles: IndexArray) -> FloatArray:
    """Twice the signed area of every projected triangle, ``(N,)`` in square pixels.

    With x right and y down, triangles of the face mesh that face the viewer are negative.
    """
    a, b, c = (points[triangles[:, k], :2] for k in range(3))
    e, f = b - a, c - a
    return np.asarray(e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0], np.float32)


def vertex_normals(vertices: FloatArray, triangles: IndexArray, *, smooth: int = 1) -> FloatArray:
    """Area-weighted unit normals that point out of the surface.

    Args:
        vertices: ``(V, 3)``, x right, y down, z away from the viewer.
        triangles: ``(N, 3)``, wound as in the face mesh.
        smooth: How many times each normal is averaged with those of its triangles, which hides
            the facets of a coarse mesh.

    Returns:
        ``(V, 3)`` float32 unit vectors; a face looking at the viewer has normals with ``z < 0``.
    """
    corners = vertices[triangles]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = _scatter(face, triangles, len(vertices))
    for _ in range(smooth):
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        normals = _scatter(normals[triangles].mean(axis=1), triangles, len(vertices))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    return np.asarray(normals, np.float32)


def _scatter(values: NDArray[Any], triangles: IndexArray, count: int) -> NDArray[np.float64]:
    """Sum per-triangle vectors ``(N, 3)`` into their corners, ``(V, 3)``."""
    index = triangles.ravel()
    return np.stack(
        [np.bincount(index, np.repeat(values[:, k], 3), minlength=count) for k in range(3)], axis=1
    )


def lambert(normals: FloatArray, light: FloatArray, *, ambient: float = 0.4) -> FloatArray:
    """Diffuse brightness of every vertex.

    Args:
        normals: ``(V, 3)`` unit normals.
        light: ``(3,)`` direction from the surface towards the light, any length.
        ambient: Brightness of a surface that the light does not reach.

    Returns:
        ``(V,)`` in ``[ambient, 1]``.
    """
    direction = np.asarray(light, np.float32) / np.float32(np.linalg.norm(light))
    diffuse = np.clip(normals @ direction, 0.0, 1.0)
    return np.asarray(ambient + (1.0 - ambient) * diffuse, np.float32)


def paint_order(
    depths: FloatArray,
    triangles: IndexArray,
    layers: NDArray[np.integer[Any]] | None = None,
    keep: NDArray[np.bool_] | None = None,
) -> IndexArray:
    """Triangle numbers from the first to paint (far) to the last (near).

    Args:
        depths: ``(V,)`` distance from the viewer.
        triangles: ``(N, 3)``.
        layers: ``(N,)`` painted in rising order whatever the depth says.
        keep: ``(N,)`` triangles to paint at all.
    """
    depth = -depths[triangles].mean(axis=1)
    order = np.argsort(depth) if layers is None else np.lexsort((depth, layers))
    return np.asarray(order if keep is None else order[keep[order]], np.intp)


def triangle_ids(
    points: FloatArray, triangles: IndexArray, order: IndexArray, height: int, width: int
) -> LabelArray:
    """Number of the frontmost triangle of every pixel.

    Args:
        points: ``(V, 2..3)`` pixel positions; integer coordinates are pixel centres.
        triangles: ``(N, 3)``.
        order: Triangle numbers in painting order.
        height: Picture height in pixels.
        width: Picture width in pixels.

    Returns:
        ``(height, width)`` int32, -1 where nothing was painted.
    """
    cv2 = opencv()
    ids = np.full((height, width), -1, np.int32)
    limit = 4.0 * max(height, width)
    fixed = np.rint(np.clip(points[:, :2], -limit, limit) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    corners = fixed[triangles[order]]
    fill = cv2.fillConvexPoly
    for number, corner in zip(order.tolist(), corners, strict=True):
        fill(ids, corner, number, 8, SUBPIXEL_BITS)
    return ids


def interpolate(
    ids: LabelArray, points: FloatArray, triangles: IndexArray, attributes: FloatArray
) -> FloatArray:
    """Per-pixel values of per-vertex attributes.

    Args:
        ids: ``(H, W)`` from :func:`triangle_ids`.
        points: ``(V, 2..3)`` pixel positions.
        triangles: ``(N, 3)``.
        attributes: ``(V, K)``.

    Returns:
        ``(H, W, K)`` float32, zero where ``ids`` is -1.

    Raises:
        ShapeError: There are more than 32767 triangles, or ``attributes`` and ``points``
            disagree on the number of vertices.
    """
    if len(attributes) != len(points):
        raise ShapeError(
            f"attributes: expected one row for each of {len(points)} vertices, got "
            f"{len(attributes)}; pass (V, K)."
        )
    if len(triangles) > MAX_TRIANGLES:
        raise ShapeError(
            f"triangles: expected at most {MAX_TRIANGLES}, got {len(triangles)}; "
            "use a coarser mesh."
        )
    cv2 = opencv()
    gradient, offset = _affine(points, triangles, np.asarray(attributes, np.float32))
    table = ids.astype(np.int16)
    where = cv2.merge([np.zeros_like(table), table])
    # A nearest-neighbour remap is the fastest gather at hand; row -1 lies outside and gives zero.
    parts = []
    for first in range(0, attributes.shape[1], 4):
        kinds = slice(first, first + 4)
        along_x, along_y, value = (
            cv2.remap(np.ascontiguousarray(t[:, None, kinds]), where, None, cv2.INTER_NEAREST)
            for t in (gradient[:, 0], gradient[:, 1], offset)
        )
        columns, rows = _pixel_grid(*ids.shape, value.shape[2] if value.ndim == 3 else 1)
        parts.append(cv2.add(cv2.add(along_x * columns, along_y * rows), value))
    joined = [p.reshape(*ids.shape, -1) for p in parts]
    return np.asarray(joined[0] if len(joined) == 1 else np.concatenate(joined, axis=2))


@lru_cache(maxsize=16)
def _pixel_grid(height: int, width: int, channels: int) -> tuple[FloatArray, FloatArray]:
    """Column and row number of every pixel, ``(height, width[, channels])`` each."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    if channels == 1:
        return columns, rows
    return np.repeat(columns[..., None], channels, 2), np.repeat(rows[..., None], channels, 2)


def _affine(
    points: FloatArray, triangles: IndexArray, attributes: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Slope ``(N, 2, K)`` and offset ``(N, K)`` of the attributes over each triangle."""
    xy = points[:, :2].astype(np.float64)
    a, b, c = (xy[triangles[:, k]] for k in range(3))
    e, f = b - a, c - a
    area = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]
    longest = np.sqrt(np.max([(e**2).sum(1), (f**2).sum(1), ((f - e) ** 2).sum(1)], axis=0))
    thin = np.abs(area) < MIN_HEIGHT_PX * np.maximum(longest, 1e-6)
    inverse = np.where(thin, 0.0, 1.0 / np.where(thin, 1.0, area))[:, None]
    first, second, third = (attributes[triangles[:, k]] for k in range(3))
    du, dv = second - first, third - first
    gradient = np.stack(
        [(du * f[:, 1:] - dv * e[:, 1:]) * inverse, (dv * e[:, :1] - du * f[:, :1]) * inverse],
        axis=1,
    )
    centre = (a + b + c) / 3.0
    offset = (first + second + third) / 3.0 - np.einsum("nj,njk->nk", centre, gradient)
    return gradient.astype(np.float32), offset.astype(np.float32)


def sample_texture(texture: NDArray[Any], uv: FloatArray) -> NDArray[Any]:
    """Bilinear look-up of ``texture (h, w, C)`` at ``uv (H, W, 2)`` texel positions."""
    cv2 = opencv()
    return np.asarray(
        cv2.remap(
            texture,
            np.ascontiguousarray(uv[..., 0]),
            np.ascontiguousarray(uv[..., 1]),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )


def render_mesh(
    points: FloatArray,
    triangles: IndexArray,
    height: int,
    width: int,
    *,
    uv: FloatArray | None = None,
    texture: ImageArray | None = None,
    colours: FloatArray | None = None,
    shade: FloatArray | None = None,
    cull: bool = True,
) -> tuple[ImageArray, NDArray[np.bool_]]:
    """Draw one mesh, textured or with a colour for each vertex.

    Args:
        points: ``(V, 2)`` or ``(V, 3)`` pixel positions; the third value is the depth.
        triangles: ``(N, 3)``, wound as in the face mesh.
        height: Picture height in pixels.
        width: Picture width in pixels.
        uv: ``(V, 2)`` texel positions, together with ``texture``.
        texture: ``(h, w, 3)`` uint8.
        colours: ``(V, 3)`` in ``[0, 255]``, instead of a texture.
        shade: ``(V,)`` brightness factor, for example from :func:`lambert`.
        cull: Leave out triangles that face away.

    Returns:
        The picture ``(height, width, 3)`` uint8, black outside the mesh, and the mask of the mesh.

    Raises:
        ShapeError: Neither a texture with ``uv`` nor ``colours`` was given, or both were.
    """
    textured = uv is not None and texture is not None
    if textured == (colours is not None):
        raise ShapeError(
            "render_mesh: expected either uv and texture or colours, got "
            f"uv={uv is not None}, texture={texture is not None}, colours={colours is not None}; "
            "give exactly one kind of paint."
        )
    depths = points[:, 2] if points.shape[1] > 2 else np.zeros(len(points), np.float32)
    keep = signed_areas(points, triangles) < 0 if cull else None
    order = paint_order(depths, triangles, keep=keep)
    ids = triangle_ids(points, triangles, order, height, width)
    paint = np.asarray(uv if textured else colours, np.float32)
    light = np.ones(len(points), np.float32) if shade is None else shade
    values = interpolate(ids, points, triangles, np.column_stack([paint, light]))
    if texture is not None:
        colour = sample_texture(texture, values[..., :2]).astype(np.float32)
    else:
        colour = values[..., :3]
    mask = ids >= 0
    picture = np.clip(colour * values[..., -1:] + 0.5, 0, 255) * mask[..., None]
    return picture.astype(np.uint8), mask


def soften_edges(picture: ImageArray, labels: NDArray[Any]) -> ImageArray:
    """Antialias the borders between the areas of ``labels (H, W)`` by a 3x3 blur along them."""
    cv2 = opencv()
    edge = np.zeros(labels.shape, np.uint8)
    across = labels[:, 1:] != labels[:, :-1]
    down = labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    blurred = cv2.GaussianBlur(picture, (3, 3), 0.8)
    return np.asarray(cv2.copyTo(blurred, edge, picture.copy()))
