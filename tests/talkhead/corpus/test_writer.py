"""The corpus: layout, reproducibility, resuming, and sound in time with the truth."""

import json
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.commands.corpus import main
from talkhead.corpus.lips import lip_motion
from talkhead.corpus.sentences import sample_utterance
from talkhead.corpus.truth import load_truth, truth_path
from talkhead.corpus.writer import CorpusSettings, make_speaker, write_corpus
from talkhead.errors import ConfigError, DataError
from talkhead.render.identity import IDENTITY_SEEDS

SMALL = CorpusSettings(speakers=2, clips=1, seconds=0.8, seed=3, takes=2, size=64)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    assert list(write_corpus(root, SMALL))[-1] == (4, 4)
    return root


def _digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): sha256(p.read_bytes()).hexdigest() for p in files}


def _sound(path: Path) -> NDArray[np.float32]:
    with av.open(str(path)) as container:
        return np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])


def test_layout_and_notes(corpus: Path) -> None:
    clips = sorted(str(p.relative_to(corpus)) for p in corpus.rglob("*.mp4"))
    assert clips == [
        f"speaker00{s}/video000/clip000_take{k}.mp4" for s in range(2) for k in range(2)
    ]
    assert all(truth_path(corpus / c).is_file() for c in clips)
    assert "No real person" in (corpus / "README.txt").read_text()
    record = json.loads((corpus / "corpus.json").read_text())
    assert record["settings"]["seconds"] == 0.8
    assert [s["name"] for s in record["speakers"]] == ["speaker000", "speaker001"]
    assert not list(corpus.rglob("*.part"))


def test_clip_is_25_fps_with_sound_and_truth_of_the_same_length(corpus: Path) -> None:
    path = corpus / "speaker001/video000/clip000_take0.mp4"
    truth = load_truth(truth_path(path))
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height, video.frames) == (64, 64, 20)
        assert video.average_rate == 25
        assert container.streams.audio[0].rate == 16_000
        assert "no real person" in container.metadata["comment"]
    assert truth.state.frames == 20
    assert len(truth.prosody.energy_db) == 20
    assert truth.identity == make_speaker(SMALL.seed, 1).identity


def test_takes_share_speech_and_lips_but_not_motion(corpus: Path) -> None:
    paths = [corpus / f"speaker000/video000/clip000_take{k}.mp4" for k in range(2)]
    first, second = (load_truth(truth_path(p)) for p in paths)
    assert np.array_equal(_sound(paths[0]), _sound(paths[1]))
    assert first.phonemes == second.phonemes
    assert np.array_equal(first.state.jaw, second.state.jaw)
    assert not np.array_equal(first.state.rotation, second.state.rotation)
    assert (first.take, second.take) == (0, 1)


def test_sound_in_the_file_is_in_time_with_the_truth(corpus: Path) -> None:
    """Speak the clip again from its seed: the file's sound matches within one sample."""
    speaker = make_speaker(SMALL.seed, 0)
    rng = np.random.default_rng([SMALL.seed, 0, 0, 0])
    said = sample_utterance(rng, 0.8, speaker.voice, speaker.rate, speaker.pitch).speech
    path = corpus / "speaker000/video000/clip000_take0.mp4"
    heard = _sound(path)
    n = 4 * len(said.wave)
    cross = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(said.wave, n)), n)
    lag = int(np.argmax(cross))
    assert min(lag, n - lag) <= 1
    truth = load_truth(truth_path(path))
    assert truth.phonemes == said.phonemes
    lips = lip_motion(said.phonemes, 20, speaker.articulation)
    assert np.array_equal(truth.state.jaw, lips["jaw"])


def test_resuming_rewrites_only_what_is_missing(corpus: Path) -> None:
    before = _digests(corpus)
    kept = corpus / "speaker000/video000/clip000_take0.mp4"
    gone = corpus / "speaker001/video000/clip000_take1.mp4"
    stamp = kept.stat().st_mtime_ns
    gone.unlink()
    gone.with_name(f".{gone.name}.99.part").write_bytes(b"of a killed run")
    assert list(write_corpus(corpus, SMALL)) == [(3, 4), (4, 4)]
    assert _digests(corpus) == before
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_workers_do_not_change_a_byte(corpus: Path, tmp_path: Path) -> None:
    assert list(write_corpus(tmp_path, SMALL, workers=2))[-1] == (4, 4)
    assert _digests(tmp_path) == _digests(corpus)


def test_other_settings_in_the_folder_are_refused(corpus: Path, tmp_path: Path) -> None:
    other = CorpusSettings(speakers=2, clips=1, seconds=0.8, seed=4, takes=2, size=64)
    with pytest.raises(ConfigError, match=r"seed: 3 there, 4 asked.*another --out"):
        next(iter(write_corpus(corpus, other)))
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(DataError, match=r"corpus\.json is broken"):
        next(iter(write_corpus(tmp_path, SMALL)))


def test_speakers_differ_and_depend_on_the_seed_alone() -> None:
    people = [make_speaker(0, i) for i in range(14)]
    assert people == [make_speaker(0, i) for i in range(14)]
    assert len({p.identity for p in people}) == 14
    assert len({(p.voice, p.rate, p.pitch) for p in people}) == 14
    assert len({p.motion for p in people}) == 14
    far = [make_speaker(0, i).identity for i in range(len(IDENTITY_SEEDS) + 2)]
    assert len(set(far)) == len(far)
    assert make_speaker(1, 0) != people[0]


@pytest.mark.parametrize(
    "change",
    [{"speakers": 0}, {"takes": 0}, {"seconds": 0.1}, {"size": 255}, {"size": 32}, {"seed": -1}],
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        CorpusSettings(**change)  # type: ignore[arg-type] # wrong on purpose


def test_unusable_folder_and_workers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not write into"):
        next(iter(write_corpus(tmp_path / "file" / "c", SMALL)))
    with pytest.raises(ConfigError, match="workers"):
        next(iter(write_corpus(tmp_path, SMALL, workers=0)))


def test_command_writes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--out", str(tmp_path), "--speakers", "1", "--clips", "1", "--seconds", "0.6"]
    args += ["--size", "64", "--workers", "1"]
    assert main(args) == 0
    assert "1 clips, 1 written now" in capsys.readouterr().out.replace("\n", " ")
    assert main(args) == 0
    assert "1 clips, 0 written now" in capsys.readouterr().out.replace("\n", " ")
