from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from talkhead.checkpoint import BLOCK, FORMAT, component_entry
from talkhead.errors import ConfigError, DataError, StageLinkError
from talkhead.evaluation.judges import (
    GazeJudge,
    IdentityJudge,
    JudgeFiles,
    Judges,
    SFaceJudge,
    five_points,
    load_syncnet,
    rigid_run,
    to_unit,
)
from talkhead.geometry.crop import clip_box, crop_frame, to_crop_units
from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh
from talkhead.media.decode import iter_frames
from talkhead.networks.component import Component
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.rigid_syncer import RigidSyncer
from talkhead.networks.syncnet import SyncNet
from talkhead.specs import AudioSpec, VideoSpec, spec_dict
from tests.talkhead.metrics.cases import gaze_network
from tests.talkhead.networks.test_pretrained import SMALL


def checkpoint(path: Path, name: str, part: Component, crop: str, size: int) -> Path:
    """A checkpoint that holds one component."""
    state = {f"{name}.{k}": v for k, v in part.state_dict().items()}
    block = {
        "format": FORMAT,
        "stage": "toy",
        "components": {name: component_entry(part, name, state)},
        "audio": spec_dict(AudioSpec()),
        "video": spec_dict(VideoSpec(size=size, crop=crop)),
    }
    torch.save({"state_dict": state, BLOCK: block}, path)
    return path


def small_syncnet() -> SyncNet:
    torch.manual_seed(0)
    narrow = [4, 4, 4, 4, 4, 8]
    return SyncNet(8, 8, 32, 1, narrow, narrow)


def small_rigid_syncer() -> RigidSyncer:
    torch.manual_seed(0)
    return RigidSyncer(dim=8, width=8).eval()


def test_five_points_lie_where_eyes_nose_and_mouth_are() -> None:
    face = canonical_landmarks()
    found = five_points(face[None].astype(np.float32))[0]
    left, right, nose, mouth_left, mouth_right = found
    assert left[0] < nose[0] < right[0]
    assert left[1] == pytest.approx(right[1], abs=1e-3)  # the face is symmetric
    assert left[1] < nose[1] < mouth_left[1] == pytest.approx(mouth_right[1], abs=1e-3)
    np.testing.assert_allclose(mouth_left, face[61, :2])


def test_judges_of_a_checkpoint_keep_their_crop_and_name(tmp_path: Path) -> None:
    network = small_syncnet()
    path = checkpoint(tmp_path / "s.ckpt", "syncnet", network, "fixed_box:0.7", 32)
    loaded, share = load_syncnet(str(path))
    assert (share, loaded.judge, loaded.training) == (0.7, "syncnet", False)
    weights = network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    encoder = IdentityEncoder(**SMALL)
    place = checkpoint(tmp_path / "i.ckpt", "identity_encoder", encoder, "fixed_box:0.6", 64)
    judge = IdentityJudge(str(place))
    assert (judge.size, judge.face_share, judge.space) == (64, 0.6, "identity_encoder")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = encoder.eval()(to_unit(pictures) * 2 - 1)[0]
    torch.testing.assert_close(judge.embed(pictures, np.zeros((2, 478, 3), np.float32)), expected)
    rigid = checkpoint(
        tmp_path / "r.ckpt", "rigid_syncer", small_rigid_syncer(), "fixed_box:0.5", 64
    )
    files = JudgeFiles(syncnet=str(path), identity=str(place), rigid_syncer=str(rigid))
    found = Judges.load(files, 128)
    assert found.names() == {
        "identity_encoder": "64 px, fixed_box:0.6",
        "syncnet": "32 px, fixed_box:0.7",
        "rigid_syncer": "31 landmarks, runs of 80 frames",
    }
    # The coarsest of four levels needs 16 windows of five frames that last 320 ms each.
    assert rigid_run(RigidSyncer(levels=4, dim=4, width=8)) == 8 * 19 + 1


def test_the_gaze_judge_reads_what_its_network_reads_in_crop_units(tmp_path: Path) -> None:
    network = gaze_network()
    path = checkpoint(tmp_path / "g.ckpt", "gaze", network, "fixed_box:0.6", 48)
    judges = Judges.load(JudgeFiles(gaze=str(path)), 128)
    assert judges.names() == {"gaze": "48 px, fixed_box:0.6"}
    assert judges.gaze is not None
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    points = 0.5 + 0.3 * canonical_landmarks()[None].repeat(2, axis=0).astype(np.float32)
    with torch.no_grad():
        expected = network.read(to_unit(pictures) * 2 - 1, torch.from_numpy(points))
    torch.testing.assert_close(judges.gaze.embed(pictures, points * 48), expected)
    assert expected.shape == (2, 4)


def test_other_files_are_no_gaze_judges(tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "s.ckpt", "syncnet", small_syncnet(), "fixed_box:0.7", 32)
    with pytest.raises(StageLinkError, match=r"offers syncnet; expected it to hold 'gaze'"):
        GazeJudge(str(other))
    named = checkpoint(tmp_path / "n.ckpt", "gaze", small_syncnet(), "fixed_box:0.7", 32)
    with pytest.raises(StageLinkError, match=r"expected a talkhead\.networks\.gaze\.GazeNet"):
        GazeJudge(str(named))
    whole = checkpoint(tmp_path / "g.ckpt", "gaze", gaze_network(), "fixed_box:0.6", 48)
    whole.write_bytes(whole.read_bytes()[:500])
    with pytest.raises(StageLinkError, match="cannot be read as a checkpoint"):
        GazeJudge(str(whole))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(ConfigError, match=r"expected face_recognition_sface_2021dec\.onnx"):
        SFaceJudge(str(tmp_path / "x.onnx"), 128)
    with pytest.raises(StageLinkError, match="cannot be read as a checkpoint"):
        load_syncnet(str(tmp_path / "x.onnx"))
    with pytest.raises(ConfigError, match="alexnet"):
        Judges.load(JudgeFiles(lpips=str(tmp_path / "x.onnx")), 128)
    with pytest.raises(DataError, match="cannot read"):
        JudgeFiles(sface=str(tmp_path / "absent")).digests()
    here = str(tmp_path / "x.onnx")
    assert list(JudgeFiles(sface=here).digests()) == ["sface"]
    # The linear weights that come with torchmetrics decide the number as well.
    assert set(JudgeFiles(lpips=here).digests()) == {"lpips", "lpips_linear"}
    assert JudgeFiles(lpips_linear=here).digests() == {}


def test_pictures_become_channels_first() -> None:
    picture = np.zeros((1, 2, 3, 3), np.uint8)
    picture[0, 1, 2] = (255, 0, 51)
    assert to_unit(picture)[0, :, 1, 2].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_sface_tells_people_apart(shared_data: Path) -> None:
    """The stated cosines of these clips: one speaker at least 0.70, different ones at most 0.38."""
    file = shared_data / "models" / "face_recognition_sface_2021dec_int8bq.onnx"
    judge, tracker = SFaceJudge(str(file), 256), MediaPipeMesh()
    assert judge.space == "sface_int8bq"
    rows = []
    for name in ("clip_007", "clip_008", "clip_009"):  # the first two are one speaker
        frame = next(iter(iter_frames(shared_data / "clips" / f"{name}.mp4")))
        points = tracker.detect(frame)[:1]
        box = clip_box(np.stack(points), frame.shape[1], frame.shape[0])
        crop = crop_frame(frame, box, judge.size)
        rows.append(judge.embed(crop[None], to_crop_units(np.stack(points), box) * judge.size)[0])
    tracker.close()
    alike = torch.nn.functional.cosine_similarity
    assert float(alike(rows[0], rows[1], dim=0)) > 0.70
    assert float(alike(rows[0], rows[2], dim=0)) < 0.38
