from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import JACOBIAN_FLOOR, Keypoints
from talkhead.networks.component import weights_digest
from talkhead.networks.dense_motion import local_motions
from talkhead.networks.keypoint_maps import corner_grid
from talkhead.networks.keypoint_renderer import KeypointRenderer
from tests.oracles import fomm

K = 4
TINY: dict[str, Any] = {
    "keypoints": K,
    "width": 4,
    "max_width": 8,
    "downs": 1,
    "residual_blocks": 1,
    "motion_width": 4,
    "motion_max_width": 8,
    "motion_blocks": 2,
    "scale": 0.5,
}
SINGULAR = torch.tensor([[1.0, 0.0], [0.0, 1e-7]])


def tiny(**options: Any) -> KeypointRenderer:
    torch.manual_seed(0)
    renderer = KeypointRenderer(**{**TINY, **options}).eval()
    for part in renderer.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.bias)  # or the deep maps of a fresh network hardly change
    return renderer


def keypoints(n: int, dtype: torch.dtype = torch.float32) -> Keypoints:
    points = torch.rand(n, K, 2, dtype=dtype) - 0.5
    return Keypoints(points, torch.eye(2, dtype=dtype) + 0.2 * torch.randn(n, K, 2, 2, dtype=dtype))


def no_background(renderer: KeypointRenderer) -> KeypointRenderer:
    """All of the flow by keypoints, in equal shares."""
    nn.init.zeros_(renderer.get_parameter("motion.mask.weight"))
    with torch.no_grad():
        shares = torch.tensor([-1000.0] + [0.0] * K)
        renderer.get_parameter("motion.mask.bias").copy_(shares)
    return renderer


def flow_of(renderer: KeypointRenderer, source: Keypoints, driving: Keypoints) -> Tensor:
    n = driving.points.shape[0]
    return renderer.dense_motion(renderer.encode(torch.rand(n, 3, 32, 48)), source, driving).flow


def test_full_size_has_the_parameters_of_the_published_network() -> None:
    down = [(44, 128), (128, 256), (256, 512), (512, 1024), (1024, 1024)]
    up = [(1024, 1024), (2048, 512), (1024, 256), (512, 128), (256, 64)]
    paint = [(64, 128), (128, 256), (256, 128), (128, 64)]
    blocks = sum(9 * a * b + 3 * b for a, b in down + up + paint)
    first, final = 49 * 3 * 64 + 3 * 64, 49 * 64 * 3 + 3
    residuals = 6 * 2 * (9 * 256 * 256 + 256 + 2 * 256)
    heads = 49 * (64 + 44) * (11 + 1) + 11 + 1
    renderer = KeypointRenderer()
    wanted = blocks + first + final + residuals + heads
    assert sum(p.numel() for p in renderer.parameters()) == wanted == 45_575_391


def test_local_motions_equal_the_loop() -> None:
    torch.manual_seed(0)
    source, driving = keypoints(2, torch.float64), keypoints(2, torch.float64)
    found = local_motions(source, driving, 4, 5, JACOBIAN_FLOOR)
    torch.testing.assert_close(found, fomm.local_motions(source, driving, 4, 5))


def test_equal_keypoints_leave_every_pixel_where_it_is() -> None:
    renderer, points = tiny(), keypoints(2)
    grid = corner_grid(16, 24, points.points).expand(2, -1, -1, -1)
    torch.testing.assert_close(flow_of(renderer, points, points), grid, atol=1e-5, rtol=0)
    picture = torch.rand(2, 3, 16, 24)
    torch.testing.assert_close(renderer.warped(picture, grid), picture, atol=1e-5, rtol=0)
    # and at other sizes than the motion's
    large = torch.rand(2, 3, 32, 48)
    torch.testing.assert_close(renderer.warped(large, grid), large, atol=1e-5, rtol=0)


def test_sampling_between_pixel_edges_zooms_a_picture_that_should_stay() -> None:
    """What the released code does on any torch since 1.3, kept as an option."""
    grid = corner_grid(16, 16, torch.zeros(())).expand(1, -1, -1, -1)
    picture = torch.ones(1, 1, 16, 16)
    moved = tiny(align_corners=False).warped(picture, grid)
    assert moved[0, 0, 8, 8].item() == pytest.approx(1.0)
    assert moved[0, 0, 0, 0].item() == pytest.approx(0.25)  # half of it from outside, both ways
    assert torch.equal(tiny().warped(picture, grid), picture)


def test_translation_of_all_keypoints_translates() -> None:
    renderer, source = no_background(tiny()), keypoints(1)
    right, down = 3 * 2 / 47, 2 * 2 / 31  # three and two pixels of a 48 x 32 picture
    driving = Keypoints(source.points + torch.tensor([right, down]), source.jacobians)
    flow = flow_of(renderer, source, driving)
    wanted = corner_grid(16, 24, flow) - torch.tensor([right, down])
    torch.testing.assert_close(flow[0], wanted, atol=1e-5, rtol=0)
    picture = torch.rand(1, 3, 32, 48)
    moved = renderer.warped(picture, flow)
    torch.testing.assert_close(moved[..., 2:, 3:], picture[..., :-2, :-3], atol=1e-4, rtol=0)


def test_turning_all_keypoints_turns_the_other_way_to_the_source() -> None:
    angle = 0.3
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    source = Keypoints(keypoints(1).points, torch.eye(2).expand(1, K, 2, 2))
    driving = Keypoints(source.points @ turn.T, turn.expand(1, K, 2, 2))
    flow = flow_of(no_background(tiny()), source, driving)
    torch.testing.assert_close(flow[0], corner_grid(16, 24, flow) @ turn, atol=1e-5, rtol=0)


def test_background_alone_does_not_move() -> None:
    renderer = no_background(tiny())
    with torch.no_grad():
        renderer.get_parameter("motion.mask.bias").neg_()
    flow = flow_of(renderer, keypoints(1), keypoints(1))
    torch.testing.assert_close(flow[0], corner_grid(16, 24, flow))


def test_occlusion_and_masks_are_shares() -> None:
    renderer = tiny()
    portrait = renderer.encode(2 * torch.rand(2, 3, 32, 48) - 1)
    motion = renderer.dense_motion(portrait, keypoints(2), keypoints(2))
    assert motion.occlusion.shape == (2, 1, 16, 24)
    assert motion.occlusion.min() >= 0
    assert motion.occlusion.max() <= 1
    assert motion.masks.shape == (2, K + 1, 16, 24)
    torch.testing.assert_close(motion.masks.sum(1), torch.ones(2, 16, 24))


def test_without_occlusion_the_source_gives_all() -> None:
    renderer = tiny(occlusion=False)
    portrait = renderer.encode(torch.rand(1, 3, 32, 32))
    motion = renderer.dense_motion(portrait, keypoints(1), keypoints(1))
    assert torch.equal(motion.occlusion, torch.ones(1, 1, 16, 16))
    assert renderer(torch.rand(1, 3, 32, 32), keypoints(1), keypoints(1)).shape == (1, 3, 32, 32)


def test_what_is_occluded_does_not_reach_the_picture() -> None:
    renderer = tiny()
    nn.init.zeros_(renderer.get_parameter("motion.occlusion.weight"))
    nn.init.constant_(renderer.get_parameter("motion.occlusion.bias"), -1000.0)
    source, driving = keypoints(1), keypoints(1)
    pictures = [renderer(torch.rand(1, 3, 32, 32), source, driving) for _ in range(2)]
    assert torch.equal(pictures[0], pictures[1])


def test_a_collapsed_jacobian_does_not_explode() -> None:
    """The released code inverts it as it is, and pixels come from millions of pictures away."""
    source = Keypoints(torch.zeros(1, K, 2), torch.eye(2).expand(1, K, 2, 2))
    for collapsed in (SINGULAR, torch.zeros(2, 2), 1e-7 * torch.eye(2)):
        jacobians = collapsed.expand(1, K, 2, 2).clone().requires_grad_()
        driving = Keypoints(torch.full((1, K, 2), 0.1), jacobians)
        ours = local_motions(source, driving, 8, 8, JACOBIAN_FLOOR)
        # |z - p| is below 2 sqrt(2), and nothing stretches by more than 1 / floor.
        assert ours.abs().max() <= 2 * math.sqrt(2) / JACOBIAN_FLOOR
        picture = tiny()(torch.rand(1, 3, 32, 32), source, driving)
        assert picture.isfinite().all()
        picture.sum().backward()
        assert jacobians.grad is not None
        assert jacobians.grad.isfinite().all()
    naive = fomm.local_motions(
        source, (torch.full((1, K, 2), 0.1), SINGULAR.expand(1, K, 2, 2)), 8, 8
    )
    assert naive.abs().max() > 1e6


def test_a_portrait_is_encoded_once_for_all_frames() -> None:
    renderer, picture = tiny(), 2 * torch.rand(1, 3, 32, 48) - 1
    source, driving = keypoints(1), keypoints(3)
    once = renderer.render(renderer.encode(picture), source, driving)
    assert once.shape == (3, 3, 32, 48)
    assert once.abs().max() <= 1
    repeated = Keypoints(*(part.expand(3, *part.shape[1:]) for part in source))
    each = renderer(picture.expand(3, -1, -1, -1), repeated, driving)
    torch.testing.assert_close(once, each, atol=1e-6, rtol=1e-5)
    assert (once[0] - once[1]).abs().max() > 1e-5


def test_every_weight_learns() -> None:
    renderer = tiny().train()
    driving = Keypoints(*(part.requires_grad_() for part in keypoints(2)))
    picture = renderer(torch.rand(2, 3, 32, 32), keypoints(2), driving)
    (picture * torch.randn_like(picture)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in renderer.parameters())
    assert driving.points.grad is not None
    assert driving.jacobians.grad is not None
    assert driving.jacobians.grad.abs().sum() > 0


def test_half_precision_keeps_the_flow_exact() -> None:
    renderer, points = tiny(), keypoints(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        flow = flow_of(renderer, points, points)
        picture = renderer(torch.rand(1, 3, 32, 32), points, keypoints(1))
    torch.testing.assert_close(flow[0], corner_grid(16, 24, flow), atol=1e-5, rtol=0)
    assert picture.isfinite().all()


def test_spec_rebuilds_it_and_training_is_noted() -> None:
    renderer = tiny(align_corners=False, provenance="file:abc")
    again = KeypointRenderer(**renderer.spec)
    again.load_state_dict(renderer.state_dict(), strict=True)
    assert weights_digest(again) == weights_digest(renderer)
    assert again.spec["align_corners"] is False
    again.note_training()
    assert again.spec["provenance"] == "trained from file:abc"


@pytest.mark.parametrize(
    "options", [{"keypoints": 0}, {"downs": -1}, {"variance": 0.0}, {"jacobian_floor": 0.0}]
)
def test_impossible_sizes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected positive sizes"):
        tiny(**options)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    renderer, picture = tiny(), torch.zeros(1, 3, 32, 32)
    one, two = keypoints(1), keypoints(2)
    with pytest.raises(ShapeError, match="multiples of 8"):
        renderer(torch.zeros(1, 3, 32, 36), one, one)
    with pytest.raises(ShapeError, match=r"expected driving keypoints \(n, 4, 2\)"):
        renderer(picture, one, Keypoints(one.points[:, :3], one.jacobians[:, :3]))
    with pytest.raises(ShapeError, match="expected 1 or 1 source keypoints for 1 results, got 2"):
        renderer(picture, two, one)
    with pytest.raises(ShapeError, match="expected 1 or 3 portraits for 3 results, got 2"):
        renderer(picture.expand(2, -1, -1, -1), one, keypoints(3))
