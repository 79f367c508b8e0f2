"""Smooth warps of the plane (thin plate splines): random ones, and the one through given points."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError

_SMALLEST_SQUARE = 1e-12
"""Least squared distance inside the logarithm: at a control point itself, bend and slope are 0."""


class ThinPlate(NamedTuple):
    r"""Warps ``w(z) = A z + b + sum_m c_m U(|z - q_m|)`` with ``U(r) = r^2 ln r``.

    Coordinates are those of keypoints: [-1, 1], x right, y down, (0, 0) the picture's centre.

    Attributes:
        affine: ``(n, 2, 3)``, the matrix ``A`` and in the last column ``b``; ``n`` may be 1, which is the
            same warp for all rows.
        controls: Control points ``q``, ``(M, 2)``.
        bends: Coefficients ``c``, ``(n, M, 2)``.
    """

    affine: Tensor
    controls: Tensor
    bends: Tensor

    def points(self, points: Tensor) -> Tensor:
        """Points ``(n, P, 2)`` to where the warp takes them, of the same shape.

        A warp with ``A`` the identity and ``b`` = (0.1, 0) takes (0.2, 0.5) to (0.3, 0.5).

        Raises:
            ShapeError: Not one set of points for every warp.
        """
        self._check(points, 3, "points (n, P, 2)")
        with torch.autocast(points.device.type, enabled=False):
            points = points.float() if points.dtype == torch.bfloat16 else points
            _, squares = self._from_controls(points)
            bend = _kernel(squares)
            moved = points @ self.affine[:, :, :2].mT + self.affine[:, None, :, 2]
            return moved + bend @ self.bends

    def jacobians(self, points: Tensor) -> Tensor:
        r"""Derivative of the warp at ``points``: ``A + sum_m c_m (2 ln r_m + 1) (z - q_m)^T``.

        Args:
            points: ``(n, P, 2)``; the result is differentiable in them.

        Returns:
            ``(n, P, 2, 2)``; row 0 is the change of the warped x with x and with y.

        Raises:
            ShapeError: Not one set of points for every warp.
        """
        self._check(points, 3, "points (n, P, 2)")
        with torch.autocast(points.device.type, enabled=False):
            points = points.float() if points.dtype == torch.bfloat16 else points
            apart, squares = self._from_controls(points)
            slopes = (squares.clamp_min(_SMALLEST_SQUARE).log() + 1.0)[..., None] * apart
            return self.affine[:, None, :, :2] + torch.einsum(
                "nmi,npmj->npij", self.bends.expand(len(points), -1, -1), slopes
            )

    def pictures(self, pictures: Tensor, *, align_corners: bool) -> Tensor:
        """Pictures ``v`` with ``v(z) = u(w(z))``: what was at ``w(z)`` is seen at ``z``.

        A feature at ``p`` of a warped picture therefore lies at ``points(p)`` of the original. Outside
        the picture, it is reflected at the border.

        Args:
            pictures: ``(n, C, H, W)``.
            align_corners: Whether -1 and 1 are the centres of the outer pixels, or their outer edges.

        Returns:
            New pictures of the same shape, without gradient to the warp.

        Raises:
            ShapeError: Not one picture for every warp.
        """
        self._check(pictures, 4, "pictures (n, C, H, W)", last=None)
        n, _, height, width = pictures.shape
        still = pictures.new_zeros(n, 2, 3)
        still[:, 0, 0] = still[:, 1, 1] = 1.0
        grid = F.affine_grid(still, [n, 1, height, width], align_corners=align_corners)
        moved = self.points(grid.flatten(1, 2).to(self.affine)).reshape(n, height, width, 2)
        return F.grid_sample(
            pictures, moved.to(pictures), padding_mode="reflection", align_corners=align_corners
        )

    def _from_controls(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Steps from the control points ``(n, P, M, 2)`` and their squared lengths ``(n, P, M)``."""
        apart = points[:, :, None] - self.controls
        return apart, apart.square().sum(-1)

    def _check(self, given: Tensor, ndim: int, wanted: str, last: int | None = 2) -> None:
        n = len(self.affine)
        if given.ndim != ndim or last not in (None, given.shape[-1]) or n not in (1, len(given)):
            raise ShapeError(
                f"expected {wanted} for {n} warps (1 serves any number), got {tuple(given.shape)}; "
                "draw as many warps as there are pictures."
            )


def random_thin_plate(
    n: int,
    *,
    affine_sigma: float = 0.05,
    bend_sigma: float = 0.005,
    side: int = 5,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> ThinPlate:
    """Warps near the identity: six affine numbers and a square of control points, all normal.

    Args:
        n: Number of warps.
        affine_sigma: Deviation of the six affine numbers from those of the identity.
        bend_sigma: Deviation of the coefficients at the control points.
        side: Control points on each axis, from -1 to 1.
        generator: Source of randomness, by default torch's global one.
        device: Where the warps are drawn and used, by default the generator's device or the CPU.

    Returns:
        ``n`` warps.

    Raises:
        ConfigError: A negative deviation, or fewer than two control points on an axis.

    Source: FOMM's equivariance warp and its numbers (reference-facts 6.1). Deviates: distances are
        Euclidean and x and y bend apart, as a thin plate does; the released code adds up the distances on
        both axes and moves both by the same amount, so that it bends along one diagonal only.
    """
    if min(affine_sigma, bend_sigma) < 0 or side < 2:
        raise ConfigError(
            "warp: expected deviations of at least 0 and two or more control points on an axis, got "
            f"affine_sigma {affine_sigma}, bend_sigma {bend_sigma}, side {side}."
        )
    if device is None and generator is not None:
        device = generator.device
    drawn = torch.randn(n, 6 + 2 * side * side, generator=generator, device=device)
    affine = torch.eye(2, 3, device=device) + affine_sigma * drawn[:, :6].reshape(n, 2, 3)
    axis = torch.linspace(-1.0, 1.0, side, device=device)
    controls = torch.cartesian_prod(axis, axis).flip(-1)
    return ThinPlate(affine, controls, bend_sigma * drawn[:, 6:].reshape(n, side * side, 2))


def thin_plate_weights(controls: Tensor, points: Tensor, *, smoothing: float = 0.0) -> Tensor:
    r"""Linear map from where control points go to where the least bent warp takes other points.

    The warp ``w`` minimises its bending energy among those with ``w(q_m) = t_m``; it is a
    :class:`ThinPlate` whose ``A``, ``b`` and ``c`` solve

        ``w(q_m) + smoothing * c_m = t_m``,  ``sum_m c_m = 0``,  ``sum_m c_m q_m^T = 0``,

    which is linear in the targets ``t``. The result holds the solution at ``points``:
    ``w(points) = weights @ t``. Affine motions of the controls move every point by the same motion, and a
    point that is a control goes to its target (without smoothing).

    Args:
        controls: ``(M, 2)``, three or more, not all on one line and no two at one place.
        points: ``(P, 2)`` in the same unit.
        smoothing: 0 for a warp through the targets; larger ones miss them and bend less.

    Returns:
        ``(P, M)`` in double precision.

    Raises:
        ShapeError: Not points of a plane, or fewer than three controls.
        ConfigError: A negative smoothing, or controls that settle no warp.

    Source: Bookstein 1989, thin plate splines from landmarks.
    """
    if controls.ndim != 2 or points.ndim != 2 or len(controls) < 3 or controls.shape[1:] != (2,):
        raise ShapeError(
            f"expected three or more controls (M, 2) and points (P, 2), got {tuple(controls.shape)} and "
            f"{tuple(points.shape)}."
        )
    controls, points = controls.double(), points.double()
    count = len(controls)
    affine = torch.cat([controls, controls.new_ones(count, 1)], dim=1)
    system = controls.new_zeros(count + 3, count + 3)
    system[:count, :count] = _kernel(_squares(controls, controls)) + smoothing * torch.eye(
        count, dtype=controls.dtype, device=controls.device
    )
    system[:count, count:], system[count:, :count] = affine, affine.T
    if smoothing < 0 or torch.linalg.matrix_rank(system) < len(system):
        raise ConfigError(
            "thin plate: expected smoothing of at least 0 and controls apart from each other and not on one "
            f"line, got smoothing {smoothing} and {count} controls; leave some controls out."
        )
    solved: Tensor = torch.linalg.inv(system)[:, :count]
    ones = points.new_ones(len(points), 1)
    return torch.cat([_kernel(_squares(points, controls)), points, ones], dim=1) @ solved


def _kernel(squares: Tensor) -> Tensor:
    """``U(r) = r^2 ln r`` of squared distances."""
    return 0.5 * squares * squares.clamp_min(_SMALLEST_SQUARE).log()


def _squares(points: Tensor, controls: Tensor) -> Tensor:
    """Squared distances ``(P, M)``."""
    return (points[:, None] - controls).square().sum(-1)
