from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks import syncnet
from talkhead.networks.syncnet import SYNCNET_V2_SHA256, SyncNet

SMALL: dict[str, Any] = {
    "dim": 6,
    "hidden": 5,
    "image_size": 32,
    "stem_stride": 1,
    "lip_widths": [4, 4, 4, 4, 4, 6],
    "audio_widths": [4, 4, 4, 4, 4, 6],
}
PUBLISHED_BYTES = 54_573_114

# Names and shapes of syncnet_v2.model, written out from the published model definition.
CONVOLUTIONS = {
    "netcnnaud.0": (64, 1, 3, 3),
    "netcnnaud.4": (192, 64, 3, 3),
    "netcnnaud.8": (384, 192, 3, 3),
    "netcnnaud.11": (256, 384, 3, 3),
    "netcnnaud.14": (256, 256, 3, 3),
    "netcnnaud.18": (512, 256, 5, 4),
    "netcnnlip.0": (96, 3, 5, 7, 7),
    "netcnnlip.4": (256, 96, 1, 5, 5),
    "netcnnlip.8": (256, 256, 1, 3, 3),
    "netcnnlip.11": (256, 256, 1, 3, 3),
    "netcnnlip.14": (256, 256, 1, 3, 3),
    "netcnnlip.18": (512, 256, 1, 6, 6),
}
NORMS = {
    "netcnnaud": {1: 64, 5: 192, 9: 384, 12: 256, 15: 256, 19: 512},
    "netcnnlip": {1: 96, 5: 256, 9: 256, 12: 256, 15: 256, 19: 512},
    "netfcaud": {1: 512},
    "netfclip": {1: 512},
}
LINEARS = {0: (512, 512), 3: (1024, 512)}


def published_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in CONVOLUTIONS.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for branch, norms in NORMS.items():
        for number, width in norms.items():
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{branch}.{number}.{part}"] = (width,)
    for branch in ("netfcaud", "netfclip"):
        for number, (outputs, inputs) in LINEARS.items():
            shapes[f"{branch}.{number}.weight"] = (outputs, inputs)
            shapes[f"{branch}.{number}.bias"] = (outputs,)
    return shapes


def made_up_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    random = torch.Generator().manual_seed(0)
    state = {name: 0.1 * torch.rand(shape, generator=random) for name, shape in shapes.items()}
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def small(**options: Any) -> SyncNet:
    torch.manual_seed(0)
    return SyncNet(**{**SMALL, **options}).eval()


def run(frames: int, size: int = 32, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(2, frames, 3, size, size, generator=random) - 1


def cepstra(count: int = 2) -> Tensor:
    return 10 * torch.randn(count, 1, 13, 20, generator=torch.Generator().manual_seed(1))


def test_published_size_has_the_names_shapes_and_weight_of_the_published_file() -> None:
    net = SyncNet()
    shapes = {
        name: tuple(value.shape)
        for name, value in net.state_dict().items()
        if "num_batches_tracked" not in name
    }
    assert shapes == published_shapes()
    count = sum(p.numel() for p in net.parameters())
    by_hand = sum(
        torch.Size(shape).numel()
        for name, shape in published_shapes().items()
        if "running" not in name
    )
    assert count == by_hand == 13_631_616
    # What the file holds beside four bytes a number is names: some kilobytes.
    stored = 4 * sum(torch.Size(shape).numel() for shape in shapes.values())
    assert 0 < PUBLISHED_BYTES - stored < 20_000


def test_published_size_maps_windows_to_1024_numbers() -> None:
    net = SyncNet().eval()
    with torch.no_grad():
        visual, audio = net(run(5, 224)[:1], cepstra(1))
    assert visual.shape == audio.shape == (1, 1024)


def test_the_published_file_loads_by_path(tmp_path: Path) -> None:
    path = tmp_path / "syncnet_v2.model"
    digest = made_up_file(path, published_shapes())
    net = SyncNet(weights_path=str(path), weights_sha256=digest)
    assert net.provenance == f"file:{digest}"
    stored = torch.load(path, weights_only=True)
    for name, value in stored.items():
        assert torch.equal(net.state_dict()[name], value)
    # Any other file than the published one is refused unless its digest is given, or none is wanted.
    with pytest.raises(ConfigError, match=f"expected SHA-256 {SYNCNET_V2_SHA256}"):
        SyncNet(weights_path=str(path))
    assert SyncNet(weights_path=str(path), weights_sha256=None).provenance == net.provenance
    path.unlink()
    again = SyncNet(**net.spec)
    assert again.provenance == net.provenance
    with pytest.raises(ConfigError, match=r"SyncNet \(syncnet_v2.model\).*found no file; download"):
        SyncNet(weights_path=str(path))


def test_other_keys_shapes_and_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.model"
    shapes = published_shapes()
    made_up_file(path, {**shapes, "netfcspk.0.weight": (4, 4)})
    with pytest.raises(ConfigError, match=r"does not fit SyncNet.*netfcspk"):
        SyncNet(weights_path=str(path), weights_sha256=None)
    missing = {name: shape for name, shape in shapes.items() if name != "netcnnlip.0.bias"}
    made_up_file(path, missing)
    with pytest.raises(ConfigError, match=r"netcnnlip.0.bias"):
        SyncNet(weights_path=str(path), weights_sha256=None)
    made_up_file(path, {**shapes, "netcnnaud.0.weight": (64, 3, 3, 3)})
    with pytest.raises(ConfigError, match=r"size mismatch for netcnnaud\.0\.weight"):
        SyncNet(weights_path=str(path), weights_sha256=None)
    made_up_file(path, shapes)
    with pytest.raises(ConfigError, match="change the options to the published size"):
        SyncNet(dim=512, weights_path=str(path), weights_sha256=None)


def test_a_digest_without_a_file_is_refused_unless_it_is_the_default() -> None:
    assert small().provenance == "random"
    with pytest.raises(ConfigError, match="a digest was given without weights_path"):
        small(weights_sha256="0" * 64)


def test_who_judges_is_the_published_network_until_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small().judge == "syncnet"
    shapes = {n: tuple(v.shape) for n, v in small().state_dict().items() if "num_" not in n}
    digest = made_up_file(tmp_path / "w.model", shapes)
    path = str(tmp_path / "w.model")
    assert small(weights_path=path, weights_sha256=digest).judge == "syncnet"
    monkeypatch.setattr(syncnet, "SYNCNET_V2_SHA256", digest)
    net = small(weights_path=path)
    assert net.judge == "syncnet_v2"
    net.note_training()
    assert net.judge == "syncnet"
    assert net.spec["provenance"] == f"trained from file:{digest}"
    net.note_training()
    assert SyncNet(**net.spec).provenance == f"trained from file:{digest}"
    plain = small()
    plain.note_training()
    assert plain.provenance == "random"


def test_pictures_reach_the_first_layer_as_bgr_bytes() -> None:
    net = small()
    seen: list[Tensor] = []
    net.netcnnlip[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pictures = torch.empty(1, 5, 3, 32, 32)
    pictures[:, :, 0], pictures[:, :, 1], pictures[:, :, 2] = -1.0, 0.0, 1.0
    net.visual(pictures)
    assert seen[0].shape == (1, 3, 5, 32, 32)
    assert seen[0].mean((0, 2, 3, 4)).tolist() == [255.0, 127.5, 0.0]


def test_a_run_is_the_row_of_its_windows() -> None:
    net = small()
    for part in net.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(part.running_mean, -1, 1)  # type: ignore[arg-type]  # tracked here
    frames = run(9)
    whole = net.visual(frames)
    assert whole.shape == (2, 5, 6)
    for i in range(5):
        alone, _ = net(frames[:, i : i + 5], cepstra())
        torch.testing.assert_close(whole[:, i], alone, rtol=1e-4, atol=1e-5)


def test_time_order_matters() -> None:
    net = small()
    frames = run(5)
    assert not torch.allclose(net.visual(frames), net.visual(frames.flip(1)), atol=1e-4)
    assert not torch.allclose(net.audio(cepstra()), net.audio(cepstra().flip(3)), atol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [(29, 1), (64, 1), (51, 2), (96, 2), (224, 2)])
def test_any_size_down_to_the_smallest(size: int, stride: int) -> None:
    net = small(image_size=size, stem_stride=stride)
    assert net.visual(run(5, size)).shape == (2, 1, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 28}, "expected at least 29 pixels with stem_stride 1, got 28"),
        ({"image_size": 50, "stem_stride": 2}, "expected at least 51 pixels"),
        ({"stem_stride": 3}, "stem_stride: expected 1 or 2, got 3"),
        ({"lip_widths": [4, 4]}, "lip_widths: expected 6 channels"),
        ({"audio_widths": [4]}, "audio_widths: expected 6 channels"),
    ],
)
def test_options_that_cannot_be_built_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


@pytest.mark.parametrize(
    "shape", [(2, 4, 3, 32, 32), (2, 3, 5, 32, 32), (5, 3, 32, 32), (2, 5, 3, 16, 16)]
)
def test_other_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected runs of at least 5 frames \(n, T, 3, 32, 32\)"):
        small().visual(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 1, 20, 13), (2, 13, 20), (2, 1, 13, 16)])
def test_other_sounds_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected cepstral windows \(n, 1, 13, 20\)"):
        small().audio(torch.zeros(shape))


def test_gradients_reach_the_pictures_and_bf16_stays_finite() -> None:
    net = small()
    pictures = run(5).requires_grad_()
    net.visual(pictures).square().sum().backward()
    assert pictures.grad is not None
    assert float(pictures.grad.abs().sum()) > 0
    with torch.autocast("cpu", torch.bfloat16):
        visual, audio = net(run(5), cepstra())
    assert bool(torch.isfinite(visual).all())
    assert bool(torch.isfinite(audio).all())
