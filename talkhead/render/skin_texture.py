"""Paints the skin of a face once: tone, mottling, shadows, brows, lips, nostrils, beard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talkhead.geometry import face_topology as ft
from talkhead.render.identity import Colour, Identity
from talkhead.render.rasterizer import ImageArray, opencv

FloatArray = NDArray[np.float32]

_SUPERSAMPLE = 2
_NOSTRILS = ((79, 239, 238, 241, 20, 60, 166), (309, 459, 458, 461, 250, 290, 392))
_CREASES = ((247, 30, 29, 27, 28, 56, 190), (467, 260, 259, 257, 258, 286, 414))
_FOLDS = ((129, 203, 206, 216), (358, 423, 426, 436))
_UNDER_EYES = ((31, 228, 229, 230, 231, 232, 233), (261, 448, 449, 450, 451, 452, 453))
_LID_SKIN = (
    (246, 161, 160, 159, 158, 157, 173, 190, 56, 28, 27, 29, 30, 247),
    (466, 388, 387, 386, 385, 384, 398, 414, 286, 258, 257, 259, 260, 467),
)


class SkinPainter:
    """Paints one identity's face texture in the mesh's texture coordinates.

    Args:
        identity: Whose skin.
        size: Side of the square texture in texels.
    """

    def __init__(self, identity: Identity, size: int) -> None:
        """Start from the plain skin tone."""
        self.identity = identity
        self.size = size
        self._side = size * _SUPERSAMPLE
        self._uv = ft.canonical_uv() * self._side
        self._rng = np.random.default_rng([identity.seed, 31])
        self._skin = np.asarray(identity.skin, np.float32)
        self._canvas: FloatArray = np.tile(self._skin, (self._side, self._side, 1))

    def paint(self) -> tuple[ImageArray, FloatArray]:
        """The texture ``(size, size, 3)`` uint8 and its gloss ``(size, size)`` in ``[0, 1]``."""
        self._tint()
        self._shadows()
        self._marks()
        self._beard()
        self._nostrils()
        self._lids()
        self._brows()
        gloss = self._lips()
        cv2 = opencv()
        small = cv2.resize(self._canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        shine = cv2.resize(gloss, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.clip(small, 0, 255).astype(np.uint8), np.asarray(shine, np.float32)

    def _at(self, indices: tuple[int, ...] | NDArray[np.intp]) -> FloatArray:
        return np.asarray(self._uv[np.asarray(indices)], np.float32)

    def _blob(self, at: FloatArray, radius: float, stretch: float = 1.0) -> FloatArray:
        """Gaussian spot of ``radius`` (share of the texture side) at texel ``at``."""
        grid = np.arange(self._side, dtype=np.float32)
        r = radius * self._side
        gx = np.exp(-0.5 * ((grid - at[0]) / (r * stretch)) ** 2)
        gy = np.exp(-0.5 * ((grid - at[1]) / r) ** 2)
        return np.asarray(gy[:, None] * gx[None, :], np.float32)

    def _polygon(self, points: FloatArray, blur: float) -> FloatArray:
        """Soft mask of a polygon, ``blur`` in shares of the side."""
        cv2 = opencv()
        mask = np.zeros((self._side, self._side), np.float32)
        cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur * self._side), np.float32)

    def _line(self, points: FloatArray, width: float, blur: float) -> FloatArray:
        """Soft mask of an open polyline, ``width`` and ``blur`` in shares of the side."""
        cv2 = opencv()
        mask = np.zeros((self._side, self._side), np.uint8)
        thick = max(1, round(width * self._side))
        cv2.polylines(
            mask, [np.rint(points * 16).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 4
        )
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur * self._side), np.float32) / 255.0

    def _blend(self, mask: FloatArray, colour: FloatArray | Colour, strength: float) -> None:
        where = _extent(mask)
        part = self._canvas[where]
        alpha = np.clip(mask[where] * np.float32(strength), 0.0, 1.0)[..., None]
        part += (np.asarray(colour, np.float32) - part) * alpha

    def _darken(self, mask: FloatArray, strength: float) -> None:
        """Shadow that keeps more red than green and blue, as skin does."""
        where = _extent(mask)
        shade = np.clip(mask[where], 0, 1) * np.float32(strength)
        part = self._canvas[where]
        for channel, share in enumerate((0.75, 1.0, 1.05)):
            part[..., channel] *= 1 - shade * np.float32(share)

    def _noise(self, cells: int) -> FloatArray:
        cv2 = opencv()
        noise = self._rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32)
        return np.asarray(
            cv2.resize(noise, (self._side, self._side), interpolation=cv2.INTER_CUBIC), np.float32
        )

    def _tint(self) -> None:
        mottle = 1.6 * self._noise(9) + 1.3 * self._noise(28) + 1.1 * self._noise(90)
        mottle += 1.2 * self._noise(220)
        self._canvas += mottle[..., None] * np.array([0.9, 1.0, 1.0], np.float32)
        rosy = self._skin * np.array([1.03, 0.80, 0.78], np.float32)
        for index in (205, 425):
            self._blend(self._blob(self._at((index,))[0], 0.075), rosy, 0.42)
        self._blend(self._blob(self._at((4,))[0], 0.04), rosy, 0.40)
        self._blend(self._blob(self._at((199,))[0], 0.05), rosy, 0.22)
        light = np.minimum(self._skin * 1.07 + 6, 252)
        for index, radius in ((9, 0.09), (50, 0.05), (280, 0.05), (195, 0.03), (199, 0.035)):
            self._blend(self._blob(self._at((index,))[0], radius), light, 0.4)

    def _shadows(self) -> None:
        for eye in (ft.PICTURE_LEFT_EYE, ft.PICTURE_RIGHT_EYE):
            self._darken(self._blob(self._at(eye).mean(axis=0), 0.052, 1.5), 0.20)
        for inner in ((193, 245), (417, 465)):
            self._darken(self._blob(self._at(inner).mean(axis=0), 0.026), 0.22)
        for under in _UNDER_EYES:
            self._darken(self._line(self._at(under), 0.012, 0.010), 0.16)
        for fold in _FOLDS:
            strength = 0.10 + 0.25 * self.identity.wrinkles
            self._darken(self._line(self._at(fold), 0.007, 0.007), strength)
        for wing in ((102, 64, 98), (331, 294, 327)):
            self._darken(self._line(self._at(wing), 0.008, 0.006), 0.38)
        for flank in ((198, 131, 49), (420, 360, 279)):
            self._darken(self._line(self._at(flank), 0.02, 0.018), 0.17)
        # Under the nose and, longer, on the side away from the light.
        shift = -self.identity.light[0] * 0.03 * self._side
        under_nose = self._at((97, 2, 326, 164)).mean(axis=0) + np.array(
            [shift, 0.004 * self._side], np.float32
        )
        self._darken(self._blob(under_nose.astype(np.float32), 0.016, 2.2), 0.30)
        self._darken(self._line(self._at((97, 2, 326)), 0.008, 0.006), 0.25)
        self._darken(self._line(self._at((83, 18, 313)), 0.022, 0.014), 0.30)
        for ridge in ((167, 37), (393, 267)):
            self._blend(self._line(self._at(ridge), 0.006, 0.005), self._skin * 1.08 + 4, 0.35)
        self._darken(self._line(self._at((164, 0)), 0.008, 0.006), 0.14)
        oval = self._polygon(self._at(ft.FACE_OVAL), 0.035)
        self._darken(1.0 - np.clip(oval * 1.15, 0, 1), 0.10)

    def _marks(self) -> None:
        cv2 = opencv()
        spots = np.zeros((self._side, self._side), np.float32)
        for _ in range(self.identity.freckles):
            base = self._at((205, 425, 5))[int(self._rng.integers(3))]
            at = base + self._rng.normal(0.0, [0.09, 0.04]) * self._side
            radius = float(self._rng.uniform(0.8, 2.0))
            cv2.circle(spots, tuple(np.rint(at).astype(int).tolist()), round(radius), 1.0, -1)
        self._blend(cv2.GaussianBlur(spots, (0, 0), 0.9), self._skin * [0.72, 0.58, 0.5], 0.6)
        age = self.identity.wrinkles
        for row, width in (((69, 108, 151, 337, 299), 0.004), ((66, 107, 9, 336, 296), 0.004)):
            line = self._at(row) - [0, 0.035 * self._side]
            self._darken(self._line(line.astype(np.float32), width, 0.003), 0.22 * age)
        for crow in ((130, 226, 35), (359, 446, 265)):
            self._darken(self._line(self._at(crow), 0.003, 0.003), 0.22 * age)

    def _beard(self) -> None:
        strength = self.identity.stubble
        if strength <= 0:
            return
        jaw = (177, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 401)
        area = self._polygon(self._at((*jaw, 435, 410, 391, 164, 165, 186, 215)), 0.025)
        speckle = np.clip(0.75 + 0.3 * self._noise(self._side // 2), 0, 1.4)
        mouth = self._polygon(self._at(ft.LIPS_OUTER), 0.006)
        mask = np.clip(area * speckle * (1.0 - mouth), 0, 1)
        self._blend(mask, np.asarray(self.identity.hair) * 0.75, 0.42 * strength)

    def _nostrils(self) -> None:
        dark = self._skin * np.array([0.26, 0.15, 0.13], np.float32)
        for hole in _NOSTRILS:
            points = self._at(hole)
            self._blend(self._blob(points.mean(axis=0), 0.0085, 1.5), dark, 1.0)

    def _lids(self) -> None:
        dark = self._skin * np.array([0.45, 0.32, 0.28], np.float32)
        for lid in _LID_SKIN:
            self._darken(self._polygon(self._at(lid), 0.006), 0.14)
        for crease in _CREASES:
            self._blend(self._line(self._at(crease), 0.004, 0.0025), dark, 0.75)
        for ring in (ft.PICTURE_LEFT_EYE, ft.PICTURE_RIGHT_EYE):
            self._darken(self._polygon(self._at(ring), 0.004), 0.30)

    def _brows(self) -> None:
        cv2 = opencv()
        thickness = self.identity.brow_thickness
        mask = np.zeros((self._side, self._side), np.uint8)
        for brow, outward in ((ft.PICTURE_LEFT_BROW, -1.0), (ft.PICTURE_RIGHT_BROW, 1.0)):
            points = self._at(brow)
            upper, lower = points[:5], points[:4:-1]
            for _ in range(420):
                along = float(self._rng.beta(1.2, 1.25)) * 3.999
                k, part = int(along), along - int(along)
                top = upper[k] * (1 - part) + upper[k + 1] * part
                low = lower[k] * (1 - part) + lower[k + 1] * part
                taper = 0.45 + 0.55 * np.sin(np.pi * (0.18 + 0.75 * along / 4.0))
                across = 0.55 + float(self._rng.uniform(-0.5, 0.5)) * thickness * taper * 0.85
                start = top * (1 - across) + low * across
                lift = -0.9 + 0.55 * (1.0 - along / 4.0)
                hair = np.array([outward * (0.6 + 0.5 * (1 - along / 4.0)), lift])
                end = start + hair * self._side * 0.016
                line = np.rint(np.stack([start, end]) * 16).astype(np.int32)
                cv2.polylines(mask, [line], False, 255, 1, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(mask, (0, 0), 0.0022 * self._side).astype(np.float32) / 255.0
        self._blend(np.clip(soft * 1.25, 0, 1), self.identity.brow, 0.88)

    def _lips(self) -> FloatArray:
        lip = np.asarray(self.identity.lip, np.float32)
        mask = self._polygon(self._at(ft.LIPS_OUTER), 0.0035)
        self._blend(np.clip(mask * 1.2, 0, 1), lip, 0.92)
        upper = (*ft.LIPS_OUTER_UPPER, *ft.LIPS_INNER_UPPER[::-1])
        self._darken(self._polygon(self._at(upper), 0.004) * mask, 0.20)
        seam = self._line(self._at(ft.LIPS_INNER_LOWER), 0.006, 0.004)
        self._darken(seam * mask, 0.45)
        shine = self._line(self._at((179, 86, 15, 316, 403)), 0.009, 0.005)
        self._blend(shine * mask, np.minimum(lip * 1.25 + 22, 250), 0.45)
        gloss = 0.25 + 0.75 * mask
        for index, radius in ((4, 0.03), (9, 0.06), (50, 0.04), (280, 0.04), (195, 0.03)):
            gloss += 0.5 * self._blob(self._at((index,))[0], radius)
        return np.asarray(np.clip(gloss, 0, 1), np.float32)


def _extent(mask: FloatArray) -> tuple[slice, slice]:
    """Rows and columns where a mask is more than nothing (a thousandth)."""
    bounds = []
    for axis in (1, 0):
        hits = np.flatnonzero(mask.max(axis=axis) > 1e-3)
        bounds.append(slice(int(hits[0]), int(hits[-1]) + 1) if len(hits) else slice(0, 0))
    return bounds[0], bounds[1]
