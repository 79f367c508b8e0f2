from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.mfcc import mfcc, mfcc_windows
from talkhead.errors import DataError
from talkhead.evaluation import measure as module
from talkhead.evaluation.judges import Judges, to_unit
from talkhead.evaluation.measure import Measurement, MeasureOptions, Side, measure
from talkhead.geometry.crop import clip_box, crop_frame
from talkhead.geometry.points68 import ibug_points
from talkhead.media.decode import Wave
from talkhead.metrics.pictures import psnr, ssim
from tests.talkhead.evaluation.faces import StillVideo, lengths, side, still_video
from tests.talkhead.evaluation.test_judges import small_rigid_syncer, small_syncnet

OPTIONS = MeasureOptions(size=32)


class Brightness:
    """A face judge that says how bright a crop is, and where its first landmark lies."""

    space, size, face_share = "brightness", 16, 0.6

    def embed(self, pictures: NDArray[np.uint8], points: NDArray[np.float32]) -> Tensor:
        bright = torch.from_numpy(pictures.astype(np.float32).mean((1, 2, 3)))
        return torch.stack([bright, torch.from_numpy(points[:, 0, 0])], dim=1)


def same(video: StillVideo) -> StillVideo:
    return StillVideo(video.pictures.copy(), video.points.copy())


def test_a_video_against_itself_is_perfect_and_on_one_clock() -> None:
    video = still_video()
    found = measure(same(video), video, Judges([]), OPTIONS)
    assert found.pictures == {"psnr": 100.0, "ssim": pytest.approx(1.0, abs=1e-9)}
    assert torch.equal(found.generated.landmarks, found.reference.landmarks)
    assert (found.facts["frames"], found.facts["box"], found.facts["sound"]) == (
        40,
        "reference",
        "none",
    )
    assert found.generated.silent is None


def test_pictures_are_compared_in_the_real_videos_box() -> None:
    real, ours = still_video(seed=0), still_video(seed=0)
    ours.pictures = (0.7 * ours.pictures).astype(np.uint8)
    ours.points = ours.points + np.array(
        [9, -5, 0], np.float32
    )  # a tracker's error must not move the crop
    found = measure(ours, real, Judges([]), OPTIONS)
    box = clip_box(real.points, 96, 96, OPTIONS.face_share)
    pairs = [
        to_unit(np.stack([crop_frame(p, box, 32) for p in video.pictures]))
        for video in (ours, real)
    ]
    assert found.pictures["psnr"] == pytest.approx(float(psnr(*pairs)), rel=1e-6)
    assert found.pictures["ssim"] == pytest.approx(float(ssim(*pairs)), rel=1e-6)
    shift = (found.generated.landmarks - found.reference.landmarks).mean((0, 1)) * box.side
    assert shift.tolist() == pytest.approx([9, -5, 0], abs=1e-3)


def test_the_box_follows_the_size_and_gives_way_to_another_field_of_view() -> None:
    real = still_video(side=96)
    double = StillVideo(real.pictures.repeat(2, axis=1).repeat(2, axis=2), real.points * 2)
    found = measure(double, real, Judges([]), OPTIONS)
    assert found.facts["box"] == "reference"
    torch.testing.assert_close(
        found.generated.landmarks, found.reference.landmarks, atol=1e-4, rtol=0
    )
    wide = still_video(side=96, height=160)
    wide.points = real.points + np.array([0, 40, 0], np.float32)
    found = measure(wide, real, Judges([]), OPTIONS)
    assert found.facts["box"] == "own"
    eyes = [
        points[:, [33, 263], :2].mean((0, 1))
        for points in (found.generated.landmarks, found.reference.landmarks)
    ]
    torch.testing.assert_close(eyes[0], eyes[1], atol=0.03, rtol=0)


def test_the_longer_video_is_cut_and_short_ones_are_refused() -> None:
    found = measure(still_video(30), still_video(40), Judges([]), OPTIONS)
    assert (found.generated.frames, found.reference.frames) == (30, 30)
    facts = {k: found.facts[k] for k in ("frames", "frames_generated", "frames_reference")}
    assert facts == {"frames": 30, "frames_generated": 30, "frames_reference": 40}
    with pytest.raises(DataError, match="at least 12 common frames at 25 a second, got 11"):
        measure(still_video(11), still_video(40), Judges([]), OPTIONS)


def test_face_judges_see_every_nth_frame_in_their_own_crop_and_not_lost_ones() -> None:
    video = still_video(30)
    video.tracked[[3, 6]] = False
    options = MeasureOptions(size=32, fid_every=3)
    found = measure(video, still_video(30, seed=1), Judges([Brightness()]), options)
    rows = found.generated.identity["brightness"]
    assert rows.shape == (10, 2)
    lost = rows.isnan().all(-1)
    assert lost.nonzero().flatten().tolist() == [1, 2]
    box = clip_box(video.points, 96, 96, 0.6)
    crops = [crop_frame(video.pictures[t], box, 16) for t in range(0, 30, 3)]
    expected = torch.tensor([float(c.mean()) for c in crops])
    torch.testing.assert_close(rows[~lost, 0], expected[~lost], atol=1e-3, rtol=0)
    places = torch.from_numpy((video.points[::3, 0, 0] - box.x) / box.side * 16)
    torch.testing.assert_close(rows[~lost, 1], places[~lost], atol=1e-3, rtol=0)


def test_the_gaze_judge_reads_every_frame_whatever_goes_into_fid() -> None:
    video = still_video(30)
    video.tracked[4] = False
    judges = Judges([], gaze=Brightness())
    found = measure(same(video), video, judges, MeasureOptions(size=32, fid_every=3))
    read = found.reference.readings["brightness"]
    assert read.shape == (30, 2)
    assert read.isnan().any(-1).nonzero().flatten().tolist() == [4]
    assert found.reference.identity == {}


def test_sync_embeddings_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    video = still_video(2 * module.CHUNK_FRAMES + 7)
    frames = len(video.pictures)
    wave: Wave = np.random.default_rng(0).normal(0, 0.1, frames * 640).astype(np.float32)
    monkeypatch.setattr(module, "_sound", lambda video, frames: wave[: frames * 640])
    network = small_syncnet().eval()
    found = measure(same(video), video, Judges([], syncnet=network, syncnet_share=0.7), OPTIONS)
    box = clip_box(video.points, 96, 96, 0.7)
    crops = to_unit(np.stack([crop_frame(p, box, 32) for p in video.pictures])) * 2 - 1
    with torch.no_grad():
        seen = network.visual(crops[None])[0][: frames - 5]
        heard = network.audio(mfcc_windows(mfcc(torch.from_numpy(wave)), torch.arange(frames - 5)))
    torch.testing.assert_close(found.generated.visual["syncnet"], seen, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.reference.audio["syncnet"], heard, atol=1e-4, rtol=1e-4)


def test_rigid_embeddings_are_of_whole_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    video, network = still_video(170), small_rigid_syncer()
    wave: Wave = np.random.default_rng(0).normal(0, 0.1, 170 * 640).astype(np.float32)
    monkeypatch.setattr(module, "_sound", lambda video, frames: wave[: frames * 640])
    judges = Judges([], rigid_syncer=network)
    found = measure(same(video), video, judges, OPTIONS).reference
    assert {k: v.shape[:2] for k, v in found.rigid_points.items()} == {
        "200": (2, 76), "400": (2, 36), "800": (2, 16),
    }  # fmt: skip
    second = ibug_points(found.landmarks)[80:160], torch.from_numpy(wave[80 * 640 : 160 * 640])
    for level, scale in zip(network.embed_clip(*second), ("200", "400", "800"), strict=True):
        torch.testing.assert_close(level.points[0], found.rigid_points[scale][1])
        torch.testing.assert_close(level.audio[0], found.rigid_audio[scale][1])
    short = still_video(79)
    assert measure(same(short), short, judges, OPTIONS).reference.rigid_points == {}


def test_a_silent_file_is_judged_with_the_real_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    real, ours = still_video(seed=0), still_video(seed=1)
    loud = np.zeros(40 * 640, np.float32)
    loud[20 * 640 :] = 0.5
    monkeypatch.setattr(module, "_sound", lambda video, frames: loud if video is real else None)
    found = measure(ours, real, Judges([]), OPTIONS)
    assert found.facts["sound"] == "reference"
    assert found.generated.silent is not None
    assert found.generated.silent.tolist() == [True] * 20 + [False] * 20


def test_measurements_survive_the_disk(tmp_path: Path) -> None:
    made = Measurement(side(30, 1), side(30, 2), {"psnr": 31.5}, {"frames": 30, "box": "own"})
    made.reference.silent = None
    place = tmp_path / "deep" / "a.npz"
    made.save(place, "key")
    found = Measurement.load(place, "key")
    assert found is not None
    assert (found.pictures, found.facts) == (made.pictures, made.facts)
    assert found.reference.silent is None
    assert lengths(found.generated.visual) == {"judge": 25}
    for ours, theirs in ((found.generated, made.generated), (found.reference, made.reference)):
        assert torch.equal(ours.landmarks, theirs.landmarks)
        for part in (f.name for f in fields(Side) if f.type.startswith("dict")):
            assert getattr(ours, part).keys() == getattr(theirs, part).keys() != set()
            for name, rows in getattr(theirs, part).items():
                assert torch.equal(getattr(ours, part)[name], rows)
    assert list(place.parent.iterdir()) == [place]
    assert Measurement.load(place, "another key") is None
    place.write_bytes(place.read_bytes()[:1000])
    assert Measurement.load(place, "key") is None
    assert Measurement.load(tmp_path / "absent.npz", "key") is None
