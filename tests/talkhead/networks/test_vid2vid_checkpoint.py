from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError
from talkhead.networks import vid2vid_checkpoint
from talkhead.networks.motion_extractor import MotionExtractor
from talkhead.networks.vid2vid_checkpoint import (
    extractor_tensors,
    load_face_vid2vid,
    renderer_tensors,
)
from talkhead.networks.volume_renderer import VolumeRenderer
from tests.oracles import vid2vid

SMALL = vid2vid.Sizes(
    keypoints=3, width=4, max_width=12, blocks=2, step=2, depth=3, head_width=4,
    head_widths=(8, 12, 8, 12), head_blocks=(3, 3, 5, 2), paint_width=4, paint_max_width=12,
    channels=3, residuals=2, compress=2, motion_width=4, motion_max_width=12, motion_blocks=2,
    middle=2, guide=5,
)  # fmt: skip
# The doublings of the published decoder fit only widths that double twice.
TEMPERATURE = 0.3
PARTS = {
    "kp_detector": vid2vid.detector_shapes,
    "he_estimator": vid2vid.estimator_shapes,
    "generator": vid2vid.generator_shapes,
}


def small_extractor(**options: Any) -> MotionExtractor:
    s = SMALL
    return MotionExtractor(
        keypoints=s.keypoints, width=s.width, max_width=s.max_width, blocks=s.blocks, scale=1 / s.step,
        depth=s.depth, temperature=TEMPERATURE, head_width=s.head_width, head_widths=list(s.head_widths),
        head_blocks=list(s.head_blocks), **options,
    ).eval()  # fmt: skip


def small_renderer(**options: Any) -> VolumeRenderer:
    s = SMALL
    values: dict[str, Any] = {
        "keypoints": s.keypoints, "width": s.paint_width, "max_width": s.paint_max_width, "downs": s.downs,
        "channels": s.channels, "depth": s.depth, "residual_blocks": s.residuals, "compress": s.compress,
        "motion_width": s.motion_width, "motion_max_width": s.motion_max_width,
        "motion_blocks": s.motion_blocks, "middle_blocks": s.middle, "guide_width": s.guide, **options,
    }  # fmt: skip
    return VolumeRenderer(**values).eval()


def small_file() -> dict[str, dict[str, Tensor]]:
    """A file with the published names, in the small sizes."""
    return {name: vid2vid.random_state(shapes(SMALL), SMALL.step) for name, shapes in PARTS.items()}


def write(path: Path, content: object) -> str:
    torch.save(content, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def filled(file: Mapping[str, dict[str, Tensor]]) -> tuple[MotionExtractor, VolumeRenderer]:
    extractor, renderer = small_extractor(), small_renderer()
    ours = extractor_tensors(file["kp_detector"], file["he_estimator"], "file")
    extractor.load_state_dict(ours, strict=True)
    renderer.load_state_dict(renderer_tensors(file["generator"], "file"), strict=True)
    return extractor, renderer


def test_every_entry_of_a_full_file_finds_its_place() -> None:
    """By name and shape, at the published sizes; one entry for each of ours and none left over."""
    full = vid2vid.Sizes()
    with torch.device("meta"):
        file = {
            name: {k: torch.empty(shape) for k, shape in shapes(full).items()}
            for name, shapes in PARTS.items()
        }
        extractor, renderer = MotionExtractor(), VolumeRenderer()
    for found, module in (
        (extractor_tensors(file["kp_detector"], file["he_estimator"], "file"), extractor),
        (renderer_tensors(file["generator"], "file"), renderer),
    ):
        wanted = {name: tuple(v.shape) for name, v in module.state_dict().items()}
        assert {name: tuple(v.shape) for name, v in found.items()} == wanted
    assert len(file["he_estimator"]) + len(file["kp_detector"]) == len(extractor.state_dict())
    assert len(file["generator"]) == len(renderer.state_dict())
    # As printed in the released code: layers of the keypoint network, the estimator and the motion.
    numbers = {
        name: sum(v.numel() for k, v in part.items() if "running" not in k and "num_b" not in k)
        for name, part in file.items()
    }
    assert numbers["he_estimator"] == 30_254_838
    down, head = 3 * 13 * 13, 32 * 15 * 27 + 15
    assert numbers["kp_detector"] == 41_927_072 + head + down
    motion = {k: v for k, v in file["generator"].items() if k.startswith("dense_motion_network.")}
    parameters = (v for k, v in motion.items() if "running" not in k and "num_b" not in k)
    assert sum(v.numel() for v in parameters) == 43_545_549


def test_yaw_comes_from_the_layer_called_roll() -> None:
    torch.manual_seed(0)
    file = small_file()
    extractor, _ = filled(file)
    state = file["he_estimator"]
    own = extractor.state_dict()
    for theirs, ours in (("fc_roll", "yaw"), ("fc_pitch", "pitch"), ("fc_yaw", "roll")):
        assert torch.equal(own[f"estimator.angles.{ours}.weight"], state[f"{theirs}.weight"])
    pictures = torch.rand(2, 3, 32, 40)
    with torch.no_grad():
        before = extractor.head(2 * pictures - 1)
        file["he_estimator"]["fc_roll.bias"] += 5.0 * torch.eye(66)[40]
        after = filled(file)[0].head(2 * pictures - 1)
    assert (after.degrees[:, 0] > before.degrees[:, 0]).all()
    assert torch.equal(after.degrees[:, 1:], before.degrees[:, 1:])


def test_extractor_computes_what_the_published_network_does() -> None:
    torch.manual_seed(1)
    file = small_file()
    extractor, _ = filled(file)
    pictures = torch.rand(2, 3, 32, 40)
    points = vid2vid.canonical(file["kp_detector"], pictures, SMALL, TEMPERATURE)
    motion = vid2vid.head(file["he_estimator"], pictures, SMALL)
    with torch.no_grad():
        canonical, head = extractor.canonical(2 * pictures - 1), extractor.head(2 * pictures - 1)
        found = extractor.keypoints(canonical, head)
    assert points.std() > 0.005
    torch.testing.assert_close(canonical, points, atol=1e-5, rtol=1e-4)
    for i, name in enumerate(("yaw", "pitch", "roll")):
        torch.testing.assert_close(head.logits[:, i], motion[name], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head.translation, motion["t"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head.expression, motion["exp"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, vid2vid.keypoints(points, motion), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("align_corners", [True, False])
def test_renderer_computes_what_the_published_network_does(align_corners: bool) -> None:
    torch.manual_seed(2)
    file = small_file()
    renderer = small_renderer(align_corners=align_corners)
    renderer.load_state_dict(renderer_tensors(file["generator"], "file"), strict=True)
    pictures = torch.rand(2, 3, 16, 32)
    source, driving = torch.rand(2, 3, 3) - 0.5, torch.rand(2, 3, 3) - 0.5
    wanted = vid2vid.render(
        file["generator"], pictures, source, driving, SMALL, align_corners=align_corners
    )
    with torch.no_grad():
        found = renderer(renderer.appearance(2 * pictures - 1), driving, source)
    assert wanted[0].std() > 0.01
    torch.testing.assert_close((found.picture + 1) / 2, wanted[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.occlusion, wanted[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.masks, wanted[2], atol=1e-5, rtol=1e-4)


def test_a_file_is_read_with_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    file = small_file()
    digest = write(
        tmp_path / "v.pth.tar", {**file, "epoch": 3, "optimizer_generator": {"state": {}}}
    )
    monkeypatch.setattr(vid2vid_checkpoint, "MotionExtractor", small_extractor)
    monkeypatch.setattr(vid2vid_checkpoint, "VolumeRenderer", small_renderer)
    extractor, renderer = load_face_vid2vid(str(tmp_path / "v.pth.tar"), digest[:12])
    same = filled(file)
    for found, wanted in zip((extractor, renderer), same, strict=True):
        assert all(torch.equal(v, wanted.state_dict()[k]) for k, v in found.state_dict().items())
    assert extractor.provenance == renderer.provenance == f"file:{digest}"
    assert extractor.spec["convention"] == "hopenet"
    assert renderer.spec["middle_blocks"] == 2
    assert not renderer.align_corners
    assert "path" not in renderer.spec
    again = load_face_vid2vid(str(tmp_path / "v.pth.tar"), align_corners=True)[1]
    assert again.spec["align_corners"]


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    with pytest.raises(ConfigError, match=r"face-vid2vid.*found no file"):
        load_face_vid2vid(str(path))
    write(path, {"kp_detector": {}, "generator": {}})
    with pytest.raises(
        ConfigError, match=r"expected the parts .*he_estimator.*got generator, kp_det"
    ):
        load_face_vid2vid(str(path))
    with pytest.raises(ConfigError, match="expected SHA-256"):
        load_face_vid2vid(str(path), "0" * 64)
    parts: dict[str, dict[str, Tensor]] = {"kp_detector": {}, "he_estimator": {}, "generator": {}}
    write(path, {**parts, "generator": {"resblocks_2d.2dr0.conv1.weight": torch.zeros(1)}})
    with pytest.raises(ConfigError, match="SPADE decoder, got one with plain residual blocks"):
        load_face_vid2vid(str(path))
    write(path, torch.zeros(2))
    with pytest.raises(ConfigError, match="got nothing by name"):
        load_face_vid2vid(str(path))


def test_entries_of_another_network_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"f\.pth does not fit he_estimator .*fc_gaze\.bias"):
        extractor_tensors({}, {"fc_gaze.bias": torch.zeros(1)}, "f.pth")
    with pytest.raises(ConfigError, match=r"fifth\.bias.*pass the file of face-vid2vid"):
        renderer_tensors({"fifth.bias": torch.zeros(1)}, "f.pth")
