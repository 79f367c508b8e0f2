from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from talkhead.audio import hubert
from talkhead.audio.hubert import HubertFeatures
from talkhead.audio.speech_windows import MEL_DIM, mel_speech
from talkhead.errors import ConfigError
from talkhead.networks.sync_expert import SyncExpert
from talkhead.stages.speech_features import expert_front, speech_front
from tests.talkhead.audio.test_hubert import speech, tiny

EXPERT: dict[str, Any] = {
    "window": 4, "frames": 2, "side": 8, "dim": 8, "audio_widths": [8], "video_widths": [4, 4],
}  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a tiny HuBERT."""
    monkeypatch.setattr(hubert, "hubert_base", lambda: tiny("base"))
    monkeypatch.setitem(hubert.WIDTHS, "base", 24)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    file = tmp_path / "hubert.pth"
    torch.save(tiny("base").state_dict(), file)
    return file


def test_mel_needs_nothing() -> None:
    front, wave = speech_front("mel", None), speech(2)
    assert front.dim == MEL_DIM
    torch.testing.assert_close(front.features(wave), mel_speech(wave), rtol=0, atol=1e-5)
    source = front.source()
    rows = source.module(wave)
    assert (source.name, source.kind, source.dim) == ("speech", "wave", 320)
    assert torch.equal(rows.reshape(100, 160), mel_speech(wave))
    assert front.digest() == speech_front("mel", {"kind": "base"}).digest()


def test_hubert_is_loaded_with_the_first_wave(weights: Path) -> None:
    options = {"kind": "base", "weights_path": str(weights)}
    front, wave = speech_front("hubert", options), speech(2)
    wanted = HubertFeatures(tiny("base"), False)(wave)
    source = front.source()
    assert not list(source.module.parameters())
    assert torch.equal(source.module(wave), wanted.reshape(50, 48))
    assert source.dim == 48
    assert torch.equal(front.features(wave), wanted)
    assert [len(piece) for piece in front.chunks(wave)] == [100]


def test_a_recorded_digest_stands_for_missing_weights_and_refuses_others(weights: Path) -> None:
    options = {"kind": "base", "weights_path": str(weights)}
    digest = speech_front("hubert", options).digest()
    assert speech_front("hubert", options, digest).digest() == digest
    absent = speech_front("hubert", {"kind": "base"}, digest)
    assert absent.source().digest == digest
    with pytest.raises(ConfigError, match="expected the weights of HuBERT base"):
        absent.features(speech(1))
    with pytest.raises(ConfigError, match="expected the weights of HuBERT base"):
        speech_front("hubert", {"kind": "base"}).digest()
    with pytest.raises(ConfigError, match="expected the weights"):
        # A path that is wrong is an error even if a digest is known.
        speech_front("hubert", {"kind": "base", "weights_path": "none.pth"}, digest).digest()
    with pytest.raises(ConfigError, match="give the weights it was trained with"):
        speech_front("hubert", options, hashlib.sha256(b"other").hexdigest()).digest()
    with pytest.raises(ConfigError, match="these are"):
        speech_front("mel", None, digest).digest()


def test_an_expert_knows_its_features(weights: Path) -> None:
    heard = SyncExpert(feature_dim=24, front_kind="base", front_digest="d" * 64, **EXPERT)
    front = expert_front(heard)
    assert (front.name, front.hubert.kind, front.recorded) == ("hubert", "base", "d" * 64)
    mel = SyncExpert(front="mel", feature_dim=MEL_DIM, **EXPERT)
    assert expert_front(mel).name == "mel"
    with pytest.raises(ConfigError, match="hears 24 numbers a step, these are 1024"):
        expert_front(heard, {"kind": "large"})


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="hubert: no option path"):
        speech_front("hubert", {"path": "x"})
    with pytest.raises(ConfigError, match="hubert: kind: expected base or large"):
        speech_front("hubert", {"kind": "huge"})
    with pytest.raises(ConfigError, match="front: expected hubert or mel, got 'wave'"):
        speech_front("wave", None)  # type: ignore[arg-type]  # what YAML can hold
    with pytest.raises(ConfigError, match="mel has no network"):
        speech_front("mel", None).load()
