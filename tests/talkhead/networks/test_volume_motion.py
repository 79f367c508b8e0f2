from __future__ import annotations

import torch

from talkhead.networks.volume_maps import volume_grid
from talkhead.networks.volume_motion import VolumeMotion, local_shifts
from tests.oracles import vid2vid

SIZE = (3, 4, 8)


def network(occlusion: bool = True) -> VolumeMotion:
    torch.manual_seed(0)
    return VolumeMotion(
        keypoints=4, channels=2, depth=3, compress=1, width=4, max_width=8, blocks=2, mask_kernel=3,
        variance=0.01, occlusion=occlusion, align_corners=True,
    ).eval()  # fmt: skip


def points(n: int) -> torch.Tensor:
    return torch.rand(n, 4, 3) - 0.5


def test_shifts_are_those_of_a_loop() -> None:
    source, driving = points(2), points(2)
    grid = volume_grid(*SIZE, like=source)
    found = local_shifts(source, driving, grid)
    torch.testing.assert_close(found, vid2vid.shifts(source, driving, SIZE))
    one = local_shifts(source[:1], driving, grid)
    torch.testing.assert_close(one, vid2vid.shifts(source[:1].expand(2, -1, -1), driving, SIZE))


def test_equal_keypoints_leave_every_voxel_where_it_is() -> None:
    net, at = network(), points(2)
    motion = net(torch.randn(2, 2, *SIZE), at, at)
    torch.testing.assert_close(motion.flow, volume_grid(*SIZE, like=at).expand(2, *SIZE, 3))
    torch.testing.assert_close(motion.masks.sum(1), torch.ones(2, *SIZE))
    assert motion.masks.shape == (2, 5, *SIZE)
    assert motion.occlusion.shape == (2, 1, 4, 8)
    assert ((motion.occlusion > 0) & (motion.occlusion < 1)).all()


def test_one_point_that_has_all_moves_the_volume_with_it() -> None:
    net, source = network(), points(1)
    torch.nn.init.zeros_(net.mask.weight)
    with torch.no_grad():
        net.mask.get_parameter("bias").copy_(torch.tensor([0.0, 0.0, 1000.0, 0.0, 0.0]))
    driving = source.clone()
    driving[:, 1] += torch.tensor([0.25, 0.0, -0.5])
    flow = net(torch.randn(1, 2, *SIZE), source, driving).flow
    torch.testing.assert_close(
        flow[0], volume_grid(*SIZE, like=source) - torch.tensor([0.25, 0.0, -0.5])
    )


def test_occlusion_can_be_left_out() -> None:
    net = network(occlusion=False)
    assert net.occlusion is None
    motion = net(torch.randn(1, 2, *SIZE), points(1), points(1))
    assert torch.equal(motion.occlusion, torch.ones(1, 1, 4, 8))
