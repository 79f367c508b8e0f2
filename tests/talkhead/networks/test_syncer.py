from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.sync import av_sync_loss
from talkhead.networks.rigid_syncer import windows_of
from talkhead.networks.syncer import SyncerPyramid
from talkhead.time_pyramid import paired_pyramids

SMALL: dict[str, Any] = {"dim": 8, "width": 16, "blocks": 1}


def made(**options: Any) -> SyncerPyramid:
    torch.manual_seed(0)
    net = SyncerPyramid(**{**SMALL, **options})
    net(*runs(seed=5))  # fills the running statistics
    return net.eval()


def runs(count: int = 2, frames: int = 80, seed: int = 1) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    keypoints = 0.3 * torch.randn(count, 1, 60, generator=random)
    keypoints = keypoints + 0.02 * torch.randn(count, frames, 60, generator=random)
    return keypoints, 2 * torch.randn(count, 4 * frames, 26, generator=random) - 8


@pytest.mark.parametrize("options", [{}, {"centre": "window", "audio_level": "window"}])
def test_windows_of_every_level(options: dict[str, Any]) -> None:
    net = made(**options)
    assert net.scales == (200, 400, 800, 1600)
    # 43 frames, MS-Sync's training length, have 39, 18, 7 and 2 windows.
    for frames, expected in ((80, (76, 36, 16, 6)), (43, (39, 18, 7, 2))):
        levels = net(*runs(frames=frames))
        assert tuple(windows_of(frames, level) for level in range(4)) == expected
        for (points, audio), windows in zip(levels, expected, strict=True):
            assert points.shape == audio.shape == (2, windows, 8)
            for embedding in (points, audio):
                torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(2, windows))
    assert [level.points.shape[1] for level in made(levels=2)(*runs(frames=9))] == [5, 1]


@pytest.mark.parametrize("centre", ["none", "window"])
@pytest.mark.parametrize("audio_level", ["none", "run", "window"])
def test_embeddings_are_those_of_the_windows_one_by_one(centre: Any, audio_level: Any) -> None:
    """A plain loop over levels, runs and windows, each standardised by hand."""
    net = made(levels=2, centre=centre, audio_level=audio_level)
    keypoints, audio = runs(frames=13)
    audio[0, :7, 3] = -36.0  # digital silence is heard as -20
    found, state = net(keypoints, audio), net.state_dict()
    heard = audio.clamp_min(-20.0)
    if audio_level == "run":
        heard = torch.stack([row - row.mean() for row in heard])
    for level, (points, sound) in enumerate(paired_pyramids(keypoints, heard, 2)):
        norms = [
            (
                state[f"{side}_norms.{level}.running_mean"],
                state[f"{side}_norms.{level}.running_var"],
            )
            for side in ("keypoint", "audio")
        ]
        for row in range(2):
            for t in range(points.shape[1] - 4):
                seen, piece = points[row, t : t + 5], sound[row, 4 * t : 4 * t + 20]
                if centre == "window":
                    seen = seen - seen.mean(dim=0)
                if audio_level == "window":
                    piece = piece - piece.mean()
                seen, piece = (
                    (x - mean) / (variance + 1e-6).sqrt()
                    for x, (mean, variance) in zip((seen, piece), norms, strict=True)
                )
                ours, theirs = net.levels[level](seen[None], piece[None])
                torch.testing.assert_close(found[level].points[row, t], ours[0, 0])
                torch.testing.assert_close(found[level].audio[row, t], theirs[0, 0])


def test_what_centring_hides() -> None:
    keypoints, audio = runs()
    moved = keypoints + 0.3 * torch.randn(60, generator=torch.Generator().manual_seed(2))
    for scores, same in ((made(centre="window"), True), (made(), False)):
        for ours, theirs in zip(scores(moved, audio), scores(keypoints, audio), strict=True):
            assert torch.allclose(ours.points, theirs.points, atol=1e-3) is same
            assert torch.equal(ours.audio, theirs.audio)


def test_what_loudness_hides() -> None:
    keypoints, audio = runs()
    louder = audio + 1.5
    ramp = audio + torch.linspace(0, 3, 320)[:, None]
    for taken, same in (
        ("none", (False, False)),
        ("run", (True, False)),
        ("window", (True, False)),
    ):
        net = made(audio_level=taken)
        for changed, expected in zip((louder, ramp), same, strict=True):
            for ours, theirs in zip(net(keypoints, changed), net(keypoints, audio), strict=True):
                assert torch.allclose(ours.audio, theirs.audio, atol=2e-3) is expected
    # Steps of loudness as long as a run's halves are hidden from windows that lie within one.
    halves = audio + 2.0 * (torch.arange(320) >= 160)[:, None]
    net = made(audio_level="window", levels=1)
    ours, theirs = net(keypoints, halves)[0].audio, net(keypoints, audio)[0].audio
    assert torch.allclose(ours[:, 41:], theirs[:, 41:], atol=1e-3)
    assert torch.allclose(ours[:, :36], theirs[:, :36], atol=1e-3)


def test_inputs_are_standardised_by_the_training_data() -> None:
    keypoints, audio = runs(4, frames=8, seed=3)
    tiny: dict[str, Any] = {"levels": 1, "width": 16, "dim": 8, "blocks": 0}
    nets = []
    for unit in (1.0, 10.0):
        torch.manual_seed(0)
        nets.append(SyncerPyramid(**tiny))
        with torch.no_grad():
            for _ in range(100):
                nets[-1](unit * keypoints, audio)
    rows = keypoints.flatten(0, 1)
    norm = nets[0].keypoint_norms[0]
    torch.testing.assert_close(norm.running_mean, rows.mean(dim=0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(norm.running_var, rows.var(dim=0), atol=1e-3, rtol=1e-2)
    # Hence the unit of the points does not matter.
    ours, theirs = (
        net.eval()(unit * keypoints, audio)[0] for net, unit in zip(nets, (1.0, 10.0), strict=True)
    )
    torch.testing.assert_close(ours.points, theirs.points, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("options", [{}, {"centre": "window", "audio_level": "run"}])
def test_gradients_reach_every_keypoint(options: dict[str, Any]) -> None:
    net = made(**options).requires_grad_(False)
    keypoints, audio = runs(frames=43)
    keypoints.requires_grad_()
    loss = av_sync_loss(net(keypoints, audio))
    (slope,) = torch.autograd.grad(loss, keypoints)
    assert torch.isfinite(slope).all()
    assert (slope != 0).all()
    # A small step downhill brings motion and sound together.
    step = keypoints.detach() - 1e-3 * slope / slope.norm()
    assert float(av_sync_loss(net(step, audio))) < loss.item()


def test_gradients_are_true_in_double_precision() -> None:
    net = made(levels=1, centre="window", width=4, blocks=0).double().requires_grad_(False)
    keypoints, audio = (x.double() for x in runs(1, 6))
    shift = torch.zeros(1, 6, 2, dtype=torch.float64, requires_grad=True)

    def loss(moved: Tensor) -> Tensor:
        return av_sync_loss(
            net(torch.cat([keypoints[..., :2] + moved, keypoints[..., 2:]], -1), audio)
        )

    assert torch.autograd.gradcheck(loss, shift)


def test_silence_and_stillness_are_finite() -> None:
    for options in ({}, {"centre": "window", "audio_level": "window"}):
        for level in made(**options)(torch.zeros(1, 80, 60), torch.full((1, 320, 26), -36.0)):
            assert torch.isfinite(level.points).all()
            assert torch.isfinite(level.audio).all()


def test_full_size_and_rebuild() -> None:
    net = SyncerPyramid().eval()
    assert [level.points.shape[1:] for level in net(*runs(1))] == [
        (windows, 512) for windows in (76, 36, 16, 6)
    ]
    for level in range(4):
        assert net.state_dict()[f"levels.{level}.points.0.weight"].shape == (272, 60)
        assert net.state_dict()[f"levels.{level}.audio.0.weight"].shape == (272, 104)
    small = made(centre="window", audio_level="run", levels=2)
    again = SyncerPyramid(**small.spec).eval()
    again.load_state_dict(small.state_dict())
    for ours, theirs in zip(again(*runs()), small(*runs()), strict=True):
        assert torch.equal(ours.points, theirs.points)
        assert torch.equal(ours.audio, theirs.audio)


def test_wrong_options_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected 1 to 4 levels, got 5"):
        made(levels=5)
    with pytest.raises(ConfigError, match="centre out of none, window, got 'run'"):
        made(centre="run")
    with pytest.raises(ConfigError, match="audio_level out of none, run, window, got 'band'"):
        made(audio_level="band")
    keypoints, audio = runs()
    net = made()
    with pytest.raises(ShapeError, match=r"keypoints \(B, T, 60\)"):
        net(keypoints[..., :20], audio)
    with pytest.raises(ShapeError, match=r"energies \(B, 4 T, 26\)"):
        net(keypoints, audio[..., :25])
    with pytest.raises(ShapeError, match="cut both to the same whole frames"):
        net(keypoints, audio[:, :-1])
    with pytest.raises(ShapeError, match="got 4 on level 3"):
        net(keypoints[:, :32], audio[:, :128])
