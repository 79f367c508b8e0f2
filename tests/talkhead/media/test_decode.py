from __future__ import annotations

import wave as wave_file
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from talkhead.errors import DataError, ShapeError
from talkhead.media.decode import fit_audio, iter_frames, probe, read_audio, read_image
from tests.talkhead.media.make_media import (
    RATE,
    expected_numbers,
    numbered,
    read_number,
    tone_bursts,
    write_media,
)


def _constant(rate: float, seconds: float, start: float = 0.0) -> list[float]:
    return [start + i / rate for i in range(round(rate * seconds))]


def _numbers(path: Path, **stretch: float) -> list[int]:
    return [read_number(frame) for frame in iter_frames(path, **stretch)]  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [12.0, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 30.12, 60.0])
def test_any_rate_becomes_25_fps_without_drift(tmp_path: Path, rate: float) -> None:
    times = _constant(rate, 8.0)
    path = write_media(
        tmp_path / "a.mp4", [numbered(i) for i in range(len(times))], times, rate=rate
    )
    got = _numbers(path)
    assert abs(len(got) - len(times) / rate * 25) <= 0.5
    assert got == expected_numbers(times, len(got))
    # The last frames are still the right ones: no drift after 8 s.
    assert got[-1] >= len(times) - 2


def test_variable_frame_rate_follows_the_time_stamps(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    steps = rng.choice([1 / 60, 1 / 30, 1 / 12, 0.3], size=80)
    times = np.concatenate([[0.0], np.cumsum(steps)]).round(4).tolist()
    path = write_media(tmp_path / "v.mp4", [numbered(i) for i in range(len(times))], times)
    got = _numbers(path)
    assert got == expected_numbers(times, len(got))


def test_repeated_frames_are_the_same_array(tmp_path: Path) -> None:
    times = _constant(12, 1.0)
    path = write_media(tmp_path / "s.mp4", [numbered(i) for i in range(12)], times, rate=12)
    frames = list(iter_frames(path))
    assert len(frames) == 25
    assert sum(a is b for a, b in pairwise(frames)) == 13


def test_stretch_of_a_file_starts_at_the_right_frame(tmp_path: Path) -> None:
    times = _constant(25, 6.0)
    path = write_media(tmp_path / "l.mp4", [numbered(i) for i in range(150)], times)
    assert _numbers(path, start_s=2.0, end_s=3.0) == list(range(50, 75))
    assert _numbers(path, start_s=5.0) == list(range(125, 150))


def _click(at_s: float, seconds: float = 3.0) -> np.ndarray:  # type: ignore[type-arg]
    wave = np.zeros(round(seconds * RATE), np.float32)
    start = round(at_s * RATE)
    wave[start : start + 160] = 0.9 * np.hanning(160)
    return wave


@pytest.mark.parametrize(
    ("video_start", "audio_start", "on_video_clock"),
    [(0.0, 0.0, 1.0), (0.0, 0.4, 1.4), (0.4, 0.0, 0.6)],
)
def test_sound_is_on_the_clock_of_the_video(
    tmp_path: Path, video_start: float, audio_start: float, on_video_clock: float
) -> None:
    times = _constant(25, 3.0, video_start)
    path = write_media(
        tmp_path / "o.mp4",
        [numbered(i) for i in range(75)],
        times,
        _click(1.0),
        audio_start_s=audio_start,
    )
    wave = read_audio(path)
    assert np.abs(wave).argmax() / RATE == pytest.approx(on_video_clock + 0.005, abs=0.004)
    assert _numbers(path)[:3] == [0, 1, 2]


def test_stretch_of_sound(tmp_path: Path) -> None:
    times = _constant(25, 6.0)
    path = write_media(tmp_path / "p.mp4", [numbered(i) for i in range(150)], times, _click(4.0, 6))
    wave = read_audio(path, start_s=3.0, end_s=5.0)
    assert len(wave) == pytest.approx(2 * RATE, abs=640)
    assert np.abs(wave).argmax() / RATE == pytest.approx(1.005, abs=0.004)


def test_wav_at_another_rate_is_resampled(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100) * 32767).astype(np.int16)
    with wave_file.open(str(path), "wb") as handle:
        handle.setnchannels(2)
        handle.setsampwidth(2)
        handle.setframerate(44_100)
        handle.writeframes(np.repeat(tone, 2).tobytes())
    wave = read_audio(path)
    assert abs(len(wave) - RATE) <= 32
    spectrum = np.abs(np.fft.rfft(wave[:RATE]))
    assert int(spectrum.argmax()) == pytest.approx(440, abs=1)
    info = probe(path)
    assert info.audio
    assert not info.video


def test_probe_reads_the_header(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "a.mp4", [numbered(i) for i in range(50)], _constant(25, 2), tone_bursts(2)
    )
    info = probe(path)
    assert (info.width, info.height, info.video, info.audio) == (160, 64, True, True)
    assert info.fps == pytest.approx(25.0, abs=0.01)
    assert info.duration_s == pytest.approx(2.0, abs=0.05)


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    good = write_media(
        tmp_path / "good.mp4", [numbered(i) for i in range(50)], _constant(25, 2), tone_bursts(2)
    )
    silent = write_media(tmp_path / "mute.mp4", [numbered(0)] * 50, _constant(25, 2))
    cut, junk, empty = (tmp_path / n for n in ("cut.mp4", "junk.mp4", "empty.mp4"))
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    junk.write_bytes(b"not a movie" * 100)
    empty.touch()
    with pytest.raises(DataError, match="no media file"):
        probe(tmp_path / "absent.mp4")
    for path in (cut, junk, empty):
        with pytest.raises(DataError, match="corrupt"):
            list(iter_frames(path))
    with pytest.raises(DataError, match="no audio stream"):
        read_audio(silent)
    sound = tmp_path / "only.wav"
    with wave_file.open(str(sound), "wb") as handle:
        handle.setnchannels(1)
        handle.setsampwidth(2)
        handle.setframerate(RATE)
        handle.writeframes(bytes(RATE))
    with pytest.raises(DataError, match="no video stream"):
        list(iter_frames(sound))


def test_file_cut_off_behind_its_header_is_refused(tmp_path: Path) -> None:
    import av

    whole = write_media(
        tmp_path / "a.mp4",
        [
            np.random.default_rng(i).integers(0, 255, (64, 160, 3)).astype(np.uint8)
            for i in range(100)
        ],
        _constant(25, 4),
    )
    moved = tmp_path / "fast.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(moved), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    moved.write_bytes(moved.read_bytes()[: moved.stat().st_size // 2])
    with pytest.raises(DataError, match=r"truncated|corrupt"):
        list(iter_frames(moved))


def test_fit_audio_cuts_and_pads() -> None:
    wave = np.arange(1, 1001, dtype=np.float32)
    assert np.array_equal(fit_audio(wave, 1), wave[:640])
    padded = fit_audio(wave, 2)
    assert padded.shape == (1280,)
    assert np.array_equal(padded[:1000], wave)
    assert not padded[1000:].any()
    with pytest.raises(ShapeError, match="samples"):
        fit_audio(wave[None], 1)


def test_read_image_is_rgb(tmp_path: Path) -> None:
    import cv2

    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 200  # red in RGB
    path = tmp_path / "ä.png"
    path.write_bytes(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
    assert np.array_equal(read_image(path), picture)
    (tmp_path / "no.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a picture"):
        read_image(tmp_path / "no.png")
    with pytest.raises(DataError, match="no picture"):
        read_image(tmp_path / "absent.png")
