"""Truth files come back as they were written, and broken ones are named."""

from pathlib import Path

import numpy as np
import pytest

from talkhead.corpus.motion_process import MotionParams
from talkhead.corpus.prosody import measure_prosody
from talkhead.corpus.speech import Phoneme
from talkhead.corpus.state import FaceState
from talkhead.corpus.truth import load_truth, save_truth, truth_path
from talkhead.errors import DataError


def _state(frames: int) -> FaceState:
    state = FaceState.neutral(frames)
    state.jaw[:] = np.linspace(0, 1, frames)
    state.rotation[:] = np.random.default_rng(0).normal(size=(frames, 3))
    return state


def test_everything_survives(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal(6400).astype(np.float32)
    prosody = measure_prosody(0.1 * noise)
    phonemes = [Phoneme("_", 0.0, 0.1), Phoneme("aI", 0.1, 0.4)]
    params = MotionParams.personal(np.random.default_rng(2))
    path = tmp_path / "a.truth.npz"
    save_truth(path, _state(10), phonemes, prosody, 7, 2, process=params, side=-1, blinks=(3,))
    truth = load_truth(path)
    assert truth.phonemes == phonemes
    assert (truth.identity, truth.take, truth.side, truth.blinks) == (7, 2, -1, (3,))
    assert truth.process == params
    for name, value in _state(10).arrays().items():
        assert np.array_equal(getattr(truth.state, name), value)
        assert getattr(truth.state, name).dtype == np.float32
    assert np.array_equal(truth.prosody.features, prosody.features)
    assert truth.prosody.pause.dtype == np.bool_
    assert [p.name for p in tmp_path.iterdir()] == ["a.truth.npz"]


def test_path_is_that_of_the_clip() -> None:
    assert truth_path(Path("x/clip000_take1.mp4")) == Path("x/clip000_take1.truth.npz")


def test_lengths_must_agree(tmp_path: Path) -> None:
    prosody = measure_prosody(np.zeros(6400, np.float32))
    with pytest.raises(DataError, match="state has 9 frames but prosody 10"):
        save_truth(tmp_path / "a.truth.npz", _state(9), [], prosody, 0, 0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_broken_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.truth.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.truth\.npz is not a readable truth file"):
        load_truth(path)
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match="a single array"):
        load_truth(tmp_path / "single.npy")
    with pytest.raises(DataError, match="not a readable"):
        load_truth(tmp_path / "none.npz")


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.truth.npz"
    np.savez(path, format=np.array(99))
    with pytest.raises(DataError, match="format 99, expected 1"):
        load_truth(path)


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    prosody = measure_prosody(np.zeros(6400, np.float32))
    with pytest.raises(DataError, match="could not write"):
        save_truth(tmp_path / "no" / "a.truth.npz", _state(10), [], prosody, 0, 0)
