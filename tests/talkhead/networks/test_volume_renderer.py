from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import weights_digest
from talkhead.networks.volume_maps import volume_grid
from talkhead.networks.volume_renderer import VolumeRenderer

K = 4
TINY: dict[str, Any] = {
    "keypoints": K, "width": 4, "max_width": 8, "downs": 1, "channels": 2, "depth": 3, "residual_blocks": 1,
    "compress": 1, "motion_width": 4, "motion_max_width": 8, "motion_blocks": 2, "mask_kernel": 3,
    "middle_blocks": 1, "guide_width": 4,
}  # fmt: skip


def tiny(**options: Any) -> VolumeRenderer:
    torch.manual_seed(0)
    return VolumeRenderer(**{**TINY, **options}).eval()


def pictures(n: int = 2) -> Tensor:
    return torch.rand(n, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


def points(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, K, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


def test_shapes_and_ranges() -> None:
    made = tiny()
    volume = made.appearance(pictures())
    assert volume.shape == (2, 2, 3, 16, 24)
    out = made(volume, points(2), points(2, 1))
    assert out.picture.shape == (2, 3, 32, 48)
    assert out.picture.abs().max() <= 1
    assert out.occlusion.shape == (2, 1, 16, 24)
    assert out.masks.shape == (2, K + 1, 3, 16, 24)


def test_twice_the_side_runs_through_the_same_layers() -> None:
    made = tiny()
    large = torch.rand(1, 3, 64, 64)
    out = made(made.appearance(large), points(1), points(1, 1))
    assert out.picture.shape == (1, 3, 64, 64)


def test_one_portrait_serves_many_results() -> None:
    made = tiny()
    volume, driving, source = made.appearance(pictures(1)), points(3), points(1, 1)
    together = made(volume, driving, source)
    for i in range(3):
        alone = made(volume, driving[i : i + 1], source)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i : i + 1], b, atol=1e-5, rtol=1e-4)


def test_equal_keypoints_leave_the_volume_as_it_is() -> None:
    """Only when sampling happens on the corner-aligned grid that keypoints live on."""
    volume = torch.randn(1, 2, 3, 4, 6)
    still = volume_grid(3, 4, 6, like=volume)[None]
    torch.testing.assert_close(tiny().warped(volume, still), volume)
    other = tiny(align_corners=False).warped(volume, still)
    assert not torch.allclose(other, volume, atol=0.1)


def test_driving_keypoints_move_the_picture_and_carry_gradient() -> None:
    made = tiny()
    nn.init.normal_(made.motion.mask.weight)
    volume, source = made.appearance(pictures(1)), points(1, 1)
    driving = source.clone().requires_grad_()
    picture = made(volume, driving, source).picture
    picture.square().sum().backward()
    assert driving.grad is not None
    assert driving.grad.abs().sum() > 0
    moved = made(volume, source + 0.3, source).picture
    assert (moved - picture).abs().mean() > 1e-4


def test_a_spec_builds_the_same_network() -> None:
    made = tiny(align_corners=False, provenance="file:1")
    again = VolumeRenderer(**made.spec).eval()
    again.load_state_dict(made.state_dict())
    assert weights_digest(again) == weights_digest(made)
    assert again.spec["align_corners"] is False
    volume = made.appearance(pictures())
    torch.testing.assert_close(
        again(volume, points(2), points(2, 1)).picture,
        made(volume, points(2), points(2, 1)).picture,
    )


def test_bad_numbers_and_shapes_are_refused() -> None:
    for options, match in (
        ({"depth": 1}, "a depth of 2 or more"),
        ({"compress": 0}, "positive sizes"),
        ({"middle_blocks": -1}, "positive sizes"),
        ({"mask_kernel": 4}, "expected an odd number, got 4"),
    ):
        with pytest.raises(ConfigError, match=match):
            tiny(**options)
    made = tiny()
    with pytest.raises(ShapeError, match="multiples of 8"):
        made.appearance(torch.zeros(1, 3, 36, 32))
    volume = made.appearance(pictures())
    for driving, source, match in (
        (points(2)[..., :2], points(2), "expected driving keypoints"),
        (points(3), points(2), "expected source keypoints"),
        (points(3), points(3), r"expected appearance \(1 or 3"),
    ):
        with pytest.raises(ShapeError, match=match):
            made(volume, driving, source)
