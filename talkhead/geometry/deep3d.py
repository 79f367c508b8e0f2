"""Coefficient tracks of Deep3DFaceRecon: another source of head pose and expression than the face mesh.

A track has one row of 257 numbers for each frame of its video: identity 80, expression 64, texture
80, rotation 3 (radians about x, y and z), lighting 27 and translation 3. Its axes are x right, y up
and z towards the viewer, so a vertex ``v`` of the face stands at ``Rz Ry Rx v + translation``. The
axes here point right, down and away (:mod:`talkhead.geometry.rotation`), which is half a turn about
x: the angle about x keeps its sign, those about y and z change it, and so do the second and third
entry of the translation.

Source: Deng et al. (2019); layout and camera as in the published PyTorch code (reference-facts 8.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import DataError, MissingDependencyError, ShapeError
from talkhead.specs import FPS

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

NAME = "deep3d"
LAYOUT = {
    "identity": slice(0, 80),
    "expression": slice(80, 144),
    "texture": slice(144, 224),
    "angles": slice(224, 227),
    "lighting": slice(227, 254),
    "translation": slice(254, 257),
}
"""Columns of a file's row, in the file's own axes."""
N_COEFFICIENTS = 257
MOTION_LAYOUT = {"rotation": slice(0, 3), "expression": slice(3, 67), "translation": slice(67, 70)}
"""Columns of :attr:`Deep3DTrack.motion`; the first 67 are those paper 1 measures (supplement I.2)."""
MOTION_DIM = 70
N_MEASURED = 67

# The key under which each part lies where a file holds the parts instead of whole rows.
_PART_KEYS = {
    "identity": "id",
    "expression": "exp",
    "texture": "tex",
    "angles": "angle",
    "lighting": "gamma",
    "translation": "trans",
}
_TO_PICTURE_AXES = np.array([1.0, -1.0, -1.0], np.float32)
_LARGEST_ANGLE = np.pi
_FOCAL_PX = 1015.0
_CAMERA_DISTANCE = 10.0
_MAX_MISSING_S = 0.2
"""Fitting tools drop a few frames at the end of a video; more than this is another video's track."""


@dataclass(frozen=True)
class Deep3DTrack:
    """The face in every frame of one video.

    Attributes:
        coefficients: Rows as in the file, ``(T, 257)`` float32.
        crop: Width, height, scale and centre (x, y with y up from the lower edge) of the crop that each
            row was fitted in, ``(T, 5)``, pixels of the video; None where the file does not say.
    """

    coefficients: Float32Array
    crop: Float32Array | None = None

    @property
    def frames(self) -> int:
        """Number of rows ``T``."""
        return len(self.coefficients)

    @property
    def rotation(self) -> Float32Array:
        """Pitch, yaw and roll in radians of :mod:`talkhead.geometry.rotation`, ``(T, 3)``.

        The file's angles (0.1, 0.2, 0.3) are pitch 0.1, yaw -0.2, roll -0.3.
        """
        turned: Float32Array = self.coefficients[:, LAYOUT["angles"]] * _TO_PICTURE_AXES
        return turned

    @property
    def expression(self) -> Float32Array:
        """Expression coefficients, ``(T, 64)``; not standardised."""
        return self.coefficients[:, LAYOUT["expression"]]

    @property
    def identity(self) -> Float32Array:
        """Identity coefficients, ``(T, 80)``."""
        return self.coefficients[:, LAYOUT["identity"]]

    @property
    def translation(self) -> Float32Array:
        """Head position right, down and away in units of the face model, ``(T, 3)``.

        It is relative to a crop that follows the face frame by frame, so it is nearly constant; see
        :meth:`place` for where the head is in the picture.
        """
        moved: Float32Array = self.coefficients[:, LAYOUT["translation"]] * _TO_PICTURE_AXES
        return moved

    @property
    def motion(self) -> Float32Array:
        """Rotation, expression and translation side by side, ``(T, 70)``: see :data:`MOTION_LAYOUT`."""
        return np.concatenate([self.rotation, self.expression, self.translation], axis=1)

    def place(self) -> Float64Array:
        """Where the head's origin is in the picture and how large the head is.

        Returns:
            ``(T, 3)``: x right and y down in pixels of the video, and pixels for one unit of the face
            model.

        Raises:
            ShapeError: The file did not say how its crops lie in the picture.

        Source: inverse of the published code's crop, without its rounding to whole pixels.
        """
        if self.crop is None:
            raise ShapeError(
                "expected crop parameters (transform_params) in the coefficient file, got none; the "
                "place in the picture is only known with them."
            )
        x, y, z = self.coefficients[:, LAYOUT["translation"]].astype(np.float64).T
        _, height, scale, centre_x, centre_y = self.crop.astype(np.float64).T
        pixels = _FOCAL_PX / (_CAMERA_DISTANCE - z) / scale
        return np.stack([centre_x + pixels * x, height - centre_y - pixels * y, pixels], axis=1)

    def on_clock(
        self, frames: int, fps_in: float, start_s: float = 0.0, lag_rows: int = 0
    ) -> Deep3DTrack:
        """The rows that belong to frames at 25 a second.

        Row ``floor((start_s + (t + 0.5) / 25) fps_in) - lag_rows`` goes with frame ``t``, whose picture
        :func:`talkhead.media.decode.iter_frames` takes from that time. The first and the last row stand
        for up to 0.2 s beyond the track.

        Args:
            frames: Number of frames wanted.
            fps_in: Frame rate of the video the track was made from.
            start_s: Where the frames begin in that video.
            lag_rows: Source frames by which the video comes later than the track, as
                :func:`talkhead.metrics.correlation.best_lag` finds it.

        Returns:
            A track of ``frames`` rows.

        Raises:
            DataError: The track does not cover the frames.
        """
        times_s = start_s + (np.arange(frames) + 0.5) / FPS
        # The guard keeps a time that falls on a frame's beginning from slipping before it.
        rows = np.floor(times_s * fps_in + 1e-6).astype(np.int64) - lag_rows
        spare = _MAX_MISSING_S * fps_in
        if len(rows) and (rows[0] < -spare or rows[-1] > self.frames - 1 + spare):
            raise DataError(
                f"expected a coefficient track with the rows {rows[0]} to {rows[-1]} for {frames} frames "
                f"from {start_s:g} s at {fps_in:g} fps, got {self.frames} rows; is it of another video?"
            )
        rows = rows.clip(0, self.frames - 1)
        return replace(
            self,
            coefficients=self.coefficients[rows],
            crop=None if self.crop is None else self.crop[rows],
        )


def read_deep3d(path: Path | str) -> Deep3DTrack:
    """Read a ``.mat`` file of coefficients.

    It holds either ``coeff`` ``(T, 257)``, maybe with ``transform_params`` ``(T, 5)``, or the parts
    ``id``, ``exp``, ``tex``, ``angle``, ``gamma`` and ``trans``, as the published code saves them.

    Raises:
        DataError: Missing or unreadable file, other shapes, values that are not finite, or angles beyond
            half a turn (degrees).
        MissingDependencyError: scipy is not installed.
    """
    path = Path(path)
    arrays = _load(path)
    if "coeff" in arrays:
        rows = _numbers(path, "coeff", arrays["coeff"], N_COEFFICIENTS)
    elif set(_PART_KEYS.values()) <= set(arrays):
        parts = [
            _numbers(path, key, arrays[key], LAYOUT[part].stop - LAYOUT[part].start)
            for part, key in _PART_KEYS.items()
        ]
        lengths = {len(part) for part in parts}
        if len(lengths) > 1:
            raise DataError(
                f"{path}: expected parts of one length, got {sorted(lengths)} rows; export them again."
            )
        rows = np.concatenate(parts, axis=1)
    else:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(
            f"{path}: expected coeff (T, {N_COEFFICIENTS}) or {', '.join(_PART_KEYS.values())}, got "
            f"{found}; is it a Deep3DFaceRecon coefficient file?"
        )
    angle = float(np.abs(rows[:, LAYOUT["angles"]]).max())
    if angle > _LARGEST_ANGLE:
        raise DataError(
            f"{path}: expected angles in radians, got {angle:.1f}; the columns are in another order or "
            "in degrees."
        )
    crop = None
    if "transform_params" in arrays:
        crop = _numbers(path, "transform_params", arrays["transform_params"], 5)
        if len(crop) != len(rows):
            raise DataError(
                f"{path}: expected {len(rows)} rows of transform_params, got {len(crop)}; export them "
                "again."
            )
    return Deep3DTrack(rows, crop)


def _load(path: Path) -> Mapping[str, Any]:
    """The named arrays of a MATLAB file."""
    if not path.is_file():
        raise DataError(f"no coefficient file at {path}; check the path.")
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingDependencyError(
            "reading .mat files needs scipy, which scikit-learn brings along; install it with: "
            "pip install scipy"
        ) from error
    try:
        arrays = loadmat(path, appendmat=False)
    # What scipy raises for text, for a file cut short and (the third) for version 7.3.
    except (MatReadError, ValueError, NotImplementedError, TypeError, IndexError, OSError) as error:
        raise DataError(
            f"cannot read {path} as a MATLAB file up to version 7 ({error}); export it again."
        ) from error
    return {name: value for name, value in arrays.items() if not name.startswith("__")}


def _numbers(path: Path, key: str, value: Any, width: int) -> Float32Array:
    """One array of a file as float32 rows, checked."""
    array = np.asarray(value)
    if (
        array.ndim != 2
        or array.shape[1] != width
        or len(array) == 0
        or array.dtype.kind not in "fiu"
    ):
        raise DataError(
            f"{path}: expected {key} (T, {width}) with at least one row of numbers, got "
            f"{array.dtype} {array.shape}; is it a Deep3DFaceRecon coefficient file?"
        )
    broken = ~np.isfinite(array).all(axis=1)
    if broken.any():
        raise DataError(
            f"{path}: {key} holds NaN or infinity in {int(broken.sum())} of {len(array)} rows, first in "
            f"row {int(broken.argmax())}; fit those frames again or cut them."
        )
    return np.ascontiguousarray(array, np.float32)
