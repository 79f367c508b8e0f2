from __future__ import annotations

from typing import Any

import pytest
import torch

from talkhead.audio.speech_windows import speech_windows
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.mouth_box import crop_mouth, mouth_boxes
from talkhead.networks.sync_expert import ProjectionHead, SyncExpert

SMALL: dict[str, Any] = {
    "feature_dim": 6, "window": 4, "frames": 2, "side": 16, "dim": 8, "audio_widths": [8, 8],
    "video_widths": [4, 8], "blocks": 1,
}  # fmt: skip


def expert(**options: Any) -> SyncExpert:
    torch.manual_seed(0)
    return SyncExpert(**{**SMALL, **options}).eval()


def test_the_defaults_are_the_released_sound_branch() -> None:
    with torch.device("meta"):
        made = SyncExpert()
    heads = [part for part in made.sound if isinstance(part, ProjectionHead)]
    shapes = [tuple(head.projection.weight.shape) for head in heads]
    assert shapes == [(2048, 18 * 1024), (1024, 2048), (512, 1024), (1024, 512)]
    assert all(head.mix[2].p == 0.1 for head in heads)
    assert made.lips[0].weight.shape == (32, 27, 7, 7)
    assert made.lips[-1].weight.shape == (1024, 512)
    assert (made.frames, made.window, made.side, made.align) == (9, 18, 128, "start")


def test_a_projection_head_by_hand() -> None:
    head = ProjectionHead(2, 2, 0.0)
    with torch.no_grad():
        head.projection.weight.copy_(torch.eye(2))
        head.projection.bias.zero_()
        second = head.mix[1]
        assert isinstance(second, torch.nn.Linear)
        second.weight.zero_()
        second.bias.copy_(torch.tensor([1.0, 0.0]))
    # (3, 1) + (1, 0), normalised
    torch.testing.assert_close(
        head(torch.tensor([[3.0, 1.0]])), torch.tensor([[1.0, -1.0]]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("non_negative", [True, False])
def test_embeddings_are_non_negative_if_asked(non_negative: bool) -> None:
    made = expert(non_negative=non_negative)
    sound, lips = made(torch.randn(5, 4, 6), torch.rand(5, 2, 3, 16, 16) * 2 - 1)
    assert sound.shape == lips.shape == (5, 8)
    assert bool(sound.min() >= 0) == non_negative
    assert bool(lips.min() >= 0) == non_negative


def test_a_spec_rebuilds_the_expert_with_its_features() -> None:
    made = expert(front="mel", align="centre")
    made.note_front("abc")
    again = SyncExpert(**made.spec)
    again.load_state_dict(made.state_dict())
    assert (again.front, again.align, again.front_digest) == ("mel", "centre", "abc")
    windows = torch.randn(2, 4, 6)
    assert torch.equal(again.eval().audio(windows), made.audio(windows))


@pytest.mark.parametrize("side", [16, 17, 32])
def test_any_side_that_the_stages_can_halve(side: int) -> None:
    assert expert(side=side).video(torch.zeros(1, 2, 3, side, side)).shape == (1, 8)


def test_mouths_and_windows_are_cut_as_the_expert_wants_them() -> None:
    random = torch.Generator().manual_seed(0)
    pictures, points = (
        torch.rand(2, 2, 3, 24, 24, generator=random),
        torch.rand(2, 2, 68, 3, generator=random),
    )
    own = expert(boxes="frame").mouths(pictures, points)
    boxes = mouth_boxes(points).flatten(0, 1)
    assert torch.equal(own.flatten(0, 1), crop_mouth(pictures.flatten(0, 1), boxes, 16))
    shared = expert().mouths(pictures, points)
    mean = mouth_boxes(points).mean(1)
    torch.testing.assert_close(shared[:, 1], crop_mouth(pictures[:, 1], mean, 16))
    features = torch.randn(40, 6, generator=random)
    made = expert(align="centre", frames=5)
    assert torch.equal(
        made.run_windows(features, torch.tensor([3])),
        speech_windows(features, torch.tensor([5]), length=4, align="centre"),
    )
    assert made.frame_windows(features, 20).shape == (20, 4, 6)


def test_gradients_reach_the_pictures() -> None:
    made = expert()
    pictures = torch.rand(1, 2, 3, 24, 24, requires_grad=True)
    points = torch.rand(1, 2, 68, 2, generator=torch.Generator().manual_seed(3))
    made.video(made.mouths(pictures, points)).sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="front: expected hubert or mel, got 'wav'"):
        expert(front="wav")
    with pytest.raises(ConfigError, match="at least 4 pixels for 2 stages, got 3"):
        expert(side=3, video_widths=[4, 4, 4])
    with pytest.raises(ConfigError, match="sizes of at least 1"):
        expert(window=0)
    with pytest.raises(ShapeError, match=r"expected windows of hubert features \(n, 4, 6\)"):
        expert().audio(torch.zeros(2, 4, 7))
    with pytest.raises(ShapeError, match="expected mouths"):
        expert().video(torch.zeros(2, 3, 3, 16, 16))
