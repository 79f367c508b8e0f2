from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from datamodules.prepare.clip import (
    ClipResult,
    Rejection,
    active_share,
    check_header,
    jpeg_encoder,
    pieces,
    process_clip,
)
from datamodules.prepare.layouts import RawClip
from datamodules.prepare.options import ClipOptions
from talkhead.errors import ConfigError
from talkhead.media.decode import MediaInfo, iter_frames
from tests.datamodules.prepare.fake_face import FakeFace, draw, find, write_clip
from tests.talkhead.media.make_media import tone_bursts, write_media

OPTIONS = ClipOptions(size=64)
CENTRE = (80.0, 60.0)


def _raw(path: Path, **change: object) -> RawClip:
    raw = RawClip(path.stem, path, path.name, "speaker", "video")
    return replace(raw, **change)  # type: ignore[arg-type]


def _accept(path: Path, options: ClipOptions = OPTIONS, **change: object) -> ClipResult:
    result = process_clip(_raw(path, **change), options, FakeFace(), scratch=path.parent)
    assert isinstance(result, ClipResult), result
    return result


def _reject(path: Path, options: ClipOptions = OPTIONS, **change: object) -> Rejection:
    result = process_clip(_raw(path, **change), options, FakeFace(), scratch=path.parent)
    assert isinstance(result, Rejection)
    assert result.source == path.name
    assert result.detail
    return result


def _written(
    path: Path, centres: Sequence[tuple[float, float] | None], rate: float = 25.0, gain: float = 1.0
) -> Path:
    times = [i / rate for i in range(len(centres))]
    wave = gain * tone_bursts(len(centres) / rate)
    return write_media(path, [draw(c) for c in centres], times, wave, rate=rate)


def test_all_parts_cover_the_same_frames(tmp_path: Path) -> None:
    result = _accept(write_clip(tmp_path / "a.mp4", 2.0))
    assert result.frames == 50
    assert result.landmarks.shape == (50, 478, 3)
    assert result.landmarks.dtype == np.float32
    assert result.audio.shape == (50 * 640,)
    assert result.audio.dtype == np.int16
    picture = cv2.imdecode(np.frombuffer(result.jpegs[10], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 64, 3)
    assert result.facts["fps_in"] == pytest.approx(25.0)
    assert result.facts["tracked_share"] == 1.0
    assert result.facts["first_frame"] == 0


def test_landmarks_lie_on_the_face_of_the_crop(tmp_path: Path) -> None:
    result = _accept(write_clip(tmp_path / "a.mp4", 2.0, seed=3))
    for t in (0, 17, 49):
        crop = cv2.imdecode(np.frombuffer(result.jpegs[t], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        red = (crop[..., 0] > 150) & (crop[..., 2] < 110)
        seen = (np.argwhere(red).mean(axis=0)[::-1] + 0.5) / 64
        assert result.landmarks[t, :468, :2].mean(axis=0) == pytest.approx(seen, abs=0.02)
    # Head motion is kept: the face moves within the fixed box.
    assert np.ptp(result.landmarks[:, 1, 0]) > 0.02


def test_kept_neighbourhood_gives_the_same_crop_as_decoding_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", 2.0)
    once = _accept(path)
    monkeypatch.setattr("datamodules.prepare.clip.FrameSpool.covers", lambda self, box: False)
    twice = _accept(path)
    assert once.facts["box"] == twice.facts["box"]
    assert once.jpegs == twice.jpegs
    assert np.array_equal(once.landmarks, twice.landmarks)


def test_head_that_leaves_the_first_box_is_decoded_again(tmp_path: Path) -> None:
    centres = [(30.0, 60.0)] * 30 + [(130.0, 60.0)] * 30
    result = _accept(_written(tmp_path / "a.mp4", centres))
    x, _, w, _ = result.facts["box"]
    assert x + w >= 150
    last = cv2.imdecode(np.frombuffer(result.jpegs[-1], np.uint8), cv2.IMREAD_COLOR)
    assert (last[..., 2] > 150).sum() > 200


def test_slow_and_fast_sources_become_25_fps(tmp_path: Path) -> None:
    for rate, flags in ((12.0, ["low_fps"]), (30.0, [])):
        result = _accept(write_clip(tmp_path / f"{rate}.mp4", 2.0, rate=rate))
        assert result.frames == 50
        assert result.facts["flags"] == flags
        assert result.facts["fps_in"] == pytest.approx(rate)


def test_gap_is_bridged_and_counted(tmp_path: Path) -> None:
    centres: list[tuple[float, float] | None] = [CENTRE] * 60
    centres[30:34] = [None] * 4
    result = _accept(_written(tmp_path / "a.mp4", centres))
    assert result.frames == 60
    assert result.facts["tracked_share"] == pytest.approx(56 / 60, abs=1e-4)
    assert np.isfinite(result.landmarks).all()


def test_long_gap_cuts_the_clip_with_its_sound(tmp_path: Path) -> None:
    centres: list[tuple[float, float] | None] = [None] * 20 + [CENTRE] * 80
    path = _written(tmp_path / "a.mp4", centres)
    result = _accept(path)
    assert result.facts["first_frame"] == 20
    assert result.frames == 80
    assert result.facts["flags"] == ["trimmed"]
    whole = _written(tmp_path / "b.mp4", [CENTRE] * 100)
    assert np.array_equal(result.audio, _accept(whole).audio[20 * 640 :])
    # A clip that must begin with its first frame is not cut.
    assert _reject(path, whole=True).reason == "low_track_share"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: _written(p, [None] * 40), "no_face"),
        (lambda p: _written(p, [CENTRE] * 10 + [None] * 40 + [CENTRE] * 10), "low_track_share"),
        (lambda p: _written(p, [CENTRE] * 40, gain=0.0), "silent"),
        (lambda p: write_clip(p, sound=False), "no_audio"),
        (lambda p: _written(p, [CENTRE] * 15), "too_short"),
        (lambda p: _written(p, [CENTRE] * 16, rate=8.0), "fps_too_low"),
        (lambda p: (p.write_bytes(b"nothing like a movie"), p)[1], "corrupt"),
        (lambda p: p, "corrupt"),
    ],
)
def test_reasons(tmp_path: Path, make: object, reason: str) -> None:
    path = make(tmp_path / "a.mp4")  # type: ignore[operator]
    assert _reject(path).reason == reason


def test_few_frames_and_short_sound(tmp_path: Path) -> None:
    few = replace(OPTIONS, min_seconds=0.1)
    assert _reject(_written(tmp_path / "a.mp4", [CENTRE] * 8), few).reason == "too_few_frames"
    times = [i / 25 for i in range(100)]
    path = write_media(tmp_path / "b.mp4", [draw(CENTRE)] * 100, times, tone_bursts(2.0))
    assert _reject(path).reason == "short_audio"


def test_truncated_file_is_corrupt(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.mp4")
    cut = tmp_path / "b.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert _reject(cut).reason == "corrupt"


def test_silence_can_be_allowed(tmp_path: Path) -> None:
    result = _accept(
        write_clip(tmp_path / "a.mp4", sound=False), replace(OPTIONS, require_audio=False)
    )
    assert not result.audio.any()
    assert result.facts["silence_share"] == 1.0


def test_separate_sound_file(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "v.mp4", sound=False)
    sound = write_clip(tmp_path / "s.mp4")
    assert _accept(video, audio=sound).audio.any()
    assert _reject(video, audio=tmp_path / "absent.m4a").reason == "no_audio"


def test_largest_of_several_faces_is_followed(tmp_path: Path) -> None:
    class TwoFaces(FakeFace):
        widths: list[int]

        def detect(self, frame: np.ndarray) -> list[np.ndarray]:  # type: ignore[type-arg]
            face = find(frame)
            assert face is not None
            return [face, face * 0.5]

        def track(self, frames):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            for frame in frames:
                self.widths.append(frame.shape[1])
                yield find(frame)

    tracker = TwoFaces()
    tracker.widths = []
    path = write_media(
        tmp_path / "a.mp4",
        [draw((330.0, 60.0), size=(400, 120))] * 50,
        [i / 25 for i in range(50)],
        tone_bursts(2.0),
    )
    result = process_clip(_raw(path), OPTIONS, tracker)
    assert isinstance(result, ClipResult)
    assert "several_faces" in result.facts["flags"]
    # Only the neighbourhood was searched, and the face is still where it is in the picture.
    assert max(tracker.widths) < 250
    x, _, w, _ = result.facts["box"]
    assert x < 330 - 24
    assert x + w > 330 + 24


def test_annotated_box_limits_the_search(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.mp4", [(120.0, 60.0)] * 40)
    assert _accept(path, box=(0.5, 0.0, 0.8, 1.0)).facts["box"][0] > 50
    assert _reject(path, box=(0.0, 0.0, 0.5, 1.0)).reason == "no_face"


def test_pieces_lie_on_the_frame_grid_and_cover_everything() -> None:
    raw = _raw(Path("a.mp4"))
    info = MediaInfo(10, 10, 25.0, 130.0, True, True, 0.0)
    parts = pieces(raw, info, 60.0)
    assert len(parts) == 3
    assert parts[0].start_s == 0.0
    assert parts[-1].end_s is None
    for before, after in pairwise(parts):
        assert before.end_s == after.start_s
        assert after.start_s is not None
        assert after.start_s * 25 == pytest.approx(round(after.start_s * 25))
    assert len({p.id for p in parts}) == 3
    assert pieces(replace(raw, whole=True), info, 60.0) == [replace(raw, whole=True)]
    assert pieces(raw, info, 130.0) == [raw]


def test_pieces_of_a_file_add_up_to_the_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 5.0)
    options = replace(OPTIONS, max_seconds=2.0)
    header = check_header(_raw(path), options)
    assert isinstance(header, MediaInfo)
    parts = pieces(_raw(path), header, options.max_seconds)
    results = [process_clip(p, options, FakeFace(), info=header) for p in parts]
    assert all(isinstance(r, ClipResult) for r in results)
    clips = [r for r in results if isinstance(r, ClipResult)]
    assert sum(c.frames for c in clips) == len(list(iter_frames(path)))
    whole = _accept(path)
    joined = np.concatenate([c.audio for c in clips])
    assert len(joined) == len(whole.audio)
    overlap = np.corrcoef(joined.astype(float), whole.audio.astype(float))[0, 1]
    assert overlap > 0.999


def test_active_share_by_hand() -> None:
    wave = np.zeros(16_000, np.float32)
    wave[:4000] = 0.1  # -20 dB for a quarter of the time
    assert active_share(wave, -45.0) == pytest.approx(0.25, abs=0.02)
    assert active_share(wave, -10.0) == 0.0
    assert active_share(np.zeros(0, np.float32), -45.0) == 0.0


def test_jpeg_fallback_gives_nearly_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8), (0, 0), 4
    )
    encode = functools.cache(jpeg_encoder.__wrapped__)
    fast = encode()(smooth)
    monkeypatch.setitem(__import__("sys").modules, "simplejpeg", None)
    slow = jpeg_encoder.__wrapped__()(smooth)
    for data in (fast, slow):
        back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(back.astype(int) - smooth).mean() < 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 8}, "--size"),
        ({"size": 65}, "even"),
        ({"max_seconds": 1.5}, "--max-seconds"),
        ({"min_tracked": 0.0}, "--min-tracked"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClipOptions(**change)  # type: ignore[arg-type]
