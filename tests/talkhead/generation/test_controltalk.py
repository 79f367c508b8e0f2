from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datamodules.base import TalkheadDataModule
from talkhead.audio.speech_windows import speech_windows
from talkhead.commands.generate import _load
from talkhead.errors import ConfigError, DataError, StageLinkError
from talkhead.generation.controltalk import ControlTalker, Speaking, _Poses
from talkhead.generation.face_video import FaceVideo, picture_reader
from talkhead.generation.renderers import RENDER_FRAMES
from talkhead.geometry.crop import Box
from talkhead.specs import SAMPLES_PER_FRAME
from tests.datamodules.fakes import make_prepared
from tests.talkhead.stages.short_runs import trainer
from tests.talkhead.stages.test_audio2exp import SIZE, trained

FRAMES = 20


def saved(folder: Path) -> Path:
    """A checkpoint whose adapter does something."""
    root = make_prepared(folder, frames=40, size=SIZE)
    made = trained(lr=0.0)
    run = trainer(folder, 1, limit_val_batches=0)
    run.fit(made, datamodule=TalkheadDataModule(str(root), batch_size=2))
    run.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("controltalk"))


@pytest.fixture(scope="module")
def talker(checkpoint: Path) -> ControlTalker:
    return ControlTalker.load(checkpoint)


def speech(frames: int = FRAMES) -> NDArray[np.float32]:
    wave = 0.1 * np.random.default_rng(1).standard_normal(frames * SAMPLES_PER_FRAME)
    return wave.astype(np.float32)


def face(seed: int = 0) -> NDArray[Any]:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return coarse.repeat(SIZE // 8, 0).repeat(SIZE // 8, 1)


def spoken(talker: ControlTalker, frames: int = FRAMES, **options: Any) -> NDArray[Any]:
    still = options.pop("still", True)
    driving = options.pop("driving", None)
    faces = options.pop("faces", repeat(face()))
    made = talker.speak(
        faces, speech(frames), Speaking(**options), still=still, driving=driving
    )  # fmt: skip
    return np.stack(list(made)).astype(float)


# -- speech and the two passes ---------------------------------------------------------------------


def test_every_frame_hears_the_window_it_was_trained_on(talker: ControlTalker) -> None:
    blocks = list(talker.audio(speech(45)))
    assert {len(block) for block in blocks[:-1]} == {RENDER_FRAMES}
    expert = talker.stage.sync_expert
    steps = talker.stage.speech_front.features(torch.from_numpy(speech(45)))
    windows = speech_windows(steps, 45, length=expert.window, align=expert.align)
    torch.testing.assert_close(torch.cat(blocks), talker.stage.hear(windows))
    with pytest.raises(DataError, match="at least 640"):
        next(talker.audio(np.zeros(600, np.float32)))


def test_a_portrait_and_a_video_of_it_are_the_same(talker: ControlTalker) -> None:
    still, moving = spoken(talker, still=True), spoken(talker, still=False)
    assert still.shape == (FRAMES, SIZE, SIZE, 3)
    assert np.abs(still - moving).max() <= 1.0
    assert np.ptp(still, axis=0).max() > 0  # it moves


def test_alpha_0_is_the_silenced_face_whatever_is_said(talker: ControlTalker) -> None:
    shut = spoken(talker, mouth_opening=0.0)
    assert np.ptp(shut, axis=0).max() == 0.0
    stage = talker.stage
    look = stage.look(talker._batch([face()]))
    rest = stage.audio2exp(look.head.expression, stage.hear(stage._silence()[None]))
    keypoints = look.keypoints + rest
    drawn = stage.renderer(look.appearance, keypoints, look.keypoints).picture
    expected = (drawn.detach()[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(shut[0] - expected).max() <= 1.0
    assert np.abs(spoken(talker, mouth_opening=0.7) - shut).mean() > 0


# -- pose of another video -------------------------------------------------------------------------


def test_absolute_poses_are_those_of_the_driving_video(talker: ControlTalker) -> None:
    """Driven by itself, a face is as it was; driven by another, its pose is the other's."""
    own = spoken(talker)
    itself = spoken(talker, driving=repeat(face()), transfer="absolute")
    assert np.abs(own - itself).max() <= 1.0
    stage = talker.stage
    seen: list[torch.Tensor] = []
    plain = stage.motion_extractor.keypoints

    def noted(canonical: Any, head: Any, **options: Any) -> Any:
        seen.append(head.degrees)
        return plain(canonical, head, **options)

    stage.motion_extractor.keypoints = noted  # type: ignore[method-assign]
    try:
        spoken(talker, 4, driving=repeat(face(7)), transfer="absolute")
        spoken(talker, 4, driving=repeat(face(7)), transfer="relative")
    finally:
        stage.motion_extractor.keypoints = plain  # type: ignore[method-assign]
    mine, other = (talker.heads([face(s)]).degrees for s in (0, 7))
    torch.testing.assert_close(seen[1], other.expand(4, -1))
    # A driving video that does not move moves nothing.
    torch.testing.assert_close(seen[3], mine.expand(4, -1))


def test_relative_poses_add_the_changes_since_the_first_frame(talker: ControlTalker) -> None:
    moving = [face(s) for s in range(12)]
    own = talker.heads([face(50)] * 6)
    poses = _Poses(talker, iter(moving), Speaking(transfer="relative", driving_expression=True))
    driven, base = talker.heads(moving), talker.heads([face(50)])
    found = [poses.next(own), poses.next(own)]
    for field in ("degrees", "translation", "expression"):
        wanted = getattr(base, field) + getattr(driven, field) - getattr(driven, field)[:1]
        torch.testing.assert_close(torch.cat([getattr(f, field) for f in found]), wanted)
    kept = _Poses(talker, iter(moving), Speaking(transfer="absolute")).next(own)
    assert torch.equal(kept.expression, own.expression)
    torch.testing.assert_close(kept.degrees, driven.degrees[:6])


# -- memory -----------------------------------------------------------------------------------------


class Counting:
    """Faces without end that know how many of them are alive."""

    def __init__(self) -> None:
        self.given = self.alive = self.most = 0

    def gone(self) -> None:
        self.alive -= 1

    def __iter__(self) -> Iterator[NDArray[Any]]:
        while True:
            picture = face(self.given % 5).copy()
            weakref.finalize(picture, self.gone)
            self.given, self.alive = self.given + 1, self.alive + 1
            self.most = max(self.most, self.alive)
            yield picture


def test_ten_minutes_of_speech_hold_a_block_of_faces(
    talker: ControlTalker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the renderer, which is as it was trained, on 15 000 frames."""
    monkeypatch.setattr(talker.stage, "look", lambda faces: _Look(len(faces)))
    monkeypatch.setattr(
        type(talker.stage),
        "forward",
        lambda self, look, audio, *_: torch.zeros(len(audio), 3, 2, 2),
    )
    faces, made = Counting(), 0
    for _ in talker.speak(iter(faces), speech(15_000), Speaking()):
        made += 1
        assert faces.given - made < RENDER_FRAMES
    assert made == faces.given == 15_000
    assert faces.most <= 2 * RENDER_FRAMES + 2


class _Look:
    def __init__(self, count: int) -> None:
        self.head = None


# -- refusals ---------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused(talker: ControlTalker, checkpoint: Path) -> None:
    assert isinstance(_load(checkpoint), ControlTalker)
    with pytest.raises(ConfigError, match=r"from 0 to 1\.5, got 2"):
        spoken(talker, mouth_opening=2.0)
    with pytest.raises(ConfigError, match="absolute or relative"):
        spoken(talker, transfer="both")
    with pytest.raises(DataError, match="ended before the speech"):
        spoken(talker, faces=iter([face()] * 5))
    with pytest.raises(StageLinkError, match="expected audio2exp"):
        ControlTalker.of({"stage": "ms_sync"}, checkpoint)
    assert talker.tags(Speaking(), driven=True, video=False)["pose"] == "relative"
    assert FaceVideo(picture_reader(face()), 1, Box(0, 0, 8)).end == "ping_pong"
