from __future__ import annotations

import pytest
import torch

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.landmark_streams import (
    CONTENT_REACH,
    ContentEncoder,
    PoseCoder,
    RhythmicGenerator,
    StepPredictor,
)

MELS, DIM = 6, 8


def content() -> ContentEncoder:
    torch.manual_seed(0)
    return ContentEncoder(MELS, 4, DIM)


def heard_frames(response: torch.Tensor) -> list[int]:
    return torch.nonzero(response.abs().sum(-1)[0] > 0)[:, 0].tolist()


def test_content_has_four_convolutions_and_a_symmetric_reach() -> None:
    made = content()
    assert sum(isinstance(layer, torch.nn.Conv1d) for layer in made.layers) == 4
    silence = torch.zeros(1, 21, 4 * MELS)
    steps = {}
    for step in range(4):
        bang = silence.clone()
        bang[0, 10, step * MELS : (step + 1) * MELS] = 1.0
        steps[step] = heard_frames(made(bang) - made(silence))
    everything = sorted({frame for frames in steps.values() for frame in frames})
    assert everything == list(range(10 - CONTENT_REACH, 10 + CONTENT_REACH + 1))
    # The middle of the frame: its first and last step are heard as far to either side.
    assert [20 - f for f in reversed(steps[0])] == steps[3]


def test_content_of_a_part_is_that_of_the_whole_inside() -> None:
    made = content()
    mel = torch.rand(2, 30, 4 * MELS, generator=torch.Generator().manual_seed(1))
    part = made(mel[:, 8 : 8 + 14])
    inside = slice(CONTENT_REACH, 14 - CONTENT_REACH)
    torch.testing.assert_close(part[:, inside], made(mel)[:, 8:22][:, inside])
    with pytest.raises(ShapeError, match="mel rows"):
        made(torch.zeros(1, 5, MELS))


def test_rhythm_reaches_as_far_as_it_says_and_offsets_are_linear_in_codes() -> None:
    torch.manual_seed(0)
    made = RhythmicGenerator(4, 6, 3, DIM)
    assert made.reach == 2 * (1 + 2 + 4)
    quiet = torch.zeros(1, 41, 4)
    loud = quiet.clone()
    loud[0, 20, 0] = 1.0
    felt = heard_frames(made(loud).codes - made(quiet).codes)
    assert (felt[0], felt[-1]) == (20 - made.reach, 20 + made.reach)
    codes, offsets = made(loud)
    torch.testing.assert_close(offsets, codes @ made.offset.weight.T)
    with pytest.raises(ShapeError, match="prosody"):
        made(torch.zeros(1, 5, 3))
    with pytest.raises(ConfigError, match="rhythmic_layers"):
        RhythmicGenerator(4, 6, 0, DIM)


def test_codes_are_of_unit_size_and_a_roll_out_repeats_the_step() -> None:
    torch.manual_seed(0)
    coder = PoseCoder(DIM, 16, 2)
    random = torch.Generator().manual_seed(2)
    pose, face = torch.randn(2, 3, 136, generator=random)
    asked = torch.randn(3, 5, DIM, generator=random)
    code = coder.encode(pose, face)
    torch.testing.assert_close(code.square().mean(-1), torch.ones(3), atol=1e-3, rtol=0)
    poses, codes = coder.roll_out(pose, face, asked)
    now = pose
    for i in range(5):
        now, made = coder.step(now, face, asked[:, i])
        torch.testing.assert_close(poses[:, i], now)
        torch.testing.assert_close(codes[:, i], made)
    torch.testing.assert_close(
        coder.step(pose, face, asked[:, 0])[1], coder.decode(asked[:, 0], code)
    )


def test_gradients_of_a_roll_out_end_at_a_stretch() -> None:
    torch.manual_seed(0)
    coder = PoseCoder(DIM, 16, 2)
    asked = torch.randn(1, 4, DIM, requires_grad=True)
    poses, _ = coder.roll_out(torch.zeros(1, 136), torch.zeros(1, 136), asked)
    (gradient,) = torch.autograd.grad(poses[:, 3].sum(), asked)
    assert (gradient[0].abs().sum(-1) > 0).tolist() == [False, False, True, True]
    with pytest.raises(ConfigError, match="backprop_frames"):
        PoseCoder(DIM, 16, 0)


def test_the_step_predictor_is_a_share_and_learns_which_runs_are_lively() -> None:
    torch.manual_seed(0)
    made = StepPredictor(16)
    face, lively = torch.zeros(32, 136), torch.linspace(0.1, 2.0, 32)
    pose = lively[:, None, None] * torch.randn(32, 10, 136)
    target = lively / 2.5
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(150):
        loss = (made(pose, 0 * pose, face) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * float(target.var())
    single = made(pose[:, :1], pose[:, :1], face)
    assert bool(((single > 0) & (single < 1)).all())
