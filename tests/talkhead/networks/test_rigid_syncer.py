from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.audio.filter_bank import log_filter_bank
from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.rigid_syncer import RigidSyncer, windows_of
from talkhead.networks.window_syncer import WindowSyncer
from tests.talkhead.metrics.landmark_faces import noisy

SMALL: dict[str, Any] = {"dim": 8, "width": 16}


def made(**options: Any) -> RigidSyncer:
    torch.manual_seed(0)
    return RigidSyncer(**{**SMALL, **options}).eval()


def runs(count: int = 2, frames: int = 80) -> tuple[Tensor, Tensor]:
    """Trembling faces, and noise that fades in and out."""
    random = torch.Generator().manual_seed(1)
    waves = torch.randn(count, 640 * frames, generator=random)
    waves *= torch.linspace(0, 25, 640 * frames).sin()
    return noisy(count, frames, seed=0).float(), torch.stack([log_filter_bank(w) for w in waves])


def test_windows_of_every_level() -> None:
    net = made()
    levels = net(*runs())
    assert net.scales == (200, 400, 800)
    for level, (points, audio) in enumerate(levels):
        assert points.shape == audio.shape == (2, windows_of(80, level), 8)
        for embedding in (points, audio):
            torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(embedding.shape[:2]))
    assert [windows_of(80, level) for level in range(4)] == [76, 36, 16, 6]
    # The numbers for MS-Sync's training length, from the lengths 43, 22, 11 and 6.
    assert [windows_of(43, level) for level in range(4)] == [39, 18, 7, 2]
    four = made(levels=4)(*runs(1, 43))
    assert [points.shape[1] for points, _ in four] == [39, 18, 7, 2]


def test_a_window_sees_its_five_frames_and_nothing_else() -> None:
    torch.manual_seed(0)
    net = WindowSyncer(6, 26, width=16, blocks=1, dim=8, dropout=0.0).eval()
    points, audio = torch.randn(1, 12, 6), torch.randn(1, 48, 26)
    seen, heard = net(points, audio)
    alone = net(points[:, 3:8], audio[:, 12:32])
    torch.testing.assert_close(alone[0][:, 0], seen[:, 3])
    torch.testing.assert_close(alone[1][:, 0], heard[:, 3])
    for changed in (2, 8):
        points[:, changed] += 1.0
        audio[:, 4 * changed : 4 * changed + 4] += 1.0
    again = net(points, audio)
    torch.testing.assert_close(again[0][:, 3], seen[:, 3])
    torch.testing.assert_close(again[1][:, 3], heard[:, 3])
    # Every one of the five frames counts.
    for frame in range(3, 8):
        points, audio = points.clone(), audio.clone()
        points[:, frame] += 1.0
        audio[:, 4 * frame] += 1.0
        other = net(points, audio)
        assert not torch.allclose(other[0][:, 3], again[0][:, 3], atol=1e-5)
        assert not torch.allclose(other[1][:, 3], again[1][:, 3], atol=1e-5)
        again = other


def test_lips_jaw_place_and_level_do_not_matter() -> None:
    points, audio = runs()
    net = made()
    base = net(points, audio)
    moved = 1.5 * points + 0.1
    moved[..., 48:, :], moved[..., :17, :] = 3.0, -3.0
    for ours, theirs in zip(net(moved, audio + 0.7), base, strict=True):
        torch.testing.assert_close(ours.points, theirs.points, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(ours.audio, theirs.audio, atol=1e-3, rtol=1e-3)
    whole = made(audio_level="run")
    louder, same = whole(points, audio + 0.7)[0], whole(points, audio)[0]
    torch.testing.assert_close(louder.audio, same.audio, atol=1e-3, rtol=1e-3)
    plain = made(audio_level="none")
    assert not torch.allclose(plain(points, audio + 0.7)[0].audio, plain(points, audio)[0].audio)


def test_a_silent_run_is_finite() -> None:
    points, _ = runs(1)
    silence = log_filter_bank(torch.zeros(640 * 80))[None]
    for level in ("band", "run", "none"):
        for embeddings in made(audio_level=level)(points, silence):
            assert torch.isfinite(embeddings.audio).all()


def test_some_runs_in_the_mirror() -> None:
    points, audio = runs()
    net = made()
    both = net(points, audio)
    mixed = net(points, audio, torch.tensor([True, False]))
    assert not torch.allclose(mixed[0].points[0], both[0].points[0], atol=1e-4)
    assert torch.equal(mixed[0].points[1], both[0].points[1])
    assert torch.equal(mixed[0].audio, both[0].audio)


def test_a_clip_is_cut_into_whole_runs() -> None:
    net = made()
    points = noisy(1, 175, seed=4)[0]
    wave = torch.randn(640 * 175, generator=torch.Generator().manual_seed(5))
    found = net.embed_clip(points, wave)
    assert [level.points.shape[0] for level in found] == [2, 2, 2]
    second = net(points[None, 80:160].float(), log_filter_bank(wave[640 * 80 : 640 * 160])[None])
    for whole, alone in zip(found, second, strict=True):
        torch.testing.assert_close(whole.points[1:], alone.points)
        torch.testing.assert_close(whole.audio[1:], alone.audio)
    # Sound that ends early ends the last whole run.
    assert net.embed_clip(points, wave[: 640 * 159])[0].points.shape[0] == 1
    with pytest.raises(
        ShapeError, match="at least 80 frames with sound, got 175 frames and 79 frames"
    ):
        net.embed_clip(points, wave[: 640 * 79])


@pytest.mark.parametrize("options", [{"view": "frontal"}, {"coordinates": 3}, {"frame": "place"}])
def test_switches_change_what_is_seen_and_survive_a_rebuild(options: dict[str, Any]) -> None:
    points, audio = runs(1)
    net = made(**options)
    again = RigidSyncer(**net.spec).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(net(points, audio)[0].points, again(points, audio)[0].points)
    if "coordinates" not in options:
        assert not torch.allclose(net(points, audio)[0].points, made()(points, audio)[0].points)


def test_wrong_options_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 4 levels of 2 or 3 coordinates, got 5 and 2"):
        made(levels=5)
    with pytest.raises(ConfigError, match="frame out of motion, place, crop, got 'pose'"):
        made(frame="pose")
    points, audio = runs(1)
    with pytest.raises(ShapeError, match="cut both to the same whole frames"):
        made()(points, audio[:, :-1])
    with pytest.raises(ShapeError, match="at least 5 frames"):
        made(levels=4)(points[:, :32], audio[:, :128])
