from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchaudio.models import Wav2Vec2Model, wav2vec2_model

from talkhead.audio import hubert
from talkhead.audio.hubert import HubertFeatures, hubert_file, load_hubert
from talkhead.errors import ConfigError, MissingDependencyError, ShapeError

LAYERS = [(16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2]
FAMILIES = {"large": ("layer_norm", True), "base": ("group_norm", False)}


def tiny(kind: str = "large") -> Wav2Vec2Model:
    torch.manual_seed(0)
    mode, norm_first = FAMILIES[kind]
    return wav2vec2_model(
        mode, LAYERS, False, 24, 0.0, 32, 4, 2, 4, 0.0, 48, 0.0, 0.0, norm_first, 0.0, None
    ).eval()


def noted(heard: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """Stands for the transformer: notes what it gets and gives it back."""

    def attended(x: Tensor) -> Tensor:
        heard.append(x)
        return x

    return attended


def speech(seconds: float) -> Tensor:
    """Noise whose level changes every second, about a mean that is not 0."""
    random = torch.Generator().manual_seed(0)
    count = int(16_000 * seconds)
    level = torch.rand(int(seconds) + 1, generator=random).repeat_interleave(16_000)[:count]
    return 0.1 * torch.randn(count, generator=random) * level + 0.02


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("normalise", [True, False])
def test_short_files_are_the_last_hidden_state_of_the_model(kind: str, normalise: bool) -> None:
    model, wave = tiny(kind), speech(1.5)[:-300]
    features = HubertFeatures(model, normalise)(wave)
    whole = wave[: 640 * (len(wave) // 640)]
    given = (
        (whole - whole.mean()) / (whole.var(unbiased=False) + 1e-5).sqrt() if normalise else whole
    )
    with torch.no_grad():
        wanted = model(torch.nn.functional.pad(given, (0, 80))[None])[0][0]
    assert features.shape == (2 * (len(wave) // 640), 24)
    torch.testing.assert_close(features, wanted, rtol=0, atol=1e-5)
    assert not features.requires_grad


@pytest.mark.parametrize("kind", FAMILIES)
def test_joined_chunks_are_the_whole_file_to_the_stated_tolerance(kind: str) -> None:
    model, wave = tiny(kind), speech(12)
    whole = HubertFeatures(model, True)(wave)
    pieces = list(HubertFeatures(model, True, chunk_steps=150, context_steps=100).chunks(wave))
    assert [len(piece) for piece in pieces] == [150, 150, 150, 150]
    error = (torch.cat(pieces) - whole).norm(dim=1) / whole.norm(dim=1)
    inside = error[100:-100]
    assert inside.mean() < 0.03
    assert inside.max() < 0.06
    # The end of a chunk without what follows is far from it.
    alone = HubertFeatures(model, True)(wave[: 75 * 640])
    assert ((alone - whole[:150]).norm(dim=1) / whole[:150].norm(dim=1)).max() > 0.08


@pytest.mark.parametrize("kind", FAMILIES)
def test_convolutions_are_those_of_the_whole_file(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wave = tiny(kind), speech(6)
    monkeypatch.setattr(hubert, "STATISTICS_SAMPLES", 7000)
    heard: list[Tensor] = []
    chunked = HubertFeatures(model, False, chunk_steps=40, context_steps=5)
    monkeypatch.setattr(chunked, "_attended", noted(heard))
    joined = torch.cat(list(chunked.chunks(wave)))
    with torch.no_grad():
        whole = model.feature_extractor(torch.nn.functional.pad(wave, (0, 80))[None], None)[0][0]
    torch.testing.assert_close(joined, whole, rtol=0, atol=2e-4)
    # Memory is that of a chunk, whatever the length.
    assert max(x.shape[1] for x in heard) == 50


def test_the_steps_of_a_frame_follow_its_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    features = HubertFeatures(tiny(), False)
    wave = torch.zeros(640 * 40)
    late = wave.clone()
    late[640 * 20 :] = speech(1)[: 640 * 20]
    heard: list[Tensor] = []
    monkeypatch.setattr(features, "_attended", noted(heard))
    features(wave), features(late)
    changed = (heard[0] != heard[1]).any(-1)[0].nonzero().flatten()
    assert changed[0] in (39, 40)  # step 39 reaches 80 samples into frame 20
    with pytest.raises(ShapeError, match="at least one frame"):
        features(torch.zeros(639))
    with pytest.raises(ShapeError, match="expected float samples"):
        features(torch.zeros(2, 6400))


def test_weights_are_found_checked_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[str, Callable[[], Any]] = {
        "hubert_base": lambda: tiny("base"),
        "hubert_large": tiny,
    }
    for name, make in kinds.items():
        monkeypatch.setattr(hubert, name, make)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConfigError, match=r"expected the weights of HuBERT base.*front: mel"):
        load_hubert("base")
    file = tmp_path / "checkpoints" / "hubert_fairseq_base_ls960.pth"
    file.parent.mkdir()
    model = tiny("base")
    with torch.no_grad():
        next(model.parameters()).mul_(2.0)
    torch.save(model.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert hubert_file("base") == hubert_file("base", str(file), digest[:10]) == digest
    loaded = load_hubert("base", sha256=digest)
    assert not loaded.normalise
    assert torch.equal(loaded(speech(1)), HubertFeatures(model, False)(speech(1)))
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(ConfigError, match="expected SHA-256 00000000"):
        hubert_file("base", str(file), "00000000")
    with pytest.raises(ConfigError, match="does not fit HuBERT large"):
        load_hubert("large", str(file))
    with pytest.raises(ConfigError, match="expected kind base, large, chinese_large"):
        hubert_file("huge")  # type: ignore[arg-type]  # what YAML can hold


def test_a_hugging_face_folder_needs_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"expected a folder with config\.json"):
        load_hubert("chinese_large", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="found no file"):
        load_hubert("chinese_large", str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"talkhead\[hubert\]"):
        load_hubert("chinese_large", str(tmp_path))


@pytest.mark.parametrize("normalise", [True, False])
def test_a_hugging_face_model_gives_its_last_hidden_state(normalise: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8,) * 7, conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    original = transformers.HubertModel(config).eval()
    original.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalise}))
    wave = speech(1)
    given = (wave - wave.mean()) / (wave.var(unbiased=False) + 1e-5).sqrt() if normalise else wave
    with torch.no_grad():
        wanted = original(torch.nn.functional.pad(given, (0, 80))[None]).last_hidden_state[0]
    torch.testing.assert_close(load_hubert("chinese_large", str(tmp_path))(wave), wanted)


def test_chunks_must_hold_something() -> None:
    with pytest.raises(ConfigError, match="chunks of at least one step"):
        HubertFeatures(tiny(), True, chunk_steps=0)
