from __future__ import annotations

import torch

from talkhead.networks.volume_blocks import (
    VolumeBlock,
    VolumeHourglass,
    VolumeResidual,
    VolumeUpBlock,
    level_widths,
)
from talkhead.networks.volume_conv import VolumeConv


def test_blocks_halve_and_double_slices_and_keep_the_depth() -> None:
    volume = torch.randn(2, 3, 4, 6, 8)
    assert VolumeBlock(3, 5)(volume).shape == (2, 5, 4, 6, 8)
    assert VolumeBlock(3, 5, stride=2)(volume).shape == (2, 5, 4, 3, 4)
    assert VolumeUpBlock(3, 5)(volume).shape == (2, 5, 4, 12, 16)


def test_a_residual_block_without_its_last_weights_changes_nothing() -> None:
    block, volume = VolumeResidual(3), torch.randn(2, 3, 4, 6, 8)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.get_parameter("conv2.bias"))
    assert torch.equal(block(volume), volume)


def test_hourglass_keeps_the_size_and_sees_its_input() -> None:
    torch.manual_seed(0)
    net = VolumeHourglass(3, 4, 8, 2).eval()
    volume = torch.randn(1, 3, 2, 8, 12)
    out = net(volume)
    assert net.outputs == 7
    assert out.shape == (1, 7, 2, 8, 12)
    # Widths 4, 8, 8: all but the innermost doubling take twice as many channels in.
    shapes = [net.get_parameter(f"decoder.{i}.conv.weight").shape[:2] for i in range(2)]
    assert [tuple(shape) for shape in shapes] == [(8, 8), (4, 16)]
    other = volume.clone()
    other[0, 0, 1, 7, 11] += 1.0
    assert not torch.equal(net(other), out)


def test_widths_double_up_to_the_largest() -> None:
    assert level_widths(32, 100, 3) == [32, 64, 100, 100]


def test_gradients_in_half_precision_are_those_of_full_precision_and_never_garbage() -> None:
    torch.manual_seed(0)
    conv, volume = VolumeConv(16, 8, 3, padding=1), torch.randn(2, 16, 2, 8, 8)
    conv(volume).square().mean().backward()
    assert conv.weight.grad is not None
    expected = conv.weight.grad.clone()
    for _ in range(40):
        _dirty_memory()
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(volume.bfloat16())
        out.square().mean().backward()
        torch.testing.assert_close(conv.weight.grad, expected, rtol=0.05, atol=1e-3)


def _dirty_memory() -> None:
    """Leave not-a-numbers where the next small tensors will be."""
    for size in (1 << 10, 1 << 12, 1 << 14, 1 << 16):
        torch.full((size,), float("nan"))
