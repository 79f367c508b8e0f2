"""The coarse motion of both streams frame by frame, as the equations read, from a model's own layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.networks.landmark_coarse import CoarseMotion


def unit(code: Tensor) -> Tensor:
    """Zero mean and unit variance over the entries of one code."""
    centred = code - code.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt()


def coarse_by_frames(
    model: CoarseMotion, mel: Tensor, prosody: Tensor, known: Tensor, face: Tensor
) -> tuple[Tensor, Tensor]:
    """Pose and rhythm ``(T, 136)`` of one speech ``(T, 320)``, ``(T, 4)`` after frames ``(o, 136)``."""
    assert model.pose is not None
    assert model.content is not None
    assert model.rhythmic is not None
    coder = model.pose
    content = model.content(mel[None])[0]
    rhythm = model.rhythmic.offset.weight @ model.rhythmic(prosody[None]).codes[0].T
    poses = []
    for i in range(len(mel)):
        if i < len(known):
            poses.append(known[i] - rhythm[:, i])  # equation 1 solved for the pose
            continue
        before = poses[-1]
        hidden = coder.see.weight @ before + coder.see.bias + coder.identity.weight @ face
        code = unit(coder.encode_out.weight @ F.gelu(hidden) + coder.encode_out.bias)
        asked = coder.change.weight @ content[i] + coder.change.bias
        moved = F.gelu(coder.state.weight @ code + asked)
        after = unit(code + coder.decode_out.weight @ moved + coder.decode_out.bias)
        poses.append(before + coder.move.weight @ (after - code))  # equations 2 and 12
    return torch.stack(poses), rhythm.T
