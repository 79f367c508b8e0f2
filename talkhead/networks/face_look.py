"""One face, taken apart once and drawn again with other keypoints (face-vid2vid)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from talkhead.networks.motion_extractor import HeadMotion, MotionExtractor
from talkhead.networks.volume_renderer import VolumeRenderer


class Look(NamedTuple):
    """What the renderer needs to know of ``n`` pictures.

    Attributes:
        appearance: Feature volume ``(n, C, D, h, w)``.
        canonical: Keypoints of the person facing the camera at rest, ``(n, K, 3)``.
        head: Pose and expression.
        keypoints: Those of the picture itself, ``R kc + t + exp``, ``(n, K, 3)``.
    """

    appearance: Tensor
    canonical: Tensor
    head: HeadMotion
    keypoints: Tensor

    def repeated(self, n: int) -> Look:
        """The look of one picture for ``n`` frames; the renderer takes one volume for all."""
        head = HeadMotion(*(part.expand(n, *part.shape[1:]) for part in self.head))
        return self._replace(head=head)


def look_at(extractor: MotionExtractor, renderer: VolumeRenderer, pictures: Tensor) -> Look:
    """Appearance, canonical keypoints, pose and expression of pictures ``(n, 3, H, W)`` in [-1, 1]."""
    canonical, head = extractor.canonical(pictures), extractor.head(pictures)
    keypoints = extractor.keypoints(canonical, head)
    return Look(renderer.appearance(pictures), canonical, head, keypoints)


def redraw(
    extractor: MotionExtractor,
    renderer: VolumeRenderer,
    look: Look,
    expression: Tensor,
    head: HeadMotion | None = None,
) -> Tensor:
    r"""The same faces with another expression, and perhaps another pose.

    ``y = renderer(appearance, R kc + t + exp', R_0 kc + t_0 + exp_0)``.

    Args:
        extractor: What took the faces apart.
        renderer: What draws them.
        look: Of ``n`` pictures, or of one :meth:`~Look.repeated` for ``n`` frames.
        expression: ``exp'`` ``(n, K, 3)``; gradients reach it.
        head: Whose rotation and translation to take, the faces' own by default.

    Returns:
        Pictures ``(n, 3, H, W)`` in [-1, 1].

    Source: ControlTalk equations 1 and 2; reference-facts 7.1. The rotation is made anew for every call
        and nothing is changed in place, unlike the released code.
    """
    driving = extractor.keypoints(look.canonical, head or look.head, expression=expression)
    picture: Tensor = renderer(look.appearance, driving, look.keypoints).picture
    return picture
