from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.audio_pyramid import AudioPyramid, StridedBlock, at_frames, stretched
from tests.oracles.ms_sync import interpolated


def made(levels: int = 4, interpolation: str = "time") -> AudioPyramid:
    torch.manual_seed(0)
    return AudioPyramid(16, levels, interpolation).eval()  # type: ignore[arg-type]  # also a wrong one


def sound(frames: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, 4 * frames, 26, generator=torch.Generator().manual_seed(1))


def own_samples(net: AudioPyramid, audio: Tensor) -> list[Tensor]:
    out = []
    for level in net.levels:
        audio = level(audio)
        out.append(audio)
    return out


def test_levels_of_a_training_run() -> None:
    net = made()
    samples = own_samples(net, sound(43))
    assert [x.shape[1] for x in samples] == [43, 22, 11, 6]
    assert net(sound(43)).shape == (1, 4, 43, 16)
    assert made(levels=2)(sound(43)).shape == (1, 2, 43, 16)


@pytest.mark.parametrize(("level", "steps"), [(0, 13), (1, 37), (2, 85), (3, 181)])
def test_a_sample_is_centred_on_its_frame_and_sees_so_many_steps(level: int, steps: int) -> None:
    audio = sound(80).requires_grad_()
    frame = 32  # a sample of every level
    own_samples(made(), audio)[level][0, frame >> level].sum().backward()
    assert audio.grad is not None
    seen = audio.grad[0].abs().sum(-1).nonzero()[:, 0]
    assert (int(seen[0]), int(seen[-1])) == (4 * frame - steps // 2, 4 * frame + steps // 2)


@pytest.mark.parametrize("frames", [1, 2, 9, 43, 50])
@pytest.mark.parametrize("level", [0, 1, 3])
def test_interpolation_against_the_loop(frames: int, level: int) -> None:
    count = -(-frames >> level)
    samples = torch.randn(2, count, 3)
    times = [float(2**level * j) for j in range(count)]
    torch.testing.assert_close(
        at_frames(samples, level, frames), interpolated(samples, times, frames)
    )
    if count > 1:
        times = [(frames - 1) * j / (count - 1) for j in range(count)]
        torch.testing.assert_close(stretched(samples, frames), interpolated(samples, times, frames))


@pytest.mark.parametrize(("frames", "drift"), [(43, 2.0), (120, 7.0), (250, 1.0)])
def test_a_ramp_lies_where_it_belongs_and_stretching_moves_it(frames: int, drift: float) -> None:
    # The value of a sample is the frame it was taken at; the drift is the one of reference-facts 6.5.
    samples = torch.arange(0, frames, 8.0)[None, :, None]
    last = samples[0, -1, 0]
    ramp = torch.arange(frames, dtype=torch.float32).clamp_max(last)
    torch.testing.assert_close(at_frames(samples, 3, frames)[0, :, 0], ramp)
    late = stretched(samples, frames)[0, :, 0]
    assert frames - 1 - float(late[-1]) == pytest.approx(drift, abs=1e-3)
    # Halfway along the clip half the drift.
    middle = frames // 2
    assert middle - float(late[middle]) == pytest.approx(drift * middle / (frames - 1), abs=1e-3)


def test_constant_sound_gives_constant_features_up_to_the_ends() -> None:
    for name in ("time", "corners"):
        audio = sound(1)[:, :1].expand(-1, 4 * 21, -1)
        features = made(interpolation=name)(audio)
        torch.testing.assert_close(features, features[:, :, :1].expand_as(features))


def test_the_skip_is_the_input_where_shapes_agree() -> None:
    block = StridedBlock(4, 4, 3, 1)
    for parameter in block.mix[3].parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 5, 4)
    torch.testing.assert_close(block(x), torch.nn.functional.gelu(x))


@pytest.mark.parametrize("cuts", [[4 * 150], [4] * 150, [4 * 7, 4 * 140, 4 * 3], [4 * 64, 4 * 86]])
def test_blocks_of_any_length_give_the_features_of_the_whole(cuts: list[int]) -> None:
    net, audio = made(), sound(150, rows=2)
    with torch.no_grad():
        parts = list(net.by_blocks(audio.split(cuts, 1)))
        assert len(parts) > 1
        torch.testing.assert_close(torch.cat(parts, 2), net(audio), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 31, 32, 33, 64, 65, 128])
def test_blocks_around_the_block_size(frames: int) -> None:
    net, audio = made(), sound(frames)
    with torch.no_grad():
        parts = torch.cat(list(net.by_blocks([audio])), 2)
        torch.testing.assert_close(parts, net(audio), atol=1e-5, rtol=1e-5)


def test_blocks_hold_no_more_than_their_neighbourhood() -> None:
    net, seen = made(), []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1] // 4))
    with torch.no_grad():
        assert sum(part.shape[2] for part in net.by_blocks(iter([sound(10)] * 100))) == 1000
    assert max(seen) <= 64 + 2 * 32 + 8


def test_wrong_options_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 4 levels and a width divisible by 8, got 5 levels"):
        made(levels=5)
    with pytest.raises(ConfigError, match="interpolation out of time, corners, got 'cubic'"):
        made(interpolation="cubic")
    with pytest.raises(ConfigError, match="interpolation time for sound in blocks"):
        made(interpolation="corners").by_blocks([sound(3)])
    for shape in ((1, 7, 26), (1, 8, 25), (8, 26), (1, 0, 26)):
        with pytest.raises(ShapeError, match="of whole frames"):
            made()(torch.zeros(shape))
