"""Everything of a drawn person around the face mesh: hair, ears, neck, clothes, as one mesh.

Every vertex follows the head with a weight from 0 (stays with the body) to 1 (turns with the head).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkhead.geometry import face_topology as ft
from talkhead.render.identity import Identity

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

LAYER_BACK_HAIR, LAYER_TORSO, LAYER_NECK, LAYER_COLLAR, LAYER_EARS, LAYER_FACE, LAYER_HAIR = range(
    7
)
SKULL_CENTRE = (0.0, -0.30, 0.55)
SKULL_RADII = (0.90, 0.98, 0.95)
_HAIRLINE = (127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356)
_CLOSED_EARS = ("bob", "long", "curly")


@dataclass
class Part:
    """A piece of the drawn person.

    Attributes:
        vertices: ``(V, 3)`` in face space.
        triangles: ``(N, 3)``, wound as in the face mesh.
        uv: ``(V, 2)`` position in the part's own texture area, in ``[0, 1]``.
        follow: ``(V,)`` how far the vertex turns with the head.
        occlusion: ``(V,)`` brightness factor for places that light hardly reaches.
        material: ``"skin"``, ``"hair"`` or ``"cloth"``.
        layer: Painting order.
    """

    vertices: FloatArray
    triangles: IndexArray
    uv: FloatArray
    follow: FloatArray
    occlusion: FloatArray
    material: str
    layer: int


def grid_triangles(rows: int, columns: int, *, flip: bool = False) -> IndexArray:
    """Two triangles for each cell of a vertex grid.

    They face the viewer when columns go right and rows down in the picture.

    Args:
        rows: Vertex rows.
        columns: Vertex columns.
        flip: Face the other way.
    """
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    d, c = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    out = np.concatenate([np.stack([a, d, c], 1), np.stack([a, c, b], 1)])
    return np.asarray(out[:, ::-1].copy() if flip else out, np.intp)


def build_parts(identity: Identity) -> list[Part]:
    """All parts of a person other than the face mesh itself."""
    rng = np.random.default_rng([identity.seed, 77])
    style = identity.hair_style
    parts = [_torso(), *_neck(identity), _jaw_side(identity)]
    if style not in _CLOSED_EARS:
        parts += [_ear(identity, -1.0), _ear(identity, 1.0)]
    if style in ("bob", "long", "curly"):
        parts.append(_back_hair(identity))
    if style == "bun":
        parts.append(_bun(identity))
    parts.append(_hair_cap(identity, rng))
    return parts


def _grid_uv(rows: int, columns: int) -> FloatArray:
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    return np.asarray(np.stack([u.ravel(), v.ravel()], axis=1), np.float32)


def _grid_part(
    vertices: FloatArray,
    material: str,
    layer: int,
    *,
    follow: FloatArray | float = 1.0,
    occlusion: FloatArray | float = 1.0,
    flip: bool = False,
) -> Part:
    """Part from a ``(rows, columns, 3)`` grid; ``follow``, ``occlusion`` per row or for all."""
    rows, columns = vertices.shape[:2]

    def per_vertex(value: FloatArray | float) -> FloatArray:
        row = np.broadcast_to(np.asarray(value, np.float32).reshape(-1, 1), (rows, columns))
        return np.ascontiguousarray(row).ravel()

    return Part(
        vertices=vertices.reshape(-1, 3).astype(np.float32),
        triangles=grid_triangles(rows, columns, flip=flip),
        uv=_grid_uv(rows, columns),
        follow=per_vertex(follow),
        occlusion=per_vertex(occlusion),
        material=material,
        layer=layer,
    )


def _torso() -> Part:
    x = np.linspace(-2.0, 2.0, 21)
    shoulder = 1.27 + 0.30 * np.abs(x) ** 1.3 * 0.85 + np.clip(np.abs(x) - 1.35, 0, None) ** 2 * 2.2
    t = np.linspace(0.0, 1.0, 6)[:, None]
    y = shoulder[None] * (1 - t) + 3.4 * t
    z = 0.50 + 0.30 * x[None] ** 2 * 0.5 - 0.35 * np.sin(np.pi * np.minimum(t * 0.7 + 0.05, 0.5))
    grid = np.stack([np.broadcast_to(x, y.shape), y, np.broadcast_to(z, y.shape)], axis=-1)
    return _grid_part(grid, "cloth", LAYER_TORSO, follow=0.0, occlusion=np.linspace(0.86, 1.0, 6))


def _neck(identity: Identity) -> list[Part]:
    """The neck, its lower end cut out by the neckline, and the collar along that line."""
    half = 0.43 * float(np.abs(identity.face[[172, 397], 0]).mean()) / 0.62
    angle = np.linspace(-np.pi / 2, np.pi / 2, 15)
    rows = 10
    t = np.linspace(0.0, 1.0, rows)[:, None]
    flare = 1.0 + 0.42 * np.clip(t - 0.62, 0, None) ** 2 / 0.38**2
    x = half * np.sin(angle)[None] * flare
    bottom = 1.36 + 0.30 * np.cos(angle) ** 1.0
    y = 0.50 * (1 - t) + bottom[None] * t
    z = 0.62 - 0.40 * np.cos(angle)[None] + 0.0 * t
    grid = np.stack([x, y, z], axis=-1)
    follow = np.clip(1.0 - 1.05 * (np.linspace(0, 1, rows) - 0.12), 0, 1) ** 1.3
    shadow = 0.50 + 0.50 * np.clip((np.linspace(0, 1, rows) - 0.42) / 0.40, 0, 1) ** 1.2
    neck = _grid_part(grid, "skin", LAYER_NECK, follow=follow, occlusion=shadow)
    edge = grid[-1]
    out = edge + np.stack([edge[:, 0] * 0.09, np.full(15, 0.075), np.full(15, -0.05)], axis=-1)
    band = np.stack([edge - np.array([0, 0.012, 0]), out])
    collar = _grid_part(band, "cloth", LAYER_COLLAR, follow=0.0, occlusion=np.array([0.72, 0.92]))
    return [neck, collar]


def _jaw_side(identity: Identity) -> Part:
    """Skin behind the outline of the face mesh: jaw underside, temples, what a turned head shows.

    Its first row coincides with :data:`face_topology.FACE_OVAL`; the renderer keeps it there when
    the jaw moves.
    """
    oval = identity.face[ft.FACE_OVAL]
    ring = np.concatenate([oval, oval[:1]])
    centre = np.array([0.0, -0.15, 0.0], np.float32)
    rows = [ring]
    for back, shrink in ((0.22, 0.965), (0.46, 0.86)):
        shifted = (ring - centre) * np.array([shrink, shrink, 1.0]) + centre
        shifted[:, 2] = np.minimum(ring[:, 2] + back, np.maximum(ring[:, 2] + 0.05, 0.95))
        rows.append(shifted)
    grid = np.stack(rows)
    part = _grid_part(grid, "face", LAYER_FACE, occlusion=np.array([0.98, 0.92, 0.80]), flip=True)
    uv = ft.canonical_uv()[ft.FACE_OVAL]
    inner = 0.5 + (np.concatenate([uv, uv[:1]]) - 0.5) * 0.97
    part.uv = np.tile(inner, (3, 1)).astype(np.float32)
    return part


def _ear(identity: Identity, side: float) -> Part:
    """An ear of three rings: rim, rim's inner edge, hollow."""
    at = identity.face[454 if side > 0 else 234]
    centre = at + np.array([side * 0.045, 0.02, -0.02])
    outward = np.array([side * 0.62, 0.0, 0.62])
    phase = np.linspace(0.0, 2.0 * np.pi, 17) * side
    rings = []
    for radius, depth in ((1.0, 0.0), (0.68, -0.03), (0.25, 0.03)):
        width = 0.15 * radius * (1.0 + 0.25 * np.cos(phase + 0.8 * side))
        ring = centre + np.outer(width * np.sin(phase), outward) * side
        ring = ring + np.stack([0 * phase, -0.235 * radius * np.cos(phase), 0 * phase + depth], 1)
        rings.append(ring)
    grid = np.stack(rings)
    part = _grid_part(grid, "skin", LAYER_EARS, occlusion=np.array([0.95, 0.85, 0.55]))
    corner = part.vertices[part.triangles[:16, :]]
    facing = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])[:, 2].mean()
    if facing > 0:
        part.triangles = part.triangles[:, ::-1].copy()
    return part


def _back_hair(identity: Identity) -> Part:
    """Hair that hangs behind neck and shoulders."""
    length = {"bob": 1.05, "long": 2.1, "curly": 0.85}[identity.hair_style]
    width = {"bob": 1.12, "long": 1.10, "curly": 1.30}[identity.hair_style]
    rows, columns = 12, 13
    t = np.linspace(0.0, 1.0, rows)
    y = -1.15 * (1 - t) + length * t
    round_top = np.sqrt(np.clip(1.0 - np.clip((-0.2 - y) / 1.0, 0, 1) ** 2, 0.05, 1))
    end = 1.0 - 0.25 * np.clip((t - 0.75) / 0.25, 0, 1) ** 2
    half = width * round_top * end
    x = np.linspace(-1, 1, columns)[None] * half[:, None]
    z = 0.75 + 0.25 * np.linspace(-1, 1, columns)[None] ** 2 + 0.0 * x
    y_grid = np.broadcast_to(y[:, None], x.shape) - 0.35 * (x / width) ** 4 * t[:, None] ** 3
    grid = np.stack([x, y_grid, z], axis=-1)
    follow = np.clip(1.0 - np.clip((y - 0.5) / 1.6, 0, 1), 0, 1)
    return _grid_part(
        grid, "hair", LAYER_BACK_HAIR, follow=follow, occlusion=np.linspace(0.75, 0.62, rows)
    )


def _bun(identity: Identity) -> Part:
    theta = np.linspace(0.0, np.pi, 7)[:, None]
    phi = np.linspace(-np.pi / 2, np.pi / 2, 9)[None]
    sphere = np.stack(
        [np.sin(theta) * np.sin(phi), -np.cos(theta) + 0 * phi, -np.sin(theta) * np.cos(phi)], -1
    )
    grid = sphere * np.array([0.36, 0.30, 0.3]) + np.array([0.0, -1.42, 0.75])
    return _grid_part(grid, "hair", LAYER_BACK_HAIR, occlusion=0.92)


def _hairline(identity: Identity, rng: np.random.Generator, columns: int) -> FloatArray:
    """Front edge of the hair from the picture's left to its right, ``(columns, 3)``."""
    style = identity.hair_style
    front = identity.face[list(_HAIRLINE)].astype(np.float64)
    # Positive: further over the face; the curve makes a fringe, a parting or receding temples.
    place = np.linspace(-1.0, 1.0, len(front))
    inward = {
        "short": identity.hairline + 0.02 - 0.03 * np.cos(2.4 * np.pi * place),
        "side_part": identity.hairline + 0.08 * np.clip(place + 0.35, -0.4, 1.0),
        "bob": 0.16 + identity.hairline + 0.0 * place,
        "long": identity.hairline * 0.5 + 0.14 * np.abs(place) ** 0.7,
        "bun": 0.02 + identity.hairline * 0.5 + 0.0 * place,
        "curly": 0.06 + identity.hairline * 0.8 + 0.0 * place,
    }[style]
    inward = inward * (1.0 - 0.75 * np.abs(place) ** 3)
    centre = np.array([0.0, -0.25])
    radial = front[:, :2] - centre
    reach = np.linalg.norm(radial, axis=1, keepdims=True)
    front[:, :2] -= radial / reach * inward[:, None]
    front[:, 2] -= 0.55 * inward + 0.03
    drop = {"bob": 0.72, "long": 1.0, "curly": 0.35}.get(style, -0.10)
    ends = []
    for side, start in ((-1.0, front[0]), (1.0, front[-1])):
        t = np.linspace(1.0, 0.15, 4 if drop > 0 else 2)[:, None]
        stop = np.array([side * (0.90 if drop > 0 else 0.875), drop, 0.50 if drop > 0 else 0.70])
        ends.append(start * (1 - t) + stop * t)
    curve = np.concatenate([ends[0], front, ends[1][::-1]])
    place = np.linspace(0.0, len(curve) - 1.0, columns)
    line = np.stack(
        [np.interp(place, np.arange(len(curve)), curve[:, k]) for k in range(3)], axis=1
    )
    rough = {"curly": 0.022, "short": 0.010}.get(style, 0.006)
    line[:, :2] += rng.normal(0.0, rough, (columns, 2))
    return line.astype(np.float32)


def _hair_cap(identity: Identity, rng: np.random.Generator) -> Part:
    """Hair over the skull: lofted from the hairline backwards on an ellipsoid."""
    style = identity.hair_style
    rows, columns = 11, 47
    thickness = {"short": 0.07, "side_part": 0.13, "bob": 0.13, "long": 0.10, "bun": 0.04}.get(
        style, 0.26
    )
    line = _hairline(identity, rng, columns).astype(np.float64)
    centre = np.array(SKULL_CENTRE)
    # Curtains below the ears hang straight: their loft starts from a centre at their own height.
    below = np.clip(line[:, 1] - 0.0, 0.0, None)
    origin = np.tile(centre, (columns, 1))
    origin[:, 1] += below * 1.0 + np.clip(line[:, 1] + 0.3, 0, 0.3)
    start = line - origin
    reach = np.linalg.norm(start, axis=1, keepdims=True)
    first = start / reach
    last = np.array([0.0, 0.12, 1.0]) / np.linalg.norm([0.0, 0.12, 1.0])
    angle = np.arccos(np.clip(first @ last, -1, 1))[:, None]
    grid = np.empty((rows, columns, 3))
    bumps = rng.normal(0.0, 0.035 if style == "curly" else 0.004, (rows, columns, 1))
    asymmetry = 0.05 * first[:, :1] * (1.0 if style == "side_part" else 0.0)
    for row, t in enumerate(0.9 * np.linspace(0.0, 1.0, rows) ** 1.5):
        direction = (np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        radii = np.asarray(SKULL_RADII) + thickness
        shell = 1.0 / np.linalg.norm(direction / radii, axis=1, keepdims=True)
        rise = 1.0 - (1.0 - min(1.0, t * 2.2)) ** 3
        radius = reach * (1 - rise) + shell * (1.0 + asymmetry) * rise
        grid[row] = origin + direction * (radius + bumps[row] * rise)
    shadow = np.clip(0.72 + np.linspace(0, 1, rows) * 1.2, 0, 1.0)
    part = _grid_part(grid.astype(np.float32), "hair", LAYER_HAIR, occlusion=shadow, flip=True)
    # The back of the head is never seen, and its strips fold over where they meet.
    part.triangles = part.triangles[part.vertices[part.triangles, 2].max(axis=1) < 1.2]
    return part
