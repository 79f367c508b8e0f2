from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.generator import (
    ModulatedConv,
    StyledLayer,
    StyleGenerator,
    blur,
    start_size,
    upsample_picture,
)
from tests.oracles.modulated_conv import modulated_conv


def _small() -> StyleGenerator:
    torch.manual_seed(0)
    return StyleGenerator(64, latent_dim=48, map_channels=32, channels=64, min_channels=16)


def _inputs(n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 48, generator=generator), torch.randn(n, 32, 4, 4, generator=generator)


@pytest.mark.parametrize(
    ("size", "expected"), [(224, (7, 5)), (256, (4, 6)), (64, (4, 4)), (112, (7, 4)), (56, (7, 3))]
)
def test_start_size(size: int, expected: tuple[int, int]) -> None:
    assert start_size(size) == expected


@pytest.mark.parametrize("size", [0, 3, 4, 7, 100, 96, 225])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="7 or 4 times a power of two"):
        start_size(size)


def test_paper_size() -> None:
    with torch.device("meta"):
        generator = StyleGenerator()
        picture = generator(torch.empty(1, 2560), torch.empty(1, 512, 7, 7))
    assert picture.shape == (1, 3, 224, 224)
    state = generator.state_dict()
    names = ["first", *(f"ups.{i}" for i in range(5))]
    assert [state[f"{name}.conv.weight"].shape[0] for name in names] == [
        512,
        512,
        512,
        512,
        256,
        128,
    ]
    assert sum(p.numel() for p in generator.parameters()) == 37_095_837


@pytest.mark.parametrize(("size", "grid", "doublings"), [(112, 7, 4), (128, 4, 5), (256, 4, 6)])
def test_other_sizes_end_with_as_many_channels(size: int, grid: int, doublings: int) -> None:
    with torch.device("meta"):
        generator = StyleGenerator(size)
        picture = generator(torch.empty(1, 2560), torch.empty(1, 512, grid, grid))
    assert picture.shape == (1, 3, size, size)
    assert len(generator.ups) == doublings
    assert generator.state_dict()[f"ups.{doublings - 1}.conv.weight"].shape[0] == 128


def test_small_is_cheap_and_bounded() -> None:
    generator = StyleGenerator(64, latent_dim=768, map_channels=64, channels=64, min_channels=16)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        picture = generator(torch.randn(2, 768), torch.randn(2, 64, 4, 4))
    assert counter.get_total_flops() / 2e6 < 150
    assert picture.shape == (2, 3, 64, 64)
    assert picture.abs().max() < 1


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulation_equals_per_sample_weights(upsample: bool, demodulate: bool) -> None:
    torch.manual_seed(2)
    conv = ModulatedConv(4, 5, 3, 6, demodulate=demodulate, upsample=upsample).double()
    x, latent = torch.randn(3, 4, 5, 6).double(), torch.randn(3, 6).double()
    slow = modulated_conv(
        x, conv.weight * conv.scale, conv.style(latent), demodulate=demodulate, upsample=upsample
    )
    assert torch.allclose(conv(x, latent), slow, atol=1e-10)


def test_demodulated_features_have_unit_variance_on_noise() -> None:
    torch.manual_seed(3)
    conv = ModulatedConv(64, 64, 3, 8)
    out = conv(torch.randn(4, 64, 24, 24), 5 * torch.randn(4, 8))[:, :, 1:-1, 1:-1]
    assert out.var().item() == pytest.approx(1.0, rel=0.05)


def test_upsampling_keeps_constants() -> None:
    flat = torch.full((1, 3, 6, 6), 0.7)
    assert torch.allclose(upsample_picture(flat)[..., 1:-1, 1:-1], torch.tensor(0.7))
    stuffed = torch.zeros(1, 2, 13, 13)
    stuffed[..., ::2, ::2] = 0.7
    assert torch.allclose(blur(stuffed)[..., 2:-2, 2:-2], torch.tensor(0.7))
    assert blur(stuffed).shape == (1, 2, 12, 12)


def test_noise_only_in_training_and_only_with_gain() -> None:
    generator, inputs = _small(), _inputs()
    with torch.no_grad():
        assert torch.equal(generator(*inputs), generator(*inputs))
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_gain"):
                parameter.fill_(1.0)
        assert not torch.equal(generator(*inputs), generator(*inputs))
        generator.eval()
        assert torch.equal(generator(*inputs), generator(*inputs))


@pytest.mark.parametrize("upsample", [False, True])
def test_layers_move_with_their_input_once_noise_is_off(upsample: bool) -> None:
    torch.manual_seed(0)
    layer = StyledLayer(5, 6, 8, noise=True, upsample=upsample).train()
    x, latent = torch.randn(2, 5, 12, 12), torch.randn(2, 8)
    step = 2 if upsample else 1
    inside = (
        ...,
        slice(4 * step, -4 * step),
        slice(4 * step, -4 * step),
    )  # zero padding does not move

    def moved_apart() -> float:
        with torch.no_grad():
            first = layer(x, latent).roll((step, step), (-2, -1))
            second = layer(x.roll((1, 1), (-2, -1)), latent)
        return float((first - second)[inside].abs().max())

    assert moved_apart() < 1e-5  # the gain starts at 0
    assert layer.noise_gain is not None
    torch.nn.init.ones_(layer.noise_gain)
    assert moved_apart() > 0.1
    layer.eval()
    assert moved_apart() < 1e-5


def test_samples_do_not_touch_each_other() -> None:
    generator, (latent, grid) = _small().eval(), _inputs()
    with torch.no_grad():
        together = generator(latent, grid)
        alone = torch.cat([generator(latent[i : i + 1], grid[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_every_parameter_learns_and_both_inputs_matter() -> None:
    generator, (latent, grid) = _small(), _inputs()
    latent.requires_grad_(True)
    grid.requires_grad_(True)
    generator(latent, grid).square().mean().backward()
    silent = [
        n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert silent == []
    assert latent.grad is not None
    assert grid.grad is not None
    assert latent.grad.abs().sum() > 0
    assert grid.grad.abs().sum() > 0


def test_bfloat16_autocast_is_finite_and_close() -> None:
    generator, inputs = _small().eval(), _inputs()
    with torch.no_grad():
        exact = generator(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = generator(*inputs)
    assert torch.isfinite(rough).all()
    assert (rough.float() - exact).abs().mean() < 0.05


def test_wrong_shapes_are_named() -> None:
    generator, (latent, grid) = _small(), _inputs()
    for bad in ((latent[:, :-1], grid), (latent, grid[:, :, :3]), (latent, grid[:2])):
        with pytest.raises(ShapeError, match=r"expected a latent \(n, 48\).*map_size 4"):
            generator(*bad)


def test_spec_rebuilds() -> None:
    generator = _small()
    again = StyleGenerator(**generator.spec)
    again.load_state_dict(generator.state_dict(), strict=True)
    inputs = _inputs()
    assert torch.equal(again.eval()(*inputs), generator.eval()(*inputs))


@pytest.mark.gpu
def test_generator_gpu_agrees_with_cpu() -> None:
    generator, inputs = _small().eval(), _inputs()
    with torch.no_grad():
        expected = generator(*inputs)
        found = generator.cuda()(*(x.cuda() for x in inputs)).cpu()
    assert torch.allclose(found, expected, atol=2e-2)
