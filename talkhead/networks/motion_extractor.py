"""Motion of a face as face-vid2vid sees it: canonical keypoints, head pose, translation and expression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.head_angles import (
    binned_degrees,
    check_convention,
    rotation_matrix,
    transform_keypoints,
)
from talkhead.networks.canonical_keypoints import CanonicalKeypoints
from talkhead.networks.head_estimator import HeadEstimator
from talkhead.networks.pretrained import RANDOM
from talkhead.networks.published import PublishedComponent

N_KEYPOINTS = 15


class HeadMotion(NamedTuple):
    """What moves in ``n`` pictures of a face.

    Attributes:
        logits: 66 bins of yaw, pitch and roll, in this order, ``(n, 3, 66)``.
        degrees: The angles they stand for, the same order, ``(n, 3)``.
        translation: ``(n, 3)``, x right, y down, in the units of keypoints.
        expression: How each keypoint deviates from the rigid face, ``(n, K, 3)`` as (x, y, z).
    """

    logits: Tensor
    degrees: Tensor
    translation: Tensor
    expression: Tensor

    def at(self, rows: slice) -> HeadMotion:
        """Some of the pictures."""
        return HeadMotion(*(part[rows] for part in self))


class MotionExtractor(PublishedComponent):
    """Everything that the volume renderer is driven by, from pictures.

    :meth:`canonical` says who it is, :meth:`head` what moves, and :meth:`keypoints` puts both together as
    ``R kc + t + exp``. Canonical keypoints are those of the source; the driving picture gives the rest.

    Source: face-vid2vid; paper 4, section 3.1, eq. 1; sizes of vox-256-beta (reference-facts 7.1).
        Deviates: pictures are in [-1, 1] as everywhere in the suite and converted to the [0, 1] that the
        published weights expect.
    """

    def __init__(
        self,
        keypoints: int = N_KEYPOINTS,
        width: int = 32,
        max_width: int = 1024,
        blocks: int = 5,
        scale: float = 0.25,
        depth: int = 16,
        temperature: float = 0.1,
        head_width: int = 64,
        head_widths: list[int] | None = None,
        head_blocks: list[int] | None = None,
        convention: str = "geometric",
        provenance: str = RANDOM,
    ) -> None:
        """Build both networks.

        Args:
            keypoints: Number ``K`` of points.
            width: Channels of the keypoint network at full size.
            max_width: Its largest number of channels.
            blocks: Its halvings.
            scale: Share of the picture's side that it looks at, 1 over a whole number.
            depth: Slices of its volume, at least 2.
            temperature: Divides the heat before the softmax; lower is more peaked.
            head_width: Channels of the head network's first layer.
            head_widths: Channels of its stages, multiples of 4; by default 256, 512, 1024, 2048.
            head_blocks: Blocks of each stage that keep the size; by default 3, 3, 5, 2.
            convention: What the angles mean, one of :data:`talkhead.geometry.head_angles.CONVENTIONS`;
                published weights were trained with ``hopenet``. It says which label a picture gets, the
                rotation is computed from the angles alike.
            provenance: Where the first weights came from; set by the loader and kept in the spec.

        Raises:
            ConfigError: Numbers that cannot work, or another convention.
        """
        super().__init__()
        widths = [256, 512, 1024, 2048] if head_widths is None else head_widths
        counts = [3, 3, 5, 2] if head_blocks is None else head_blocks
        if min(keypoints, width, max_width, blocks) < 1 or depth < 2 or temperature <= 0:
            raise ConfigError(
                "motion_extractor: expected keypoints, width, max_width, blocks and temperature above 0 and "
                f"a depth of 2 or more, got {keypoints}, {width}, {max_width}, {blocks}, {temperature} and "
                f"{depth}."
            )
        if not widths or len(widths) != len(counts) or any(w < 4 or w % 4 for w in widths):
            raise ConfigError(
                "motion_extractor: expected as many head_widths, all multiples of 4, as head_blocks, got "
                f"{widths} and {counts}."
            )
        if head_width < 1 or min(counts) < 1:
            raise ConfigError(
                f"motion_extractor: expected head_width and head_blocks of 1 or more, got {head_width} and "
                f"{counts}."
            )
        check_convention(convention)
        self.n_keypoints, self.convention, self.provenance = keypoints, convention, provenance
        self.detector = CanonicalKeypoints(
            keypoints, width, max_width, blocks, scale, depth, temperature
        )
        self.estimator = HeadEstimator(keypoints, head_width, widths, counts)

    def forward(self, pictures: Tensor) -> Tensor:
        """Keypoints ``(n, K, 3)`` of pictures in their own pose, place and expression."""
        return self.keypoints(self.canonical(pictures), self.head(pictures))

    def canonical(self, pictures: Tensor) -> Tensor:
        """Canonical keypoints of pictures ``(n, 3, H, W)``, RGB in [-1, 1]: ``(n, K, 3)`` in [-1, 1].

        Raises:
            ShapeError: Not RGB pictures, or sides that the halvings do not divide.
        """
        points: Tensor = self.detector(pictures)
        return points

    def head(self, pictures: Tensor) -> HeadMotion:
        """Pose, translation and expression of pictures ``(n, 3, H, W)``, RGB in [-1, 1].

        Raises:
            ShapeError: Not RGB pictures.
        """
        angles, translation, expression = self.estimator(pictures)
        logits = torch.stack(angles, dim=1)
        # Places of half precision would be pixels off.
        full = torch.promote_types(translation.dtype, torch.float32)
        return HeadMotion(logits, binned_degrees(logits), translation.to(full), expression.to(full))

    def keypoints(
        self, canonical: Tensor, head: HeadMotion, *, expression: Tensor | None = None
    ) -> Tensor:
        """``R kc + t + exp``.

        Args:
            canonical: From :meth:`canonical`, ``(1 or n, K, 3)``.
            head: From :meth:`head`, of ``n`` pictures.
            expression: ``(n, K, 3)`` in place of the head's own, as ControlTalk edits it.

        Returns:
            ``(n, K, 3)``.

        Raises:
            ShapeError: Shapes that do not belong together.
        """
        if head.degrees.ndim != 2 or head.degrees.shape[1] != 3:
            raise ShapeError(f"expected degrees (n, 3), got {tuple(head.degrees.shape)}.")
        rotation = rotation_matrix(*head.degrees.unbind(1))
        shape = head.expression if expression is None else expression
        return transform_keypoints(canonical, rotation, head.translation, shape)
