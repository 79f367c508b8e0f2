"""Drawn talking faces with known truth: the pictures of the embedded corpus.

A face is the canonical landmark mesh, deformed by its identity and by a :class:`FaceState`, painted
with a skin texture, smooth shading, hair, neck and clothes. The drawing is made so that a face
tracker trained on photographs finds it and reads its pose, mouth, lids and gaze.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talkhead.corpus.state import FaceState
from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.render import rasterizer as rz
from talkhead.render.face_details import (
    EyePaint,
    MouthPaint,
    mouth_shapes,
    paint_eye,
    paint_glasses,
    paint_mouth,
)
from talkhead.render.face_rig import FaceRig, rotation_matrix
from talkhead.render.head_parts import LAYER_FACE, LAYER_HAIR, SKULL_CENTRE, Part, build_parts
from talkhead.render.identity import IDENTITY_SEEDS, Identity
from talkhead.render.skin_texture import SkinPainter

__all__ = ["IDENTITY_SEEDS", "Identity", "PaintedFace"]

FloatArray = NDArray[np.float32]
ImageArray = NDArray[np.uint8]

FACE_TEXELS = 320
SIDE_TEXELS = 128
HEAD_CENTRE = (0.5, 0.515)
"""Where the centre of the face mesh sits in the crop at rest."""
BODY_SHIFT = 0.55
"""Share of the head's translation that the shoulders follow."""
AMBIENT = 0.50
SPECULAR = 46.0


class PaintedFace:
    """Draws one identity in any state.

    Args:
        identity: Who.
        size: Picture side in pixels.
    """

    def __init__(self, identity: Identity, size: int = 256) -> None:
        """Paint everything that does not change from frame to frame."""
        if size < 32:
            raise ShapeError(
                f"size: expected at least 32 pixels, got {size}; draw larger and shrink."
            )
        self.identity = identity
        self.size = size
        self.rig = FaceRig(identity.face)
        self._parts = build_parts(identity)
        self._assemble()
        self._texture = _atlas(identity)
        self._background = _background(identity, size)
        self._mouth_shapes = mouth_shapes(identity.face)
        skin = np.asarray(identity.skin)
        lip = np.asarray(identity.lip)
        lash = tuple((0.25 * np.asarray(identity.hair) * 0.6 + 8).tolist())
        self._eye_paint = EyePaint(identity.eye, lash, identity.lashes, 222.0 + 0.08 * skin.mean())
        self._mouth_paint = MouthPaint(
            cavity=(46.0, 16.0, 18.0),
            teeth=(232.0, 226.0, 212.0),
            tongue=(168.0, 82.0, 84.0),
            seam=tuple((lip * [0.42, 0.33, 0.35]).tolist()),
        )

    def landmarks(self, state: FaceState, t: int) -> FloatArray:
        """True landmark positions of frame ``t`` in crop units, ``(478, 3)``."""
        local = self.rig.local(state, t)
        return self._to_crop(local, state, t)

    def draw(self, state: FaceState, t: int) -> ImageArray:
        """Frame ``t`` as ``(size, size, 3)`` uint8 RGB."""
        points = self.landmarks(state, t)
        vertices = self._place_parts(points, state, t)
        picture = self._render(vertices, rotation_matrix(state.rotation[t]))
        pixels = points * self.size - np.array([0.5, 0.5, 0.0], np.float32)
        self._paint_details(picture, pixels.astype(np.float32), state, t)
        return picture

    def _to_crop(self, local: FloatArray, state: FaceState, t: int) -> FloatArray:
        scale = self.identity.head_scale * float(state.scale[t])
        out = scale * local @ rotation_matrix(state.rotation[t]).T
        out[:, :2] += np.asarray(HEAD_CENTRE, np.float32) + state.translation[t]
        return np.asarray(out, np.float32)

    def _assemble(self) -> None:
        """One vertex and triangle list of the face mesh and all parts around it."""
        uv = [ft.canonical_uv() * (FACE_TEXELS - 1)]
        triangles, layers = [ft.triangles()], [np.full(len(ft.triangles()), LAYER_FACE)]
        vertices, follow = [], []
        occlusion = [np.ones(ft.N_MESH, np.float32)]
        glossy = [np.ones(ft.N_MESH, np.float32)]
        count = ft.N_MESH
        for part in self._parts:
            uv.append(_atlas_uv(part))
            triangles.append(part.triangles + count)
            layers.append(np.full(len(part.triangles), part.layer))
            vertices.append(part.vertices)
            follow.append(part.follow)
            occlusion.append(part.occlusion)
            glossy.append(np.full(len(part.vertices), float(part.material != "cloth")))
            count += len(part.vertices)
        self._uv = np.concatenate(uv).astype(np.float32)
        self._triangles = np.concatenate(triangles).astype(np.intp)
        self._layers = np.concatenate(layers)
        self._part_vertices = np.concatenate(vertices)
        self._follow = np.concatenate(follow)[:, None]
        self._occlusion = np.concatenate(occlusion)
        self._glossy = np.concatenate(glossy).astype(np.float32)
        side = next(i for i, p in enumerate(self._parts) if p.layer == LAYER_FACE)
        start = sum(len(p.vertices) for p in self._parts[:side])
        self._side = slice(start, start + len(self._parts[side].vertices))
        everything = np.concatenate([self.identity.face[: ft.N_MESH], self._part_vertices])
        self._outward = everything[self._triangles].mean(axis=1) - np.array(
            SKULL_CENTRE, np.float32
        )
        self._outward[self._layers != LAYER_HAIR] = 0.0
        self._outward[:, 1] = np.minimum(self._outward[:, 1], 0.0)

    def _place_parts(self, points: FloatArray, state: FaceState, t: int) -> FloatArray:
        """All vertices of frame ``t`` in crop units, ``(V, 3)``, the face mesh first."""
        head = self._to_crop(self._part_vertices, state, t)
        body = self.identity.head_scale * self._part_vertices
        body[:, :2] += np.asarray(HEAD_CENTRE, np.float32) + BODY_SHIFT * state.translation[t]
        rest = body + self._follow * (head - body)
        # The skin behind the outline moves with the outline, which the jaw pulls down.
        oval = points[ft.FACE_OVAL]
        ring = np.concatenate([oval, oval[:1]])
        rows = rest[self._side].reshape(3, len(ring), 3)
        moved = ring - rows[0]
        rows += moved[None] * np.array([1.0, 0.6, 0.15], np.float32)[:, None, None]
        rest[self._side] = rows.reshape(-1, 3)
        return np.asarray(np.concatenate([points[: ft.N_MESH], rest]), np.float32)

    def _render(self, vertices: FloatArray, rotation: FloatArray) -> ImageArray:
        pixels = vertices[:, :2] * self.size - 0.5
        keep = rz.signed_areas(pixels, self._triangles) < 0
        # Hair is painted over the face: leave out what the head hides.
        keep &= self._outward @ rotation[2] <= 0.1
        order = rz.paint_order(vertices[:, 2], self._triangles, self._layers, keep)
        ids = rz.triangle_ids(pixels, self._triangles, order, self.size, self.size)
        shade, shine = self._light(vertices)
        values = rz.interpolate(
            ids, pixels, self._triangles, np.column_stack([self._uv, shade, shine])
        )
        picture = self._background.copy()
        self._shade_pixels(values, (ids >= 0).astype(np.uint8), picture)
        labels = np.append(self._layers, -1)[ids]
        return rz.soften_edges(picture, labels)

    def _shade_pixels(
        self, values: FloatArray, mask: NDArray[np.uint8], picture: ImageArray
    ) -> None:
        """Texture times light plus highlight, written into ``picture`` where ``mask`` is set."""
        cv2 = rz.opencv()
        red, green, blue, gloss = cv2.split(rz.sample_texture(self._texture, values[..., :2]))
        light, shine = np.ascontiguousarray(values[..., 2]), np.ascontiguousarray(values[..., 3])
        shine = cv2.multiply(shine, gloss, scale=SPECULAR / 255.0, dtype=cv2.CV_32F)
        # Skin lets red light through: shadows lose red last.
        channels = []
        for texel, keep in ((red, 0.10), (green, 0.0), (blue, -0.04)):
            lit = cv2.multiply(texel, light * (1.0 - keep) + keep, dtype=cv2.CV_32F)
            channels.append(cv2.add(lit, shine, dtype=cv2.CV_8U))
        cv2.copyTo(cv2.merge(channels), mask, picture)

    def _light(self, vertices: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Diffuse brightness and highlight of every vertex, ``(V,)`` each."""
        normals = rz.vertex_normals(vertices, self._triangles, smooth=1)
        seam = ft.N_MESH + self._side.start + np.arange(len(ft.FACE_OVAL))
        normals[ft.FACE_OVAL] += normals[seam]
        normals[ft.FACE_OVAL] /= np.linalg.norm(normals[ft.FACE_OVAL], axis=1, keepdims=True)
        normals[np.append(seam, seam[-1] + 1)] = normals[np.append(ft.FACE_OVAL, ft.FACE_OVAL[0])]
        light = self.identity.light
        wrapped = np.clip((normals @ light + 0.35) / 1.35, 0, 1)
        shade = (AMBIENT + (1.12 - AMBIENT) * wrapped) * self._occlusion
        half = light + np.array([0, 0, -1], np.float32)
        shine = np.clip(normals @ (half / np.linalg.norm(half)), 0, 1) ** 16 * self._glossy
        return shade.astype(np.float32), shine.astype(np.float32)

    def _paint_details(
        self, picture: ImageArray, pixels: FloatArray, state: FaceState, t: int
    ) -> None:
        jaw = float(state.jaw[t])

        def project(name: str) -> FloatArray:
            shape = self._mouth_shapes[name]
            local = shape if name == "upper_teeth" else self.rig.jaw_rotated(shape, 0.9 * jaw)
            crop = self._to_crop(local, state, t)
            return np.asarray(crop[:, :2] * self.size - 0.5, np.float32)

        paint_mouth(
            picture,
            pixels[ft.LIPS_INNER_UPPER],
            pixels[ft.LIPS_INNER_LOWER],
            self._mouth_paint,
            project,
        )
        for iris, upper, lower in (
            (ft.PICTURE_LEFT_IRIS, ft.PICTURE_LEFT_UPPER_LID, ft.PICTURE_LEFT_LOWER_LID),
            (ft.PICTURE_RIGHT_IRIS, ft.PICTURE_RIGHT_UPPER_LID, ft.PICTURE_RIGHT_LOWER_LID),
        ):
            paint_eye(picture, pixels[iris], pixels[upper], pixels[lower], self._eye_paint)
        if self.identity.glasses:
            paint_glasses(picture, pixels, (40.0, 36.0, 36.0))


def _atlas_uv(part: Part) -> FloatArray:
    """Texel positions of a part in the texture that all parts share."""
    if part.material == "face":
        return part.uv * (FACE_TEXELS - 1)
    row = {"hair": 0, "skin": 1, "cloth": 2}[part.material]
    height = FACE_TEXELS // 3
    inset = 3.0
    area = np.array([SIDE_TEXELS - 2 * inset, height - 2 * inset], np.float32)
    return np.asarray(
        part.uv * area + np.array([FACE_TEXELS + inset, row * height + inset]), np.float32
    )


def _atlas(identity: Identity) -> ImageArray:
    """Shared texture ``(FACE_TEXELS, FACE_TEXELS + SIDE_TEXELS, 4)``: colour and gloss."""
    rng = np.random.default_rng([identity.seed, 5])
    face, gloss = SkinPainter(identity, FACE_TEXELS).paint()
    height = FACE_TEXELS // 3
    side = np.zeros((FACE_TEXELS, SIDE_TEXELS, 4), np.float32)
    hair = np.asarray(identity.hair, np.float32)
    side[:height, :, :3] = hair * _strands(rng, height)[..., None]
    side[:height, :, 3] = 150.0
    skin = np.asarray(identity.skin, np.float32) * np.array([0.98, 0.94, 0.93], np.float32)
    noise = rng.normal(0.0, 2.0, (height, SIDE_TEXELS, 1))
    side[height : 2 * height, :, :3] = skin + noise
    side[height : 2 * height, :, 3] = 40.0
    weave = rng.normal(0.0, 3.0, (FACE_TEXELS - 2 * height, SIDE_TEXELS, 1))
    side[2 * height :, :, :3] = np.asarray(identity.clothes, np.float32) + weave
    left = np.concatenate([face, np.rint(gloss * 255)[..., None].astype(np.uint8)], axis=2)
    return np.concatenate([left, np.clip(side, 0, 255).astype(np.uint8)], axis=1)


def _strands(rng: np.random.Generator, height: int) -> FloatArray:
    """Brightness of hair: streaks along the strands and a soft band of light."""
    cv2 = rz.opencv()
    rough = rng.normal(0.0, 1.0, (6, SIDE_TEXELS)).astype(np.float32)
    streaks = cv2.resize(rough, (SIDE_TEXELS, height), interpolation=cv2.INTER_CUBIC)
    wide = rng.normal(0.0, 1.0, (4, 18)).astype(np.float32)
    streaks = 0.13 * streaks + 0.10 * cv2.resize(wide, (SIDE_TEXELS, height))
    row = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None]
    band = 0.30 * np.exp(-(((row - 0.30) / 0.12) ** 2))
    return np.asarray(np.clip(0.95 + streaks + band, 0.4, 1.9), np.float32)


def _background(identity: Identity, size: int) -> ImageArray:
    top, bottom = (np.asarray(c, np.float32) for c in identity.background)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    fall = np.clip(0.75 * y + 0.25 * np.hypot(x - 0.5, y - 0.4), 0, 1)[..., None]
    return np.asarray(np.clip(top + (bottom - top) * fall, 0, 255), np.uint8)
