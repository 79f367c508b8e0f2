from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.audit.sync import best_offset, clip_sync, load_syncnet, shift_distances
from talkhead.checkpoint import component_entry
from talkhead.errors import ConfigError, StageLinkError
from talkhead.metrics.sync_scores import sync_scores
from talkhead.networks.component import Component
from talkhead.networks.heads import LipHead
from talkhead.networks.syncnet import SyncNet
from talkhead.specs import AudioSpec, VideoSpec, spec_dict

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
    visual, audio = pair(offset)
    found = clip_sync(visual, audio)
    assert found is not None
    assert found.offset_frames == offset
    assert found.agreement == 1.0
    assert 0 <= found.chance < 0.1 * found.confidence
    # The published confidence has the unit of the embeddings, this one has none.
    larger = clip_sync(10 * visual, 10 * audio)
    assert larger is not None
    assert larger.confidence == pytest.approx(found.confidence)
    assert larger.lse_c == pytest.approx(10 * found.lse_c, rel=1e-4)
    published = sync_scores(visual, audio)
    assert (found.lse_c, found.lse_d) == (float(published.lse_c), float(published.lse_d))


def test_unrelated_sound_is_no_better_than_chance() -> None:
    found = [clip_sync(content(seed=seed), content(seed=100 + seed)) for seed in range(40)]
    above = [one.confidence > one.chance for one in found if one is not None]
    assert len(above) == 40
    assert 10 <= sum(above) <= 30


def test_a_slope_over_all_shifts_is_no_evidence() -> None:
    """The nearer to the end, the nearer in sound: the published confidence is fooled, the lead is not."""
    ramp = torch.linspace(0, 1, 160)[:, None]
    visual = torch.cat([content(160, 1), 40 * ramp], dim=1)
    audio = torch.cat([content(160, 2), 40 * ramp + 20], dim=1)
    found, clear = clip_sync(visual, audio), clip_sync(*pair(0))
    assert found is not None
    assert clear is not None
    assert abs(found.offset_frames) >= 12
    assert found.lse_c > clear.lse_c
    assert found.confidence < 0.3 * clear.confidence


def test_an_offset_that_changes_within_the_clip_is_seen() -> None:
    visual, audio = pair(0)
    late = pair(5)[0]
    visual = torch.cat([visual[:100], late[100:]])
    parts = shift_distances(visual, audio).tensor_split(3)
    assert [best_offset(part)[0] for part in parts] == [0, 0, 5]
    found = clip_sync(visual, audio)
    assert found is not None
    assert found.offset_frames == 0
    assert found.agreement == pytest.approx(2 / 3)


def test_offset_and_lead_by_plain_loops() -> None:
    visual, audio = content(25, 3), content(25, 4)
    seen, heard = visual.double().tolist(), audio.double().tolist()
    parts = shift_distances(visual, audio, max_shift=6).tensor_split(2)
    for rows, part in zip((range(13), range(13, 25)), parts, strict=True):
        means, every = [], []
        for shift in range(-6, 7):
            values = [math.dist(seen[t], heard[t + shift]) for t in rows if 0 <= t + shift < 25]
            means.append(sum(values) / len(values))
            every += values
        best = means.index(min(means))
        lead = min(m for k, m in enumerate(means) if abs(k - best) > 3) - min(means)
        lead *= math.sqrt(len(rows)) / statistics.pstdev(every)
        found = best_offset(part)
        assert found[0] == 6 - best
        assert found[1] == pytest.approx(lead)


def test_a_stretch_without_partners_at_some_shift() -> None:
    distances = shift_distances(content(12), content(12), max_shift=6)[:3]
    assert distances.isnan().any(0).tolist() == [True] * 6 + [False] * 7
    assert distances[:, :4].isnan().all()
    assert best_offset(distances)[0] == 0


def test_embeddings_that_say_nothing() -> None:
    found = clip_sync(torch.ones(50, 4), torch.zeros(50, 4))
    assert found is not None
    assert (found.confidence, found.chance) == (0.0, 0.0)


def test_too_short_to_tell() -> None:
    assert clip_sync(*pair(0, 39)) is None
    assert clip_sync(*pair(0, 40)) is not None


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
