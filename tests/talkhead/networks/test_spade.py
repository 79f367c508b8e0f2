from __future__ import annotations

import pytest
import torch
from torch import nn

from talkhead.networks.spade import Spade, SpadeBlock, SpadeDecoder


def test_without_a_guide_it_is_instance_norm() -> None:
    torch.manual_seed(0)
    layer, maps = Spade(3, 2, 4), 5 * torch.randn(2, 3, 8, 6) + 7
    for part in (layer.gamma, layer.beta):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.get_parameter("bias"))
    out = layer(maps, torch.randn(2, 2, 4, 3))
    torch.testing.assert_close(out.mean((2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var((2, 3), correction=0), torch.ones(2, 3), atol=1e-4, rtol=0)
    nn.init.constant_(layer.gamma.get_parameter("bias"), 1.0)
    nn.init.constant_(layer.beta.get_parameter("bias"), 3.0)
    torch.testing.assert_close(layer(maps, torch.randn(2, 2, 4, 3)), 2 * out + 3)


def test_the_guide_acts_where_it_is() -> None:
    torch.manual_seed(0)
    layer, maps, guide = Spade(3, 2, 4), torch.randn(1, 3, 16, 16), torch.randn(1, 2, 8, 8)
    other = guide.clone()
    other[..., 0, 0] += 5.0
    changed = (layer(maps, guide) != layer(maps, other)).any(dim=1)[0]
    assert changed[:2, :2].all()
    assert not changed[8:, 8:].any()


@pytest.mark.parametrize("outputs", [4, 6])
def test_a_block_passes_on_what_came_in(outputs: int) -> None:
    block = SpadeBlock(4, outputs, 2, 3)
    assert (block.conv_skip is None) == (outputs == 4)
    assert block(torch.randn(2, 4, 8, 6), torch.randn(2, 2, 4, 3)).shape == (2, outputs, 8, 6)


@pytest.mark.parametrize("ups", [0, 1, 2, 3])
def test_the_decoder_doubles_as_often_as_asked(ups: int) -> None:
    decoder = SpadeDecoder(8, 4, ups, 1, 3)
    assert decoder(torch.randn(1, 8, 4, 6)).shape == (1, 3, 4 << ups, 6 << ups)
    channels = [len(decoder.get_parameter(f"ups.{i}.conv2.bias")) for i in range(ups)]
    assert channels == {0: [], 1: [4], 2: [8, 4], 3: [8, 4, 4]}[ups]


def test_convolutions_have_spectral_norm_and_learn() -> None:
    block = SpadeBlock(4, 6, 2, 3).eval()
    for name in ("conv1", "conv2", "conv_skip"):
        weight = block.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        norm = torch.linalg.matrix_norm(weight.detach().flatten(1), 2)
        assert float(norm) == pytest.approx(1, rel=0.2)
    block(torch.randn(2, 4, 8, 6), torch.randn(2, 2, 8, 6)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
