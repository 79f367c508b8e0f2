from __future__ import annotations

from typing import Any, cast

import pytest

from talkhead.commands import generate
from talkhead.errors import StageLinkError
from talkhead.generation.controltalk import ControlTalker
from talkhead.generation.keypoints import KeypointTalker
from talkhead.generation.landmarks import LandmarkTalker
from talkhead.generation.prior import TalkingHead
from talkhead.generation.talker import Talker

TALKERS: tuple[type[Talker], ...] = (TalkingHead, KeypointTalker, LandmarkTalker, ControlTalker)


@pytest.mark.parametrize(
    ("talker", "expected"),
    [
        (TalkingHead, r"motion_diffusion or motion_ar\. Train a prior first\.$"),
        (KeypointTalker, r"ms_sync\.$"),
        (LandmarkTalker, r"shallow_diffusion\.$"),
        (ControlTalker, r"audio2exp\.$"),
    ],
)
def test_checkpoints_of_another_stage_are_refused(talker: type[Talker], expected: str) -> None:
    message = f"^a.ckpt is a checkpoint of stage syncer; expected {expected}"
    with pytest.raises(StageLinkError, match=message):
        talker.of({"stage": "syncer"}, "a.ckpt")


def test_each_stage_has_the_talker_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkhead.checkpoint.read_checkpoint", lambda path: path)
    monkeypatch.setattr("talkhead.checkpoint.read_block", lambda content, path: {"stage": content})
    for talker in TALKERS:
        monkeypatch.setattr(talker, "of", lambda *_, talker=talker: talker)
    found: dict[str, Any] = {
        name: generate._load(cast(Any, name)) for t in TALKERS for name in t.stages
    }
    assert found == {name: talker for talker in TALKERS for name in talker.stages}
    assert cast(Any, generate._load(cast(Any, "syncer"))) is TalkingHead


def test_a_stage_of_another_version_is_named() -> None:
    with pytest.raises(StageLinkError, match="stage 'unheard_of' that this version does not have"):
        TalkingHead.of({"stage": "unheard_of"}, "a.ckpt")


def test_a_talker_knows_what_its_checkpoint_says() -> None:
    block = {
        "components": {"prior": {"digest": "abc"}, "lip_head": {"digest": "def"}},
        "video": {"crop": "fixed_box:0.3"},
    }
    head = TalkingHead(cast(Any, None), block=block)
    assert (head.digest, head.face_share) == ("abc", 0.3)
