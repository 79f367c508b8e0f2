from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.adversarial import discriminator_loss, generator_loss
from talkhead.networks.motion_discriminator import (
    MotionDiscriminator,
    MotionJudgement,
    window_starts,
)
from tests.oracles.ms_sync import window_logits

SMALL: dict[str, Any] = {"width": 8, "inner": 6, "blocks": 2, "hidden": 7}


def made(**options: Any) -> MotionDiscriminator:
    torch.manual_seed(0)
    net = MotionDiscriminator(**{**SMALL, **options}).eval()
    net.beta.data.fill_(1.5)
    return net


def run(frames: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, frames, 60, generator=torch.Generator().manual_seed(1))


def test_windows_of_a_training_run() -> None:
    judgement = made()(run(42, rows=3), observed=2)
    assert judgement.frames.shape == (3, 40)
    # Two frames may be observed ones: windows of 5 start at -2, 0, …, 34.
    assert [w.shape for w in judgement.windows] == [(3, 19), (3, 7), (3, 3), (3, 1)]
    assert judgement.run.shape == (3,)
    assert list(window_starts(20, 2, 40)) == [-2, 8, 18]
    # No further back than the stride leaves over, however many are observed.
    assert list(window_starts(5, 10, 9)) == [-3, -1, 1, 3]
    assert list(window_starts(10, 3, 6)) == []


def test_released_size_defaults() -> None:
    net = MotionDiscriminator()
    assert net.lstm.weight_hh_l0.shape == (4 * 1024, 1024)
    assert net.phi.weight.shape == (2048, 1024)
    encoder = 61 * 408 + 2 * 408 + 409 * 1632 + 1633 * 512
    assert sum(p.numel() for p in net.embed.parameters()) == encoder
    # Per-channel scale and offset, norm, 2048, back; to half the width with a skip and its norm.
    block = 4 * 512 + 513 * 2048 + 2049 * 512
    last = 4 * 512 + 513 * 2048 + 2049 * 256 + 513 * 256 + 2 * 256
    assert sum(p.numel() for p in net.frame_judge.parameters()) == 3 * block + last + 257


@pytest.mark.parametrize(("frames", "observed"), [(42, 2), (30, 3), (14, 9), (43, 1)])
def test_window_logits_against_the_loop(frames: int, observed: int) -> None:
    net, keypoints = made(), run(frames)
    judgement = net(keypoints, observed)
    for row in range(2):
        expected = window_logits(net, keypoints[row], observed)
        assert len(expected) == len(judgement.windows)
        for ours, theirs in zip(judgement.windows, expected, strict=True):
            torch.testing.assert_close(ours[row], torch.tensor(theirs), atol=1e-5, rtol=1e-4)
        mean = sum(sum(logits) / len(logits) for logits in expected) / len(expected)
        assert judgement.run[row].item() == pytest.approx(mean, abs=1e-5)


def test_frames_are_judged_one_by_one() -> None:
    net, keypoints = made(), run(12)
    base = net(keypoints, 3).frames
    moved = keypoints.clone()
    moved[:, 7] += 1.0
    moved[:, :3] -= 1.0
    changed = (net(moved, 3).frames - base).abs().amax(0) > 1e-6
    assert changed.nonzero()[:, 0].tolist() == [4]


def test_a_run_is_the_mean_over_windows_then_over_lengths() -> None:
    judgement = MotionJudgement(
        torch.zeros(1, 4), [torch.tensor([[1.0, 3.0]]), torch.tensor([[6.0]])]
    )
    assert judgement.run.tolist() == [4.0]


def test_far_windows_heed_the_observed_frames_less() -> None:
    net = made(windows=(4,))
    keypoints = run(60, rows=1).expand(-1, -1, -1).clone()
    keypoints[:, 3:] = keypoints[:, 3:4]  # the same frame over and over: only the distance differs
    other = keypoints.clone()
    other[:, :3] += 1.0
    starts = torch.tensor(window_starts(4, 3, 57))
    apart = (net(keypoints, 3).windows[0] - net(other, 3).windows[0])[0]
    inside = starts >= 0
    share = apart[inside] / apart[inside][0]
    expected = starts[inside].clamp_min(1).float() ** (-1 / 1.5)
    torch.testing.assert_close(share, expected, atol=1e-3, rtol=1e-2)


def test_losses_take_frames_and_runs() -> None:
    net = MotionDiscriminator(**SMALL)
    real, fake = net(run(42), 2), net(run(42) + 0.1, 2)
    for part in ("frames", "run"):
        loss = discriminator_loss([getattr(real, part)], [getattr(fake, part)])
        loss = loss + generator_loss([getattr(fake, part)])
        loss.backward(retain_graph=True)
    discriminator_loss(real.windows, fake.windows).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_spec_rebuilds_the_network() -> None:
    net = made(windows=(3, 6))
    again = MotionDiscriminator(**net.spec).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(run(12), 2).run, net(run(12), 2).run)


def test_wrong_options_and_shapes_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"at least 2 frames and at least one block, got \[1, 5\]"
    ):
        made(windows=(1, 5))
    with pytest.raises(ShapeError, match=r"keypoints \(B, T, 60\) with 1 to T - 1 observed frames"):
        made()(run(8), 8)
    with pytest.raises(ShapeError, match=r"keypoints \(B, T, 60\)"):
        made()(run(8)[..., :59], 2)
    with pytest.raises(ShapeError, match="more frames than 2 after 1 observed"):
        made()(run(3), 1)
