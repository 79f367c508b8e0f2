from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from talkhead.audio.filter_bank import log_filter_bank
from talkhead.commands.generate import _load
from talkhead.errors import ConfigError, DataError, StageLinkError
from talkhead.generation.keypoints import KeypointTalker
from talkhead.generation.portrait import Portrait
from talkhead.generation.request import Request
from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.networks.keypoint_detector import KeypointDetector
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.specs import SAMPLES_PER_FRAME
from talkhead.stages.ms_sync import MSSyncStage
from tests.talkhead.stages.short_runs import trainer
from tests.talkhead.stages.test_ms_sync import batch, stage

FRAMES, SIDE = 20, 64
DETECTOR: dict[str, Any] = {"width": 4, "max_width": 8, "blocks": 2, "scale": 0.5}
RENDERER: dict[str, Any] = {
    "width": 4, "max_width": 8, "residual_blocks": 1, "motion_width": 4, "motion_max_width": 8,
    "motion_blocks": 2, "scale": 0.5,
}  # fmt: skip


def saved(made: MSSyncStage, folder: Path) -> Path:
    loader: DataLoader[Any] = DataLoader([batch()], batch_size=None)  # type: ignore[arg-type]  # a list is a dataset
    run = trainer(folder, 1)
    run.fit(made, loader, loader)
    path = folder / "last.ckpt"
    run.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def mesh_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(stage(), tmp_path_factory.mktemp("mesh"))


@pytest.fixture(scope="module")
def learned_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    parts = {
        "keypoint_detector": KeypointDetector(**DETECTOR).spec,
        "keypoint_renderer": KeypointRenderer(**RENDERER).spec,
    }
    return saved(stage(image_size=SIDE, **parts), tmp_path_factory.mktemp("learned"))


def portrait() -> Portrait:
    rng = np.random.default_rng(0)
    face = canonical_landmarks().astype(np.float32) * 0.25
    face[:, :2] += 0.5
    coarse = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    return Portrait(coarse.repeat(8, 0).repeat(8, 1), face)


def speech(frames: int = FRAMES) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(1)
    wave = 0.1 * rng.standard_normal(frames * SAMPLES_PER_FRAME)
    return wave.astype(np.float32)


def test_every_frame_of_speech_has_a_picture_of_the_mesh(mesh_checkpoint: Path) -> None:
    talker = _load(mesh_checkpoint)
    assert isinstance(talker, KeypointTalker)
    face = portrait()
    rows = list(talker.animate(face, speech(), Request(("mesh",), SIDE)))
    assert len(rows) == FRAMES
    assert {picture.shape for row in rows for picture in row} == {(SIDE, SIDE, 3)}
    # An untrained generator hardly moves: the portrait is still there.
    apart = np.abs(rows[0][0].astype(float) - face.picture.astype(float)).mean()
    assert apart < 20
    assert set(talker.tags(Request(("mesh",)))) == {"generator_digest"}


def test_motion_begins_with_the_portrait_and_hears_the_whole_track(mesh_checkpoint: Path) -> None:
    talker = KeypointTalker.load(mesh_checkpoint)
    first = talker.keypoints(portrait())
    wave = speech(300)  # more than one block
    motion = torch.stack(list(talker.motion(wave, first)))
    network = talker.stage.motion_generator
    audio = log_filter_bank(torch.from_numpy(wave))[None]
    warm = torch.cat([audio[:, :8].flip(1), audio], 1)
    whole = network(first.expand(1, 3, -1), warm)[0, 2:]
    torch.testing.assert_close(motion, whole, rtol=1e-5, atol=1e-5)


def test_the_learned_renderer_draws_what_its_detector_sees(learned_checkpoint: Path) -> None:
    talker = KeypointTalker.load(learned_checkpoint)
    face = portrait()
    picture = torch.from_numpy(face.picture).permute(2, 0, 1)[None].float() * 2 / 255 - 1
    detector = talker.stage.keypoint_detector
    assert isinstance(detector, KeypointDetector)
    with torch.no_grad():
        torch.testing.assert_close(talker.keypoints(face), detector.describe(picture)[0])
    rows = list(talker.animate(face, speech(), Request(("generator",), 96)))
    assert len(rows) == FRAMES
    assert rows[0][0].shape == (96, 96, 3)


def test_what_cannot_be_shown_is_refused(mesh_checkpoint: Path, learned_checkpoint: Path) -> None:
    mesh, learned = KeypointTalker.load(mesh_checkpoint), KeypointTalker.load(learned_checkpoint)
    for request, message in (
        (Request(("mesh",), SIDE, seeds=(0, 1)), "--seed: expected none of these"),
        (Request(("mesh",), SIDE, guidance=2.0, edits={3: portrait()}), "--guidance, --edit"),
        (Request(("mesh",), SIDE, from_portrait=True, steps=3), "--steps, --start"),
    ):
        with pytest.raises(ConfigError, match=message):
            next(mesh.animate(portrait(), speech(), request))
    with pytest.raises(StageLinkError, match="holds no keypoint_renderer"):
        next(mesh.animate(portrait(), speech(), Request(("generator",), SIDE)))
    with pytest.raises(StageLinkError, match="use --renderer generator"):
        next(learned.animate(portrait(), speech(), Request(("mesh",), SIDE)))
    with pytest.raises(DataError, match="silent"):
        next(mesh.animate(portrait(), 0 * speech(), Request(("mesh",), SIDE)))
