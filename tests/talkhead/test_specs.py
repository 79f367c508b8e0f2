import pytest

from talkhead.errors import SpecError
from talkhead.specs import (
    AudioSpec,
    VideoSpec,
    check_same_clock,
    frame_time_s,
    frames_to_samples,
    nearest_frame,
    samples_to_frames,
    spec_dict,
    window_start_step,
)


def test_one_second_is_25_frames_and_16000_samples() -> None:
    assert frames_to_samples(25) == 16_000
    assert samples_to_frames(16_000) == 25
    assert samples_to_frames(16_639) == 25
    assert samples_to_frames(16_640) == 26


def test_mel_clock_has_four_steps_a_frame_and_windows_of_a_fifth_of_a_second() -> None:
    spec = AudioSpec()
    assert spec.steps_per_frame == 4
    assert spec.window_steps == 20
    assert spec.window_steps * spec.hop == 3200


def test_window_is_centred_on_its_frame() -> None:
    spec = AudioSpec()
    for frame in (0, 2, 100):
        first = window_start_step(frame) * spec.hop
        last = first + spec.window_steps * spec.hop
        assert (first + last) / 2 == frames_to_samples(frame) + spec.samples_per_frame / 2


def test_frame_times_and_back() -> None:
    assert all(nearest_frame(frame_time_s(f)) == f for f in range(1000))
    assert nearest_frame(0.0399) == 0


def test_same_clock_is_accepted_whatever_the_picture_size() -> None:
    check_same_clock("x", spec_dict(VideoSpec(size=64)), spec_dict(VideoSpec(size=224)))


def test_other_clock_is_refused_and_named() -> None:
    with pytest.raises(SpecError, match=r"shard 7 .*fps: expected 25, got 30.*talkhead prepare"):
        check_same_clock("shard 7", spec_dict(VideoSpec()), spec_dict(VideoSpec(fps=30)))
