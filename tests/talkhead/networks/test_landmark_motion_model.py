from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.diffusion.sampler import ItemNoise, SamplerSettings
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.landmark_rows import LANDMARK_DIM, landmark_points
from talkhead.networks.landmark_coarse import Heard
from talkhead.networks.landmark_motion_model import LandmarkMotionModel, SampleCost
from tests.oracles.landmark_motion import coarse_by_frames

TINY: dict[str, Any] = {
    "max_length": 16, "code_dim": 8, "hidden": 16, "content_channels": 4, "rhythmic_channels": 4,
    "rhythmic_layers": 2, "width": 16, "layers": 1, "heads": 2, "feedforward": 16, "dropout": 0.0,
    "diffusion_steps": 40,
}  # fmt: skip
SETTINGS = SamplerSettings(steps=10, guidance=1.0, overlap=4)


def model(**options: Any) -> LandmarkMotionModel:
    torch.manual_seed(0)
    made = LandmarkMotionModel(**{**TINY, **options}).eval()
    scale = torch.linspace(0.5, 2.0, LANDMARK_DIM)
    made.set_statistics(0.01 * scale, 0.05 * scale, 0.02 * scale)
    return made


def speech(frames: int, rows: int = 2, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    mel = torch.rand(rows, frames, 320, generator=random)
    prosody = torch.randn(rows, frames, 4, generator=random)
    return mel, prosody, 0.2 * torch.randn(rows, LANDMARK_DIM, generator=random)


def test_coarse_motion_equals_the_equations_frame_by_frame() -> None:
    made = model()
    mel, prosody, first = speech(14)
    known = torch.randn(2, 3, LANDMARK_DIM, generator=torch.Generator().manual_seed(5))
    coarse = made.coarse(made.hear(mel, prosody), known, made.face(first))
    for row in range(2):
        pose, rhythm = coarse_by_frames(
            made, mel[row], prosody[row], known[row], made.face(first)[row]
        )
        torch.testing.assert_close(coarse.pose[row], pose, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(coarse.rhythm[row], rhythm)
    torch.testing.assert_close(coarse.motion[:, :3], known)  # known frames stay (equation 1)
    assert coarse.pose_codes is not None
    assert coarse.pose_codes.shape == (2, 11, 8)


def test_streams_of_real_motion_take_every_pose_from_the_real_frame_before() -> None:
    made = model()
    mel, prosody, first = speech(9)
    rows = first[:, None] + 0.02 * torch.randn(2, 9, LANDMARK_DIM)
    streams = made.streams(rows, mel, prosody)
    motion = made.relative(rows, rows[:, 0])
    for i in range(1, 9):
        step = made.coarse(made.hear(mel, prosody), motion[:, :i], made.face(rows[:, 0]))
        torch.testing.assert_close(streams.pose[:, i], step.pose[:, i])
    torch.testing.assert_close(made.absolute(motion, rows[:, 0]), rows)


def test_each_stream_hears_its_own_sound_and_can_be_left_out() -> None:
    made = model()
    mel, prosody, first = speech(12)
    face, still = made.face(first), torch.zeros(2, 1, LANDMARK_DIM)
    whole = made.coarse(made.hear(mel, prosody), still, face)
    other_mel = made.coarse(made.hear(mel.flip(1), prosody), still, face)
    assert torch.equal(whole.rhythm, other_mel.rhythm)
    assert not torch.allclose(whole.pose, other_mel.pose)
    held = model(pose_stream=False)
    alone = held.coarse(held.hear(mel, prosody), still, face)
    assert torch.equal(alone.pose, alone.pose[:, :1].expand_as(alone.pose))
    assert alone.pose_codes is None
    steady = model(rhythmic_stream=False)
    assert not steady.coarse(steady.hear(mel, prosody), still, face).rhythm.any()
    names = {name.split(".")[0] for name, _ in held.named_parameters()}
    assert names == {"rhythmic", "denoiser", "predictor"}


@pytest.mark.parametrize("start", [None, "noise", "predicted", 0, 1, 40])
def test_samples_begin_with_the_portrait_and_cover_the_speech(start: Any) -> None:
    made = model()
    mel, prosody, first = speech(37, rows=1)
    portrait = landmark_points(first[0])
    pieces = list(
        made.sample(mel[0], prosody[0], portrait, settings=SETTINGS, start_step=start,
                    generator=torch.Generator().manual_seed(3))
    )  # fmt: skip
    whole = torch.cat(pieces)
    assert whole.shape == (37, 68, 2)
    assert [len(piece) for piece in pieces] == [16, 12, 9]
    torch.testing.assert_close(whole[0], portrait)
    again = made.sample(mel[0], prosody[0], portrait, settings=SETTINGS, start_step=start,
                        generator=torch.Generator().manual_seed(3))  # fmt: skip
    assert torch.equal(torch.cat(list(again)), whole)
    other = made.sample(mel[0], prosody[0], portrait, settings=SETTINGS, start_step=start,
                        generator=torch.Generator().manual_seed(4))  # fmt: skip
    assert torch.equal(torch.cat(list(other)), whole) == (
        start == 0
    )  # the coarse motion is certain


def test_sound_in_blocks_is_heard_as_a_whole() -> None:
    made = model()
    mel, prosody, _ = speech(70)
    heard = made.hear(mel, prosody)
    blocks = torch.cat(list(made._blocks(mel, prosody)), 1)
    torch.testing.assert_close(blocks, torch.cat([heard.content, heard.rhythm.offsets], -1))


def test_long_speech_holds_one_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    mel, prosody, first = speech(400, rows=1)
    heard: list[int] = []
    hear = made.hear

    def noted(mel: Tensor, prosody: Tensor) -> Heard:
        heard.append(mel.shape[1])
        return hear(mel, prosody)

    monkeypatch.setattr(made, "hear", noted)
    rows = made.sample_rows(mel, prosody, first, [1], settings=SETTINGS, start_step=2)
    next(rows)
    assert len(heard) == 1  # nothing is computed before it is needed
    assert sum(piece.shape[1] for piece in rows) == 400 - 16
    assert max(heard) <= made.max_length + 2 * made.reach


@pytest.mark.parametrize("start", ["predicted", "calibrated", "noise"])
def test_a_row_does_not_depend_on_the_others(start: Any) -> None:
    made = model()
    mel, prosody, first = speech(20, rows=4)
    settings = SamplerSettings(kind="ddpm", steps=40, guidance=1.0, overlap=4)

    def rows(which: list[int]) -> Tensor:
        pieces = made.sample_rows(
            mel[which], prosody[which], first[which], [10 + i for i in which],
            settings=settings, start_step=start,
        )  # fmt: skip
        return torch.cat(list(pieces), 1)

    whole = rows([0, 1, 2, 3])
    torch.testing.assert_close(rows([2])[0], whole[2], rtol=1e-3, atol=1e-4)


def test_a_shallow_start_runs_the_lower_evaluations_only() -> None:
    made = model()
    mel, prosody, first = speech(16)
    face = made.face(first)
    coarse = made.coarse(made.hear(mel, prosody), torch.zeros(2, 1, LANDMARK_DIM), face)
    counts = {}
    for start in (0, 8, 40):
        cost = SampleCost()
        noise = ItemNoise([1, 2], 16, LANDMARK_DIM)
        made.refined(coarse, face, 1, noise, SamplerSettings(kind="ddim", steps=40, guidance=1.0),
                     start, cost)  # fmt: skip
        assert cost.windows == 2
        counts[start] = cost.evaluations / cost.windows
    assert counts == {0: 0.0, 8: 8.0, 40: 40.0}


def test_without_diffusion_the_coarse_motion_is_the_result() -> None:
    made = model(diffusion=False)
    assert made.denoiser is None
    mel, prosody, first = speech(16)
    rows = torch.cat(list(made.sample_rows(mel, prosody, first, [1, 2], settings=SETTINGS)), 1)
    face = made.face(first)
    coarse = made.coarse(made.hear(mel, prosody), torch.zeros(2, 1, LANDMARK_DIM), face)
    torch.testing.assert_close(rows, made.absolute(coarse.motion, first))


def test_refused() -> None:
    with pytest.raises(ConfigError, match="at least one stream"):
        model(pose_stream=False, rhythmic_stream=False)
    with pytest.raises(ConfigError, match="target out of"):
        model(target="x1")
    made = model()
    mel, prosody, first = speech(8)
    with pytest.raises(ShapeError, match="the same frames"):
        made.hear(mel, prosody[:, :4])
    heard, face = made.hear(mel, prosody), made.face(first)
    for count in (0, 9):
        with pytest.raises(ShapeError, match="1 to 8 known frames"):
            made.coarse(heard, torch.zeros(2, count, LANDMARK_DIM), face)
    with pytest.raises(ShapeError, match="motion_std"):
        made.set_statistics(torch.zeros(136), torch.ones(136), torch.ones(3))
    for wrong in (-1, 41, "half", True):
        with pytest.raises(ConfigError, match="0 to 40 or one of calibrated, predicted, noise"):
            list(made.sample_rows(mel, prosody, first, [1, 2], settings=SETTINGS, start_step=wrong))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("start", [8, 40, "noise"])
def test_a_denoiser_that_says_nothing_leaves_the_coarse_motion(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model(target="x0")
    mel, prosody, first = speech(16)
    assert made.denoiser is not None
    monkeypatch.setattr(made.denoiser, "evaluate", lambda x, step, told, given: torch.zeros_like(x))
    pieces = made.sample_rows(mel, prosody, first, [1, 2], settings=SETTINGS, start_step=start)
    face = made.face(first)
    coarse = made.coarse(made.hear(mel, prosody), torch.zeros(2, 1, LANDMARK_DIM), face)
    torch.testing.assert_close(torch.cat(list(pieces), 1), made.absolute(coarse.motion, first))
