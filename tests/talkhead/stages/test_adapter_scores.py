from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import TalkheadDataModule
from talkhead.batch import to_bytes, to_float
from talkhead.geometry.face_topology import INNER_LIP_PAIR, canonical_landmarks
from talkhead.networks.face_look import redraw
from talkhead.stages.adapter_scores import FILMED, UNADAPTED, AdapterScores, _spearman
from talkhead.stages.audio2exp import Audio2ExpStage
from tests.datamodules.fakes import make_prepared
from tests.talkhead.stages.short_runs import trainer
from tests.talkhead.stages.test_audio2exp import SIZE, trained

FRAMES = 34
ALPHAS = [0.0, 0.5, 1.0]


class Brightness:
    """A tracker whose mouths are as open as its pictures are far from the first it was shown."""

    def __init__(self) -> None:
        self.first: Tensor | None = None

    def __call__(self, pictures: Tensor) -> tuple[NDArray[np.float32] | None, float]:
        if self.first is None:
            self.first = pictures.float()
        apart = (pictures.float() - self.first).abs().mean((1, 2, 3)) / 255
        face = 0.25 * canonical_landmarks().astype(np.float32) + np.float32(0.5)
        out = np.repeat(face[None], len(pictures), 0)
        out[:, INNER_LIP_PAIR[1], 1] += apart.numpy()
        return out, 1.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("sweep"), frames=FRAMES, size=SIZE)


def scores_of(made: Audio2ExpStage, root: Path, folder: Path) -> dict[str, float]:
    data = TalkheadDataModule(str(root), batch_size=2, test_items=2)
    return {
        name.removeprefix("test/"): float(value)
        for name, value in trainer(folder, 1).test(made, datamodule=data, verbose=False)[0].items()
    }


def sweep(**options: Any) -> Audio2ExpStage:
    values = {"test_clips": 1, "test_alphas": ALPHAS, "test_alpha": 0.5, **options}
    return trained(**values)


def test_a_sweep_over_alpha(root: Path, tmp_path: Path) -> None:
    made = sweep()
    made.tracker = Brightness()
    found = scores_of(made, root, tmp_path)
    for mode in ("video", "portrait"):
        assert {
            f"{mode}_sync_confidence[sync_expert]", f"{mode}_sync_offset_alpha_1[sync_expert]",
            f"{mode}_outside_change", f"unadapted/{mode}_sync_cosine[sync_expert]",
            f"gt/{mode}_sync_cosine[sync_expert]", f"{mode}_mouth_opening[retracked:renderer]",
            f"{mode}_opening_rank[retracked:renderer]", f"{mode}_found_alpha_0[retracked:renderer]",
            f"{mode}_opening_follows_alpha_1[retracked:renderer]",
        } <= set(found)  # fmt: skip
        assert found[f"{mode}_outside_change"] == found[f"{mode}_outside_change_alpha_0.5"]
        assert -1 <= found[f"{mode}_opening_rank[retracked:renderer]"] <= 1
        edits = {found[f"{mode}_outside_edit_alpha_{a:g}"] for a in ALPHAS}
        assert min(edits) > 0
        assert len(edits) == len(ALPHAS)
    changes = [found[f"portrait_outside_change_alpha_{a:g}"] for a in ALPHAS]
    assert changes[2] != changes[1] != changes[0]
    assert len(made.per_clip_results) == 1
    assert "gt/video_outside_change" not in found  # a clip is not compared with itself


def test_an_adapter_at_zero_is_the_renderer_alone(root: Path, tmp_path: Path) -> None:
    made = sweep(test_modes=["portrait"])
    torch.nn.init.zeros_(made.audio2exp.linear.weight)
    torch.nn.init.zeros_(made.audio2exp.linear.bias)
    found = scores_of(made, root, tmp_path)
    for name in ("outside_change", "sync_cosine[sync_expert]", "sync_distance[sync_expert]"):
        assert found[f"portrait_{name}"] == found[f"unadapted/portrait_{name}"]
    assert found["portrait_outside_edit"] == 0
    assert "unadapted/portrait_outside_edit" not in found
    assert not [name for name in found if "video" in name or "retracked" in name]


def test_a_still_face_given_the_filmed_expressions(root: Path, tmp_path: Path) -> None:
    made = sweep()
    with torch.no_grad():
        made.motion_extractor.estimator.expression.weight.mul_(100)
    found = scores_of(made, root, tmp_path)
    assert "filmed/portrait_outside_change" in found
    assert not [name for name in found if name.startswith("filmed/video")]  # frames are their own

    data = TalkheadDataModule(str(root))
    data.attach(made.needs(), made.feature_sources())
    row = data.prepared.rows("test")[0]
    score = AdapterScores(made, data, None)
    pictures = score._drawn(score._read(row), "portrait")
    drawn = pictures[FILMED]
    assert not torch.equal(drawn, pictures[UNADAPTED])
    clip = to_float(data.prepared.frames(row, range(3), SIZE))
    with torch.no_grad():
        still = made.look(clip[:1]).repeated(3)
        moved = made.motion_extractor.head(clip).expression
        expected = redraw(made.motion_extractor, made.renderer, still, moved)
    apart = (drawn[:3].int() - to_bytes(expected).int()).abs()
    assert len(drawn) == FRAMES
    assert int(apart.max()) <= 1  # drawn in blocks of eight


def test_short_clips_have_no_offset_and_no_test_clips_no_sweep(root: Path, tmp_path: Path) -> None:
    found = scores_of(sweep(test_frames=20), root, tmp_path)
    assert "video_outside_change" in found
    assert not [name for name in found if "sync_offset" in name]
    none = scores_of(sweep(test_clips=0), root, tmp_path)
    assert "cosine_adapted" in none
    assert not [name for name in none if "outside_change" in name]


def test_ranks_by_hand() -> None:
    assert _spearman([(0.0, 1.0), (0.5, 1.5), (1.0, 9.0)]) == pytest.approx(1.0)
    assert _spearman([(0.0, 3.0), (0.5, 2.0), (1.0, 1.0)]) == pytest.approx(-1.0)
    # Ranks 0 1 2 3 against 0 2 1 3: 1 - 6 * 2 / (4 * 15).
    assert _spearman([(0.0, 0.0), (1.0, 2.0), (2.0, 1.0), (3.0, 5.0)]) == pytest.approx(0.8)
