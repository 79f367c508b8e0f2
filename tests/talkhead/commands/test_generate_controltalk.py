from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkhead.commands import generate
from talkhead.commands.generate_controltalk import talking
from talkhead.errors import ConfigError
from talkhead.generation.controltalk import ControlTalker, Speaking
from talkhead.generation.face_video import FaceVideo, picture_reader
from talkhead.geometry.crop import Box
from talkhead.landmarks import mediapipe_mesh
from talkhead.media.decode import import_av, iter_frames, read_audio
from talkhead.media.encode import write_png, write_video, write_wav
from tests.talkhead.generation.test_controltalk import saved, speech
from tests.talkhead.generation.test_face_video import Tracker, scene

FRAMES = 12
BOX = Box(101, 53, 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("generate"))


@pytest.fixture(autouse=True)
def _tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediapipe_mesh, "MediaPipeMesh", Tracker)


def shown(checkpoint: Path, **options: Any) -> list[np.ndarray[Any, Any]]:
    odd = np.ascontiguousarray(scene(150)[:199, :299])
    face = FaceVideo(picture_reader(odd), 1, BOX)
    return list(
        talking(ControlTalker.load(checkpoint), face, None, speech(FRAMES), Speaking(), **options)
    )


def test_whole_frames_change_in_the_box_alone_and_have_even_sides(checkpoint: Path) -> None:
    pictures = shown(checkpoint, paste=True, size=96)
    assert {p.shape for p in pictures} == {(198, 298, 3)}
    assert len(pictures) == FRAMES
    apart = np.abs(pictures[0].astype(int) - scene(150)[:198, :298].astype(int)).max(-1)
    inside = np.zeros(apart.shape, bool)
    inside[BOX.y : BOX.y + BOX.side, BOX.x : BOX.x + BOX.side] = True
    assert not apart[~inside].any()
    assert apart[inside].max() > 20


def test_the_face_alone_and_beside_its_source(checkpoint: Path) -> None:
    alone = shown(checkpoint, paste=False, size=96)
    assert {p.shape for p in alone} == {(96, 96, 3)}
    beside = shown(checkpoint, paste=False, size=96, beside=True)
    assert {p.shape for p in beside} == {(96, 192, 3)}
    assert np.array_equal(beside[3][:, 96:], alone[3])


def written(checkpoint: Path, folder: Path, *args: str) -> Path:
    write_wav(folder / "speech.wav", speech(FRAMES))
    out = folder / "out.mp4"
    base = ["--speech", folder / "speech.wav", "--checkpoint", checkpoint, "--out", out]
    assert generate.main([*map(str, base), *args]) == 0
    return out


def test_a_short_video_speaks_to_the_end(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "clip.mp4", [scene(140 + n) for n in range(5)])
    clip = str(tmp_path / "clip.mp4")
    out = written(
        checkpoint, tmp_path, "--portrait", clip, "--mouth-opening", "1.2", "--driving", clip
    )
    frames = list(iter_frames(out))
    assert len(frames) == FRAMES
    assert {frame.shape for frame in frames} == {(200, 300, 3)}  # pasted back by default
    assert abs(len(read_audio(out)) - FRAMES * 640) <= 1024
    assert f"{FRAMES} frames" in capsys.readouterr().out
    with import_av().open(str(out)) as container:
        tags = container.metadata
    made = json.loads(tags["talkhead"])
    assert made["stage"] == "audio2exp"
    assert (made["mouth_opening"], made["source"], made["pose"]) == (1.2, "video", "relative")
    assert "AI-generated" in tags["comment"]


def test_a_portrait_is_shown_as_its_crop(checkpoint: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "face.png", scene(150))
    out = written(checkpoint, tmp_path, "--portrait", str(tmp_path / "face.png"), "--size", "64")
    assert [frame.shape for frame in iter_frames(out)] == [(64, 64, 3)] * FRAMES


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seed", "3"], "--seed: expected none of these"),
        (["--renderer", "mesh", "--guidance", "2"], "--guidance, --renderer"),
        (["--transfer", "absolute"], "expected --driving VIDEO"),
        (["--mouth-opening", "3"], r"from 0 to 1\.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    checkpoint: Path, tmp_path: Path, args: list[str], message: str
) -> None:
    write_png(tmp_path / "face.png", scene(150))
    with pytest.raises(ConfigError, match=message):
        written(checkpoint, tmp_path, "--portrait", str(tmp_path / "face.png"), *args)


def test_other_checkpoints_refuse_the_options_of_this_one() -> None:
    from talkhead.commands.generate_controltalk import refuse_own

    args = ["--portrait", "a", "--speech", "b", "--checkpoint", "c", "--out", "d"]
    plain = generate.parser().parse_args(args)
    refuse_own(plain, "ms_sync")
    given = generate.parser().parse_args([*args, "--mouth-opening", "0", "--crop"])
    with pytest.raises(ConfigError, match="--mouth-opening, --paste-back or --crop"):
        refuse_own(given, "ms_sync")
