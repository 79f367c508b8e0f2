from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import vgg19

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.perceptual import GazeFeatures, VGG19Features, crop, face_boxes


def _small_gaze(box: list[float] | None = None, weights_path: str | None = None) -> GazeFeatures:
    torch.manual_seed(0)
    return GazeFeatures("resnet18", 64, box, width=8, weights_path=weights_path).eval()


def test_vgg_taps_are_the_named_relus() -> None:
    with torch.device("meta"):
        ours, theirs = VGG19Features(), vgg19(weights=None)
        taps = ours(torch.empty(1, 3, 64, 64))
    assert [t.shape[1] for t in taps] == [64, 128, 256, 512, 512]
    assert [t.shape[-1] for t in taps] == [64, 32, 16, 8, 4]
    kinds = [type(layer) for layer in theirs.features[:30]]
    # relu1_1, 2_1, ...: the first ReLU of the net and the first behind every pooling.
    first = [1, *[i + 2 for i, k in enumerate(kinds) if k is nn.MaxPool2d]]
    assert first == [1, 6, 11, 20, 29]
    assert ours.provenance == "random"


def test_vgg_reads_torchvisions_file(tmp_path: Path) -> None:
    # The layout of the file at a thousandth of its size: every tensor shares one number.
    with torch.device("meta"):
        state = vgg19(weights=None).state_dict()
    torch.save({k: torch.zeros(1).expand(v.shape) for k, v in state.items()}, tmp_path / "vgg.pth")
    network = VGG19Features(weights_path=str(tmp_path / "vgg.pth"))
    assert network.provenance.startswith("file:")
    assert all(not p.any() for p in network.parameters())


def test_vgg_with_the_statistics_it_was_trained_with() -> None:
    """The very picture of ImageNet's means is zero; a deviation above them is one."""
    torch.manual_seed(0)
    plain, standard = VGG19Features(), VGG19Features(imagenet_statistics=True)
    standard.load_state_dict(plain.state_dict())
    mean, std = (
        torch.tensor(x)[None, :, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    pictures = (2 * (mean + 0.5 * std) - 1).expand(1, 3, 16, 16)
    with torch.no_grad():
        found, wanted = standard(pictures), plain(torch.full((1, 3, 16, 16), 0.5))
    torch.testing.assert_close(found, wanted)
    assert VGG19Features(**standard.spec).imagenet_statistics


def test_gaze_feature_size_is_that_of_the_backbone() -> None:
    with torch.device("meta"):
        network = GazeFeatures(size=64)
        assert network.dim == 2048
        assert network(torch.empty(1, 3, 64, 64)).shape == (1, 2048)
    assert GazeFeatures("resnet18", size=64, width=8).dim == 64


def test_gaze_reads_an_l2cs_file(tmp_path: Path) -> None:
    state = _small_gaze().trunk.state_dict()
    state |= {"fc_yaw_gaze.weight": torch.ones(90, 64), "fc_finetune.bias": torch.ones(3)}
    torch.save(state, tmp_path / "l2cs.pkl")
    loaded = _small_gaze(weights_path=str(tmp_path / "l2cs.pkl"))
    assert loaded.provenance.startswith("file:")
    assert torch.equal(loaded.trunk.state_dict()["conv1.weight"], state["conv1.weight"])


def test_crop_of_everything_is_the_picture_and_of_a_quarter_its_pixels() -> None:
    picture = torch.rand(2, 3, 8, 8)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    assert torch.allclose(crop(picture, whole, 8), picture, atol=1e-6)
    quarter = torch.tensor([[0.5, 0.0, 1.0, 0.5]]).expand(2, 4)
    assert torch.allclose(crop(picture, quarter, 4), picture[:, :, :4, 4:], atol=1e-6)


def test_crop_is_differentiable() -> None:
    picture = torch.rand(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    box = torch.tensor([[0.1, 0.2, 0.8, 0.9]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: crop(p, box, 4), (picture,))


def test_face_box_is_the_grown_square_around_the_landmarks() -> None:
    landmarks = torch.tensor([[[0.4, 0.3, 9.0], [0.6, 0.7, -9.0], [0.5, 0.5, 0.0]]])
    assert face_boxes(landmarks, margin=1.5)[0].tolist() == pytest.approx([0.2, 0.2, 0.8, 0.8])
    with pytest.raises(ShapeError, match="expected landmarks"):
        face_boxes(landmarks[0])


def test_pixels_outside_the_face_do_not_matter() -> None:
    network = _small_gaze()
    landmarks = torch.rand(2, 478, 3) * 0.2 + 0.4
    picture = torch.rand(2, 3, 64, 64) * 2 - 1
    other = picture.clone()
    other[..., :16, :] = 0
    with torch.no_grad():
        assert torch.equal(network(picture, landmarks), network(other, landmarks))
        assert not torch.equal(network(picture), network(other))


def test_fixed_region_and_errors() -> None:
    network = _small_gaze(box=[0.25, 0.25, 0.75, 0.75])
    picture = torch.rand(1, 3, 64, 64)
    other = picture.clone()
    other[..., -8:] = 0
    with torch.no_grad():
        assert torch.equal(network(picture), network(other))
    with pytest.raises(ConfigError, match="x0 < x1"):
        _small_gaze(box=[0.5, 0.0, 0.5, 1.0])
    with pytest.raises(ConfigError, match="expected resnet18, resnet34, resnet50"):
        GazeFeatures("vgg")  # type: ignore[arg-type]  # the point of the test
    again = GazeFeatures(**network.spec)
    assert again.box == network.box
