from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.audit.sync import block_offsets, clip_sync, load_syncnet
from talkhead.checkpoint import component_entry
from talkhead.errors import ConfigError, StageLinkError
from talkhead.networks.component import Component
from talkhead.networks.heads import LipHead
from talkhead.networks.syncnet import SyncNet
from talkhead.specs import AudioSpec, VideoSpec, spec_dict
from tests.oracles.sync import distance

SMALL: dict[str, Any] = {
    "dim": 16, "hidden": 16, "stem_stride": 1, "image_size": 32,
    "lip_widths": [8, 8, 8, 8, 8, 16], "audio_widths": [8, 8, 8, 8, 8, 16],
}  # fmt: skip


def content(frames: int = 160, seed: int = 0) -> Tensor:
    return torch.randn(frames, 8, generator=torch.Generator().manual_seed(seed))


def pair(offset: int, frames: int = 160) -> tuple[Tensor, Tensor]:
    """Embeddings whose picture lags its sound by ``offset`` frames."""
    whole = content(frames + 30)
    return whole[15 - offset : 15 - offset + frames], whole[15 : 15 + frames]


@pytest.mark.parametrize("offset", [-10, -1, 0, 4])
def test_a_video_that_lags_has_a_positive_offset(offset: int) -> None:
    found = clip_sync(*pair(offset))
    assert found is not None
    assert found.offset_frames == offset
    assert found.agreement == 1.0
    assert found.confidence > 3 * found.null_confidence


def test_unrelated_sound_is_no_better_than_chance() -> None:
    found = clip_sync(content(seed=1), content(seed=2))
    assert found is not None
    assert found.confidence == pytest.approx(found.null_confidence, rel=0.5)


def test_chance_does_not_hear_what_is_in_sync() -> None:
    """Turned around, no true pair is in reach; played backwards, one window meets its own sound."""
    found = clip_sync(*pair(0))
    assert found is not None
    assert found.null_confidence < 0.1 * found.confidence


def test_an_offset_that_changes_within_the_clip_is_seen() -> None:
    visual, audio = pair(0)
    late = pair(5)[0]
    visual = torch.cat([visual[:100], late[100:]])
    assert block_offsets(visual, audio).tolist() == [0, 0, 5]
    found = clip_sync(visual, audio)
    assert found is not None
    assert found.offset_frames == 0
    assert found.agreement == pytest.approx(2 / 3)


def test_block_offsets_by_plain_loops() -> None:
    visual, audio = content(25, 3), content(25, 4)
    seen, heard = visual.double().tolist(), audio.double().tolist()
    expected = []
    for rows in (range(13), range(13, 25)):
        means = []
        for shift in range(-4, 5):
            values = [distance(seen[t], heard[t + shift]) for t in rows if 0 <= t + shift < 25]
            means.append(sum(values) / len(values))
        expected.append(4 - means.index(min(means)))
    assert block_offsets(visual, audio, block=12, max_shift=4).tolist() == expected


def test_too_short_to_tell() -> None:
    assert clip_sync(*pair(0, 29)) is None
    assert clip_sync(*pair(0, 30)) is not None


def saved(path: Path, name: str, module: Component, stage: str = "syncnet") -> Path:
    """A checkpoint as a stage writes it."""
    state = {f"{name}.{key}": value for key, value in module.state_dict().items()}
    block = {
        "format": 1, "stage": stage, "components": {name: component_entry(module, name, state)},
        "audio": spec_dict(AudioSpec()), "video": spec_dict(VideoSpec()),
    }  # fmt: skip
    torch.save({"state_dict": state, "talkhead": block}, path)
    return path


def test_the_judge_of_a_checkpoint(tmp_path: Path) -> None:
    network = SyncNet(**SMALL)
    loaded = load_syncnet(saved(tmp_path / "a.ckpt", "syncnet", network))
    assert (loaded.judge, loaded.image_size, loaded.training) == ("syncnet", 32, False)
    assert not [p for p in loaded.parameters() if p.requires_grad]
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_files_that_are_no_judge(tmp_path: Path) -> None:
    other = saved(tmp_path / "lips.ckpt", "lip_head", LipHead(8, 8), "lip_disentangle")
    with pytest.raises(StageLinkError, match="offers lip_head"):
        load_syncnet(other)
    named = saved(tmp_path / "odd.ckpt", "syncnet", LipHead(8, 8))
    with pytest.raises(StageLinkError, match="expected 'syncnet' to be a SyncNet"):
        load_syncnet(named)
    weights = tmp_path / "weights.model"
    torch.save(SyncNet(**SMALL).state_dict(), weights)
    with pytest.raises(ConfigError, match="SHA-256"):
        load_syncnet(weights)
    with pytest.raises(ConfigError, match="no file"):
        load_syncnet(tmp_path / "absent")
