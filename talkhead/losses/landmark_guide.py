"""Some of the learned keypoints are told where mouth and eyes are (LivePortrait)."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import INNER_LIP_PAIR, LID_PAIRS, MOUTH_CORNERS
from talkhead.specs import N_LANDMARKS

LOWER_LIP, CHIN = 17, 152
GUIDES: tuple[int, ...] = (
    *INNER_LIP_PAIR.tolist(),
    *MOUTH_CORNERS.tolist(),
    LOWER_LIP,
    CHIN,
    *LID_PAIRS.flatten().tolist(),
)
"""Landmarks of the first ten keypoints: inner lips, corners, lower lip, chin, and the lids of both eyes."""


def landmark_guide_loss(points: Tensor, landmarks: Tensor) -> Tensor:
    r"""``mean |p_i - (2 l_i - 1)|`` over x and y of the guided keypoints.

    Depth and all further keypoints are free.

    Args:
        points: Keypoints of pictures, ``(n, K, 3)`` in [-1, 1], at least ten.
        landmarks: Of the same pictures, ``(n, 478, 3)`` in crop units; no gradient goes there.

    Returns:
        Scalar in the units of keypoints; 0.02 is one percent of the picture's side.

    Raises:
        ShapeError: Fewer than ten keypoints, or other landmarks.

    Source: LivePortrait (Guo et al. 2024, arXiv 2407.03168), landmark-guided keypoints. Deviates: absolute
        difference in place of the Wing loss, and landmarks of the suite's mesh.
    """
    if points.ndim != 3 or points.shape[1] < len(GUIDES) or points.shape[2] != 3:
        raise ShapeError(
            f"expected keypoints (n, {len(GUIDES)} or more, 3), got {tuple(points.shape)}; use more "
            "keypoints or a landmark_guide weight of 0."
        )
    if landmarks.shape != (len(points), N_LANDMARKS, 3):
        raise ShapeError(
            f"expected landmarks ({len(points)}, {N_LANDMARKS}, 3), got {tuple(landmarks.shape)}."
        )
    wanted = 2 * landmarks.detach()[:, torch.tensor(GUIDES, device=landmarks.device), :2] - 1
    return (points[:, : len(GUIDES), :2] - wanted).abs().mean()
