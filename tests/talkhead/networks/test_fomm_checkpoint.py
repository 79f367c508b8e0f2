from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError
from talkhead.geometry.keypoints import Keypoints
from talkhead.networks.fomm_checkpoint import DETECTOR_KEYS, RENDERER_KEYS, load_fomm, renamed
from talkhead.networks.keypoint_detector import KeypointDetector
from talkhead.networks.keypoint_renderer import KeypointRenderer
from tests.oracles import fomm

SMALL = fomm.Sizes(
    keypoints=3,
    width=4,
    max_width=12,
    blocks=2,
    paint_width=4,
    paint_max_width=6,
    downs=1,
    residuals=2,
    motion_width=4,
    motion_max_width=12,
    motion_blocks=2,
    step=2,
)
VARIANCE, TEMPERATURE = 0.05, 0.3


def small_detector() -> KeypointDetector:
    s = SMALL
    return KeypointDetector(
        s.keypoints, s.width, s.max_width, s.blocks, 1 / s.step, TEMPERATURE
    ).eval()


def small_renderer(align_corners: bool) -> KeypointRenderer:
    s = SMALL
    return KeypointRenderer(
        keypoints=s.keypoints,
        width=s.paint_width,
        max_width=s.paint_max_width,
        downs=s.downs,
        residual_blocks=s.residuals,
        motion_width=s.motion_width,
        motion_max_width=s.motion_max_width,
        motion_blocks=s.motion_blocks,
        scale=1 / s.step,
        variance=VARIANCE,
        align_corners=align_corners,
    ).eval()


def some_keypoints(n: int) -> Keypoints:
    jacobians = torch.eye(2) + 0.2 * torch.randn(n, SMALL.keypoints, 2, 2)
    return Keypoints(torch.rand(n, SMALL.keypoints, 2) - 0.5, jacobians)


def full_file() -> dict[str, Any]:
    """All names and shapes of the published file, each entry one number of its own, stored once."""
    shapes = {
        "kp_detector": fomm.detector_shapes(fomm.Sizes()),
        "generator": fomm.generator_shapes(fomm.Sizes()),
    }
    value = 0
    file: dict[str, Any] = {}
    for part, entries in shapes.items():
        file[part] = {}
        for name, shape in entries.items():
            value += 1
            file[part][name] = torch.tensor(float(value)).expand(shape)
    return file


def write(path: Path, content: object) -> str:
    torch.save(content, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_full_sizes_are_those_of_the_published_file() -> None:
    """228 MB is the size under which vox-adv-cpk.pth.tar is known."""
    numbers = sum(t.numel() for part in full_file().values() for t in part.values())
    assert round(4 * numbers / 2**20) == 228


def test_every_entry_of_a_full_file_finds_its_place(tmp_path: Path) -> None:
    file = full_file()
    # What else such files hold is left aside.
    extra = {
        "epoch": 3,
        "discriminator": {"x": torch.ones(1)},
        "optimizer_generator": {"state": {}},
    }
    digest = write(tmp_path / "vox.pth.tar", file | extra)
    detector, renderer = load_fomm(str(tmp_path / "vox.pth.tar"), digest[:12])
    values = sorted(
        float(v.flatten()[0]) for m in (detector, renderer) for v in m.state_dict().values()
    )
    assert values == [float(i + 1) for i in range(len(values))]
    assert len(values) == sum(map(len, file.values()))
    own, painted = detector.state_dict(), renderer.state_dict()
    for theirs, ours in (
        ("predictor.encoder.down_blocks.4.conv.bias", "hourglass.encoder.4.conv.bias"),
        ("predictor.decoder.up_blocks.0.norm.running_var", "hourglass.decoder.0.norm.running_var"),
        ("kp.weight", "heat.weight"),
        ("down.weight", "down.weight"),
    ):
        assert torch.equal(own[ours], file["kp_detector"][theirs])
    for theirs, ours in (
        ("dense_motion_network.mask.weight", "motion.mask.weight"),
        ("bottleneck.r5.conv2.weight", "residuals.5.conv2.weight"),
        ("up_blocks.1.conv.weight", "ups.1.conv.weight"),
        ("dense_motion_network.down.weight", "down.weight"),
    ):
        assert torch.equal(painted[ours], file["generator"][theirs])
    assert detector.provenance == renderer.provenance == f"file:{digest}"
    assert renderer.align_corners
    assert "path" not in detector.spec


def test_detector_computes_what_the_published_network_does() -> None:
    torch.manual_seed(0)
    state = fomm.random_state(fomm.detector_shapes(SMALL), SMALL.step)
    detector = small_detector()
    detector.load_state_dict(renamed(state, DETECTOR_KEYS, "file", "it"), strict=True)
    pictures = torch.rand(2, 3, 24, 32)
    points, jacobians = fomm.detect(state, pictures, SMALL, TEMPERATURE)
    with torch.no_grad():
        found = detector(2 * pictures - 1)
    assert points.std() > 0.01
    torch.testing.assert_close(found.points, points, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.jacobians, jacobians, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("align_corners", [True, False])
def test_renderer_computes_what_the_published_network_does(align_corners: bool) -> None:
    torch.manual_seed(1)
    state = fomm.random_state(fomm.generator_shapes(SMALL), SMALL.step)
    renderer = small_renderer(align_corners)
    renderer.load_state_dict(renamed(state, RENDERER_KEYS, "file", "it"), strict=True)
    pictures, source, driving = torch.rand(2, 3, 16, 24), some_keypoints(2), some_keypoints(2)
    wanted = fomm.render(
        state, pictures, source, driving, SMALL, variance=VARIANCE, align_corners=align_corners
    )
    with torch.no_grad():
        found = renderer(2 * pictures - 1, source, driving)
    assert wanted.std() > 0.01
    torch.testing.assert_close((found + 1) / 2, wanted, atol=1e-5, rtol=1e-4)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    with pytest.raises(ConfigError, match=r"First Order Motion Model.*found no file"):
        load_fomm(str(path))
    write(path, {"generator": {}, "epoch": 1})
    with pytest.raises(ConfigError, match=r"expected the parts kp_detector and generator.*epoch"):
        load_fomm(str(path))
    write(path, torch.zeros(2))
    with pytest.raises(ConfigError, match="got nothing by name"):
        load_fomm(str(path))
    with pytest.raises(ConfigError, match="expected SHA-256"):
        load_fomm(str(path), "0" * 64)
    write(path, {"kp_detector": {"kp.weight": 3}, "generator": {}})
    with pytest.raises(ConfigError, match="expected a state dict of kp_detector"):
        load_fomm(str(path))


def test_entries_of_another_network_are_refused_by_name() -> None:
    entries: dict[str, Tensor] = {"kp.weight": torch.zeros(1), "he_estimator.fc": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"f\.pth does not fit it: it holds he_estimator\.fc"):
        renamed(entries, DETECTOR_KEYS, "f.pth", "it")


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    file = full_file()
    file["kp_detector"]["kp.weight"] = torch.zeros(1).expand(15, 35, 7, 7)
    write(tmp_path / "f.pth", file)
    with pytest.raises(ConfigError, match=r"does not fit kp_detector of .*size mismatch"):
        load_fomm(str(tmp_path / "f.pth"))
