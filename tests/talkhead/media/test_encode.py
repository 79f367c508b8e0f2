"""Videos and wavs are complete, in time with their sound, and never half-written."""

import resource
import sys
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.errors import DataError, MissingDependencyError, ShapeError
from talkhead.media.encode import VideoWriter, write_video, write_wav
from talkhead.specs import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME


def _frames(count: int, size: int = 32) -> NDArray[np.uint8]:
    ramp = np.linspace(0, 255, size, dtype=np.uint8)
    base = np.broadcast_to(ramp[:, None, None], (size, size, 3))
    return np.stack([np.roll(base, i, axis=0) for i in range(count)])


def _chirps(samples: int) -> NDArray[np.float32]:
    """Sound whose cross-correlation has one sharp peak."""
    t = np.arange(samples) / SAMPLE_RATE_HZ
    gate = np.sin(2 * np.pi * 1.3 * t) > 0
    return np.asarray(0.4 * gate * np.sin(2 * np.pi * (200 + 300 * t) * t), dtype=np.float32)


def _decode(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[float], int]:
    """Pictures, sound, picture times in seconds, and the first sound frame's time in samples."""
    with av.open(str(path)) as container:
        pictures, times = [], []
        for frame in container.decode(video=0):
            pictures.append(frame.to_ndarray(format="rgb24"))
            times.append(float(frame.time or 0.0))
    sound: list[NDArray[np.float32]] = []
    first = 0
    with av.open(str(path)) as container:
        if container.streams.audio:
            for part in container.decode(audio=0):
                first = first if sound else int(part.pts or 0)
                sound.append(part.to_ndarray()[0])
    joined = np.concatenate(sound) if sound else np.zeros(0, np.float32)
    return np.stack(pictures), joined, times, first


def _lag(heard: NDArray[np.float32], said: NDArray[np.float32]) -> int:
    """Samples by which ``heard`` comes after ``said``, from their cross-correlation."""
    n = 2 * max(len(heard), len(said))
    cross = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(said, n)), n)
    peak = int(np.argmax(cross))
    return peak if peak < n // 2 else peak - n


def test_clock_length_and_pictures_survive(tmp_path: Path) -> None:
    frames = _frames(30)
    path = write_video(tmp_path / "new" / "a.mp4", frames, crf=5)
    pictures, sound, times, _ = _decode(path)
    assert times == pytest.approx(np.arange(30) / 25)
    assert len(sound) == 0
    assert np.abs(pictures.astype(int) - frames).mean() < 6


def test_sound_is_not_shifted_by_aac_priming(tmp_path: Path) -> None:
    said = _chirps(75 * SAMPLES_PER_FRAME)
    path = write_video(tmp_path / "a.mp4", _frames(75), said)
    _, heard, _, first = _decode(path)
    assert first == 0
    assert _lag(heard, said) == 0
    assert np.corrcoef(heard[: len(said)], said)[0, 1] > 0.99
    assert 0 <= len(heard) - len(said) < 1024
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.rate == SAMPLE_RATE_HZ
        assert stream.channels == 1
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(3.0)


def test_chunked_sound_gives_the_same_bytes_as_whole(tmp_path: Path) -> None:
    frames, said = _frames(20), _chirps(20 * SAMPLES_PER_FRAME)
    write_video(tmp_path / "whole.mp4", frames, said)
    with VideoWriter(tmp_path / "chunks.mp4", sound=True) as writer:
        for t, frame in enumerate(frames):
            writer.write_audio(said[t * SAMPLES_PER_FRAME : (t + 1) * SAMPLES_PER_FRAME])
            writer.write_frame(frame)
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "chunks.mp4").read_bytes()


@pytest.mark.parametrize("samples", [0, 1000, 40 * SAMPLES_PER_FRAME])
def test_sound_is_cut_or_padded_to_the_picture(tmp_path: Path, samples: int) -> None:
    path = write_video(tmp_path / "a.mp4", _frames(20), _chirps(samples))
    _, heard, _, _ = _decode(path)
    assert 20 * SAMPLES_PER_FRAME <= len(heard) < 20 * SAMPLES_PER_FRAME + 1024


def test_own_tags_survive_and_the_index_comes_first(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", _frames(5), metadata={"talkhead_seed": "7"})
    with av.open(str(path)) as container:
        assert container.metadata["talkhead_seed"] == "7"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_key_frame_at_least_every_second(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", _frames(60))
    with av.open(str(path)) as container:
        keys = [i for i, f in enumerate(container.decode(video=0)) if f.key_frame]
    assert max(np.diff([*keys, 60])) <= 25


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((31, 32, 3), np.uint8),
    ],
)
def test_wrong_frames_are_refused_and_leave_nothing(tmp_path: Path, frame: Any) -> None:
    with pytest.raises(ShapeError), VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write_frame(frame)
    assert list(tmp_path.iterdir()) == []


def test_changed_size_stereo_and_unexpected_sound_are_refused(tmp_path: Path) -> None:
    sizes = ((32, 32, 3), (64, 32, 3))
    with pytest.raises(ShapeError, match="32 x 32"):
        write_video(tmp_path / "a.mp4", (np.zeros(s, np.uint8) for s in sizes))
    with pytest.raises(ShapeError, match="mono"):
        VideoWriter(tmp_path / "a.mp4", sound=True).write_audio(np.zeros((2, 8), np.float32))
    with pytest.raises(DataError, match="sound=True"):
        VideoWriter(tmp_path / "a.mp4").write_audio(np.zeros(8, np.float32))


def test_failure_in_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def broken() -> Any:
        yield from _frames(3)
        raise RuntimeError("drawing failed")

    with pytest.raises(RuntimeError, match="drawing failed"):
        write_video(path, broken(), _chirps(2000))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_no_frame_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one"):
        write_video(tmp_path / "a.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_up_is_named(tmp_path: Path) -> None:
    """A limit on the file size makes the kernel refuse further bytes, as a full disk would."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(DataError, match=r"could not write .*a\.mp4.*free space"):
            write_video(tmp_path / "a.mp4", noise, crf=0)
        with pytest.raises(DataError, match=r"could not write .*b\.wav"):
            write_wav(tmp_path / "b.wav", np.zeros(40_000, np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not write"):
        write_video(tmp_path / "file" / "a.mp4", _frames(2))


def test_missing_pyav_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        VideoWriter(tmp_path / "a.mp4")


def test_wav_holds_rounded_and_clipped_samples(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.array([0.0, 0.5, -0.5, 2.0, -2.0], np.float32))
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        samples = np.frombuffer(file.readframes(9), "<i2")
    assert samples.tolist() == [0, 16384, -16384, 32767, -32767]
    with pytest.raises(ShapeError, match="mono"):
        write_wav(path, np.zeros((2, 5), np.float32))
