from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.time_pyramid import halved, paired_pyramids, time_pyramid, window_ms


def slowly_halved(column: list[float]) -> list[float]:
    """Seven-tap mean around every even place, the ends mirrored, by a plain loop."""
    last = len(column) - 1
    out = []
    for centre in range(0, len(column), 2):
        total = 0.0
        for k in range(centre - 3, centre + 4):
            inside = -k if k < 0 else 2 * last - k if k > last else k
            total += column[inside]
        out.append(total / 7)
    return out


def sequence(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_by_hand() -> None:
    impulse = torch.zeros(9, 1)
    impulse[4] = 7.0
    # The impulse at 4 is within three of the centres 2, 4 and 6.
    assert halved(impulse)[:, 0].tolist() == pytest.approx([0, 1, 1, 1, 0])
    edge = torch.zeros(9, 1)
    edge[1] = 7.0
    # Mirrored at -1: the centre 0 sees both, the centre 2 the places -1 to 5 and so both, the centre 4
    # sample 1 alone.
    assert halved(edge)[:, 0].tolist() == pytest.approx([2, 2, 1, 0, 0])


@pytest.mark.parametrize("length", [4, 5, 8, 43, 80])
def test_equals_the_plain_loop(length: int) -> None:
    given = sequence(2, length, 3)
    found = halved(given)
    assert found.shape == (2, math.ceil(length / 2), 3)
    for b in range(2):
        for d in range(3):
            slow = slowly_halved(given[b, :, d].tolist())
            assert found[b, :, d].tolist() == pytest.approx(slow)


def test_constants_stay_ramps_keep_their_place_and_jitter_falls_to_a_seventh() -> None:
    assert torch.allclose(halved(torch.full((12, 2), 3.5)), torch.full((6, 2), 3.5))
    ramp = torch.arange(40.0)[:, None]
    assert halved(ramp)[2:-2, 0].tolist() == pytest.approx(list(range(4, 36, 2)))
    jitter = torch.tensor([1.0, -1.0]).repeat(10)[:, None]
    assert halved(jitter)[:, 0].tolist() == pytest.approx([-1 / 7] * 10)


def test_levels_have_the_lengths_of_the_paper() -> None:
    points, audio = time_pyramid(sequence(43, 2), 4), time_pyramid(sequence(172, 2), 4)
    assert [len(level) for level in points] == [43, 22, 11, 6]
    assert [len(level) for level in audio] == [172, 86, 43, 22]
    assert torch.equal(points[2], halved(halved(points[0])))


@pytest.mark.parametrize("frames", [43, 80])
def test_pairs_have_four_steps_a_frame_on_every_level(frames: int) -> None:
    points, audio = sequence(2, frames, 3), sequence(2, 4 * frames, 5)
    pairs = paired_pyramids(points, audio, 4)
    for level, (seen, heard) in enumerate(pairs):
        assert seen.shape == (2, math.ceil(frames / 2**level), 3)
        assert heard.shape == (2, 4 * seen.shape[1], 5)
    plain = time_pyramid(audio, 4)
    for (_, heard), whole in zip(pairs, plain, strict=True):
        assert torch.equal(heard[:, : whole.shape[1]], whole)
    if frames == 43:
        # 43 steps for 11 frames: the missing one mirrors the last but one.
        assert torch.equal(pairs[2][1][:, 43], plain[2][:, 41])


def test_motion_and_sound_stay_together_up_to_the_reach_of_the_steps() -> None:
    """A bump over frame 32 is in frame 4 and in the steps 16 to 19 of level 3, whatever comes after."""
    for frames in (64, 77):
        points, audio = torch.zeros(frames, 1), torch.zeros(4 * frames, 1)
        points[30:35], audio[120:140] = 1.0, 1.0
        seen, heard = paired_pyramids(points, audio, 4)[3]
        assert int(seen[:, 0].argmax()) == 4
        assert 16 <= int(heard[:, 0].argmax()) <= 19


def test_scales() -> None:
    assert [window_ms(level) for level in range(4)] == [200, 400, 800, 1600]


def test_gradients_reach_the_finest_level() -> None:
    given = sequence(16, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: time_pyramid(x, 3)[2], (given,))


@pytest.mark.parametrize("shape", [(3, 2), (7,), (8, 0)])
def test_too_short_sequences_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="at least 4 samples"):
        halved(torch.zeros(shape))


def test_lengths_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"sound \(..., 4 T, F\), got \(20, 2\) and \(79, 3\)"):
        paired_pyramids(torch.zeros(20, 2), torch.zeros(79, 3), 2)
    with pytest.raises(ShapeError, match="at least one level"):
        time_pyramid(torch.zeros(20, 2), 0)
