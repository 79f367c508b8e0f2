from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v2, resnet34, resnext50_32x4d

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.audio_encoder import AudioEncoder
from talkhead.networks.component import Component
from talkhead.networks.heads import ContrastiveHead, LipHead, NonLipHead
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.motion_encoder import MotionEncoder
from talkhead.networks.resnet_trunk import ResNetTrunk


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _small_identity() -> IdentityEncoder:
    torch.manual_seed(0)
    return IdentityEncoder(
        layers=[1, 1, 1, 1],
        groups=4,
        width_per_group=16,
        width=16,
        dim=256,
        map_channels=64,
        map_size=4,
        image_size=64,
    )


def _small_motion() -> MotionEncoder:
    torch.manual_seed(0)
    return MotionEncoder(dim=64, width_mult=0.35, stem_stride=1)


def _small_audio() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(dim=64, widths=[8, 16, 32, 64], counts=[1, 1, 1, 1], reduction=2)


def _mflop(module: nn.Module, *inputs: torch.Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module.eval()(*inputs)
    return counter.get_total_flops() / len(inputs[0]) / 1e6


# -- sizes of the published networks
# ----------------------------------------------------------------


def test_identity_backbone_is_torchvisions_resnext50() -> None:
    with torch.device("meta"):
        ours, theirs = IdentityEncoder(), resnext50_32x4d(weights=None)
        code, grid = ours(torch.empty(1, 3, 224, 224))
    expected = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.trunk.state_dict().items()} == expected
    assert code.shape == (1, 2048)
    assert grid.shape == (1, 512, 7, 7)
    assert _parameters(ours) == _parameters(theirs) - (2048 * 1000 + 1000) + (2048 * 512 + 512)


def test_basic_blocks_are_torchvisions_resnet34() -> None:
    with torch.device("meta"):
        ours, theirs = ResNetTrunk([3, 4, 6, 3], bottleneck=False), resnet34(weights=None)
    expected = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected


def test_trunk_computes_what_torchvision_computes() -> None:
    torch.manual_seed(1)
    theirs = resnet34(weights=None).eval()
    ours = ResNetTrunk([3, 4, 6, 3], bottleneck=False).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    theirs.fc = nn.Identity()
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(picture).mean((2, 3)), theirs(picture), atol=1e-5)


def test_motion_encoder_is_mobilenet_v2() -> None:
    with torch.device("meta"):
        ours, theirs = MotionEncoder(), mobilenet_v2(weights=None)
        assert ours(torch.empty(1, 3, 224, 224)).shape == (1, 512)
    assert _parameters(ours.trunk.features) == _parameters(theirs.features)
    assert _parameters(ours) == _parameters(theirs.features) + 1280 * 512 + 512


def test_audio_encoder_has_the_reference_size() -> None:
    with torch.device("meta"):
        encoder = AudioEncoder()
        features = encoder.blocks(encoder.stem(torch.empty(1, 1, 80, 20)))
        assert encoder(torch.empty(2, 1, 80, 20)).shape == (2, 512)
    assert features.shape == (1, 256, 10, 3)
    assert encoder.output.in_features == 2560
    assert len(encoder.blocks) == 16
    assert _parameters(encoder) == 7_373_644


def test_heads_have_the_papers_sizes() -> None:
    code = torch.randn(3, 512)
    assert ContrastiveHead()(code).shape == (3, 512)
    assert LipHead()(code).shape == (3, 470)
    nonlip = NonLipHead()
    f_ol = nonlip.orthogonal(code)
    assert f_ol.shape == (3, 512)
    assert nonlip(code).shape == (3, 42)
    assert torch.equal(nonlip(code), nonlip.compress(f_ol))
    assert 42 + 470 == 512
    sizes = [_parameters(head) for head in (ContrastiveHead(), nonlip, LipHead())]
    assert sizes == [525_312, 546_858, 241_110]


# -- small networks
# ----------------------------------------------------------------------------------


def test_small_networks_are_cheap() -> None:
    picture = torch.randn(2, 3, 64, 64)
    assert _mflop(_small_identity(), picture) < 60
    assert _mflop(_small_motion(), picture) < 60
    assert _mflop(_small_audio(), torch.rand(2, 1, 80, 20)) < 60


def test_several_identity_frames_are_averaged() -> None:
    encoder = _small_identity().eval()
    frames = torch.randn(2, 3, 3, 64, 64)
    code, grid = encoder(frames)
    single = [encoder(frames[:, k]) for k in range(3)]
    assert code.shape == (2, 256)
    assert grid.shape == (2, 64, 4, 4)
    assert torch.allclose(code, torch.stack([c for c, _ in single]).mean(0), atol=1e-5)
    assert torch.allclose(grid, torch.stack([g for _, g in single]).mean(0), atol=1e-5)
    permuted, _ = encoder(frames[:, [2, 0, 1]])
    assert torch.allclose(code, permuted, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "grid", "stride"), [(64, 4, 1), (224, 7, 2), (256, 4, 2), (112, 7, 1)]
)
def test_the_map_is_never_finer_than_its_stage(size: int, grid: int, stride: int) -> None:
    with torch.device("meta"):
        encoder = IdentityEncoder(
            layers=[1, 1, 1, 1],
            groups=1,
            width_per_group=64,
            width=8,
            map_size=grid,
            image_size=size,
        )
        last = encoder.trunk(torch.empty(1, 3, size, size))
        _, spatial = encoder(torch.empty(1, 3, size, size))
    assert last.shape[-1] == size // (16 * stride) >= grid
    assert spatial.shape[-1] == grid


@pytest.mark.parametrize("make", [_small_identity, _small_motion, _small_audio])
def test_every_parameter_gets_a_gradient(make: object) -> None:
    assert callable(make)
    module = make()
    audio = isinstance(module, AudioEncoder)
    out = module(torch.randn(3, 1, 80, 20) if audio else torch.randn(3, 3, 64, 64))
    parts = out if isinstance(out, tuple) else (out,)
    torch.stack([p.square().sum() for p in parts]).sum().backward()
    silent = [
        n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    # The last bias of the attention is followed by a softmax over time, which takes it out.
    assert [n for n in silent if n != "attention.3.bias"] == []


@pytest.mark.parametrize(
    "module",
    [
        _small_identity(),
        _small_motion(),
        _small_audio(),
        ContrastiveHead(8, 4),
        NonLipHead(8, 2),
        LipHead(8),
    ],
)
def test_specs_rebuild(module: Component) -> None:
    again = type(module)(**module.spec)
    again.load_state_dict(module.state_dict(), strict=True)
    assert again.spec == module.spec


def test_audio_pooling_weighs_time_steps() -> None:
    encoder = _small_audio().eval()
    mel = torch.rand(2, 1, 80, 20)
    with torch.no_grad():
        x = encoder.blocks(encoder.stem_norm(encoder.stem(mel).relu())).flatten(1, 2)
        share = encoder.attention(x).softmax(2)
        expected = torch.stack([(x[i] * share[i]).sum(1) for i in range(2)])
        assert torch.allclose(share.sum(2), torch.ones(2, 640))
        assert torch.allclose(encoder(mel), encoder.output(expected), atol=1e-5)


# -- errors
# ------------------------------------------------------------------------------------------


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ShapeError, match="at least one identity frame"):
        _small_identity()(torch.zeros(1, 0, 3, 64, 64))
    with pytest.raises(ShapeError, match="flatten frames"):
        _small_motion()(torch.zeros(1, 2, 3, 64, 64))
    with pytest.raises(ShapeError, match=r"\(n, 1, 80, M\)"):
        _small_audio()(torch.zeros(1, 1, 20, 80))


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="four positive block counts"):
        IdentityEncoder(layers=[1, 1])
    with pytest.raises(ConfigError, match="group without channels"):
        IdentityEncoder(width=8)
    with pytest.raises(ConfigError, match="stem_stride"):
        MotionEncoder(stem_stride=3)
    with pytest.raises(ConfigError, match="one width and one positive count"):
        AudioEncoder(widths=[8], counts=[1, 1])


def test_small_motion_encoder_is_set_by_config_alone() -> None:
    small: dict[str, Any] = {"blocks": [[1, 4, 1, 1], [2, 8, 1, 2]], "last_channels": 8, "dim": 16}
    grid, mean = MotionEncoder(**small, pool_size=4), MotionEncoder(**small, pool_size=1)
    assert grid.trunk.classifier.in_features == 8 * 16
    assert mean.trunk.classifier.in_features == 8
    assert len(grid.trunk.features) == 4  # stem, two blocks, last convolution
    with pytest.raises(ConfigError, match="stem_stride: expected 1 or 2"):
        MotionEncoder(stem_stride=3)
    again = MotionEncoder(**grid.spec)
    again.load_state_dict(grid.state_dict())
    pictures = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(pictures), grid.eval()(pictures))
