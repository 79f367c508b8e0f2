from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.prior import PriorNetwork, roll_out
from talkhead.networks.transformer import sinusoids
from tests.oracles.motion_prior import naive_roll_out, torch_layer

SMALL: dict[str, Any] = {
    "audio_dim": 6,
    "code_dim": 3,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "feedforward": 24,
    "max_length": 10,
}


def _network(**options: Any) -> PriorNetwork:
    torch.manual_seed(0)
    network = PriorNetwork(**{**SMALL, **options}).eval()
    for parameter in network.parameters():  # biases and norms away from their trivial start
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return network


def _inputs(rows: int = 2, frames: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(rows, frames, 3, generator=generator)
    audio = torch.randn(rows, frames, 6, generator=generator)
    return codes, torch.tensor([10, 900][:rows]), audio


def test_paper_size_defaults() -> None:
    network = PriorNetwork()
    assert (len(network.blocks), network.width, network.max_length) == (8, 512, 128)
    assert network.input.in_features == 512 + 42 + 1
    assert network.position.shape == (128, 512)
    assert sum(p.numel() for p in network.parameters()) == 17_719_338
    with torch.device("meta"):
        shallow = PriorNetwork(layers=6)  # the supplement's depth
        answer = shallow(torch.empty(1, 128, 42), None, torch.empty(1, 128, 512))
    assert sum(p.numel() for p in shallow.parameters()) == 13_513_770
    assert answer.shape == (1, 128, 42)


def test_spec_rebuilds_the_network() -> None:
    network = _network(causal=True, null_condition="learned")
    twin = type(network)(**network.spec)
    twin.load_state_dict(network.state_dict(), strict=True)
    codes, _, audio = _inputs()
    torch.testing.assert_close(twin.eval()(codes, None, audio), network(codes, None, audio))


def test_causal_is_the_only_difference() -> None:
    diffusion, autoregressive = _network(), _network(causal=True)
    ours, theirs = diffusion.state_dict(), autoregressive.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    different = {k for k in diffusion.spec if diffusion.spec[k] != autoregressive.spec[k]}
    assert different == {"causal"}


@pytest.mark.parametrize("causal", [False, True])
def test_equals_concatenation_and_torchs_encoder(causal: bool) -> None:
    network = _network(causal=causal)
    codes, step, audio = _inputs()
    given = torch.tensor([[True, False] * 3 + [True]] * 2)
    time = network.time_embedding(sinusoids(step, 16))
    token = torch.cat([audio + time[:, None], codes, given[..., None].float()], -1)
    x = network.input(token) + network.position[:7]
    ban = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    for block in network.blocks:
        layer = torch_layer(block, 16, 24).eval()  # type: ignore[arg-type]  # ModuleList items
        x = layer(x, src_mask=ban)
    got = network(codes, step, audio, given=given)
    torch.testing.assert_close(got, network.output(x), rtol=1e-5, atol=1e-5)


def test_who_sees_whom() -> None:
    codes, step, audio = _inputs()
    changed = codes.clone()
    changed[:, 4] += 1.0
    causal, both = _network(causal=True), _network()
    moved = (causal(changed, None, audio) - causal(codes, None, audio)).abs().amax((0, 2))
    assert bool((moved[:4] == 0).all())
    assert bool((moved[4:] > 0).all())
    moved = (both(changed, step, audio) - both(codes, step, audio)).abs().amax((0, 2))
    assert bool((moved > 0).all())


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(causal: bool) -> None:
    network = _network(causal=causal)
    codes, step, audio = _inputs()
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 4:] = False
    noisy = torch.where(valid[..., None], codes, 1e3)
    whole = network(noisy, step, audio, valid=valid)
    alone = network(codes[1:, :4], step[1:], audio[1:, :4])
    torch.testing.assert_close(whole[1:, :4], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        whole[:1], network(codes[:1], step[:1], audio[:1]), rtol=1e-5, atol=1e-5
    )
    nothing = network(codes, step, audio, valid=torch.zeros_like(valid))
    assert bool(nothing.isfinite().all())


@pytest.mark.parametrize("null", ["zeros", "learned"])
def test_null_condition_ignores_the_audio(null: str) -> None:
    network = _network(null_condition=null)
    codes, step, audio = _inputs()
    drop = torch.tensor([True, False])
    a, b = network(codes, step, audio, drop=drop), network(codes, step, -audio, drop=drop)
    torch.testing.assert_close(a[0], b[0])
    assert (a[1] - b[1]).abs().max().item() > 1e-3
    trainable = {name for name, _ in network.named_parameters()}
    assert ("null_audio" in trainable) == (null == "learned")
    assert "null_audio" in network.state_dict()


def test_zero_null_is_the_mean_sound() -> None:
    network = _network()
    codes, step, audio = _inputs()
    mean, std = torch.arange(6.0), torch.full((6,), 2.0)
    network.set_statistics(torch.zeros(3), torch.ones(3), mean, std)
    dropped = network(codes, step, audio, drop=torch.tensor([True, True]))
    torch.testing.assert_close(dropped, network(codes, step, mean.expand_as(audio)))


def test_projecting_once_equals_the_full_pass() -> None:
    network = _network()
    codes, step, audio = _inputs()
    torch.testing.assert_close(
        network.evaluate(codes, step, network.project(audio)), network(codes, step, audio)
    )


def test_statistics_round_trip_and_floor() -> None:
    network = _network()
    assert not bool(network.has_statistics)
    mean, std = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([2.0, 0.5, 0.0])
    network.set_statistics(mean, std, torch.zeros(6), torch.ones(6))
    assert bool(network.has_statistics)
    codes = _inputs()[0]
    torch.testing.assert_close(network.restore(network.standardise(codes)), codes)
    torch.testing.assert_close(network.standardise(mean + std)[:2], torch.ones(2))
    assert float(network.code_std[2]) == pytest.approx(2e-3)
    twin = _network()
    twin.load_state_dict(network.state_dict())
    torch.testing.assert_close(twin.code_std, network.code_std)
    with pytest.raises(ShapeError, match="code statistics"):
        network.set_statistics(torch.zeros(4), torch.ones(4), torch.zeros(6), torch.ones(6))


@pytest.mark.parametrize("with_first", [False, True])
def test_cached_roll_out_equals_the_naive_one(with_first: bool) -> None:
    network = _network(causal=True)
    _, _, audio = _inputs(frames=10)
    first = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]) if with_first else None
    got = roll_out(network, network.project(audio), first=first)
    torch.testing.assert_close(got, naive_roll_out(network, audio, first), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pattern", [[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0], [1] * 7])
def test_roll_out_keeps_given_frames_and_goes_on_from_them(pattern: list[int]) -> None:
    network = _network(causal=True)
    codes, _, audio = _inputs()
    kept = torch.tensor([pattern, pattern]).bool()
    kept[1, 0] = False  # rows may differ
    got = roll_out(network, network.project(audio), codes=codes, kept=kept)
    torch.testing.assert_close(got[kept], codes[kept])
    expected = naive_roll_out(network, audio, None, codes, kept)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_cache_is_allocated_once_and_bounded() -> None:
    network = _network(causal=True)
    _, _, audio = _inputs(frames=10)
    condition = network.project(audio)
    cache = network.new_cache(2)
    place = cache.keys.data_ptr()
    code = torch.zeros(2, 1, 3)
    for i in range(10):
        code = network.extend(code, condition[:, i : i + 1], None, cache)
    assert cache.length == 10
    assert cache.keys.data_ptr() == place
    assert cache.keys.shape == (2, 2, 2, 10, 8)
    with pytest.raises(ShapeError, match="within 10"):
        network.extend(code, condition[:, :1], None, cache)


def test_refuses_what_cannot_work() -> None:
    with pytest.raises(ConfigError, match="divisible by 3 heads"):
        PriorNetwork(**{**SMALL, "heads": 3})
    with pytest.raises(ConfigError, match="null_condition"):
        PriorNetwork(**SMALL, null_condition="noise")  # type: ignore[arg-type]  # from YAML
    network = _network()
    codes, step, audio = _inputs(frames=11)
    with pytest.raises(ShapeError, match="at most 10 frames"):
        network(codes, step, audio)
    with pytest.raises(ShapeError, match="one code per audio frame"):
        network(codes[:, :5], step, audio)
    with pytest.raises(ConfigError, match="causal prior"):
        network.extend(codes[:, :1], network.project(audio[:, :1]), None, network.new_cache(2))


def test_finite_in_bfloat16_and_every_parameter_gets_a_gradient() -> None:
    network = _network(null_condition="learned").train()
    codes, step, audio = _inputs()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(codes, step, audio, drop=torch.tensor([True, False]))
    assert bool(out.isfinite().all())
    out.float().square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())
