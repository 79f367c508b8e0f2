from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import alexnet

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.lpips import LPIPSNetwork, bundled_linear_weights


def _pictures(seed: int, side: int = 64) -> Tensor:
    return 2 * torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(seed)) - 1


def _alexnet_file(folder: Path) -> Path:
    """Torchvision's names and shapes; of the classifier, nine tenths of the published file, one number."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in alexnet(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {
        k: torch.zeros(1).expand(shape)
        if k.startswith("classifier")
        else torch.randn(shape, generator=generator) / max(1.0, shape[1:].numel() ** 0.5)
        for k, shape in shapes.items()
    }
    torch.save(state, folder / "alexnet.pth")
    return folder / "alexnet.pth"


def test_torchmetrics_finds_the_same_distance(tmp_path: Path) -> None:
    linear = bundled_linear_weights()
    assert linear is not None
    file = _alexnet_file(tmp_path)
    ours = LPIPSNetwork(str(file), None, linear).eval()
    theirs = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    state = torch.load(file, weights_only=True)
    parts = {
        k: state[f"features.{k.split('.', 1)[1]}"] for k in theirs.net.state_dict() if "slice" in k
    }
    theirs.net.load_state_dict(parts)
    with torch.no_grad():
        expected = theirs(_pictures(0), _pictures(1)).flatten()
        found = ours(_pictures(0), _pictures(1))
    assert found.min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert ours.provenance.startswith("file:")
    assert ours.linear_provenance.startswith("file:")
    rebuilt = LPIPSNetwork(**ours.spec)
    assert rebuilt.provenance == ours.provenance


def test_equal_pictures_are_at_distance_zero_and_order_does_not_matter() -> None:
    torch.manual_seed(0)
    network = LPIPSNetwork().eval()
    assert network.provenance == "random"
    a, b = _pictures(0), _pictures(1)
    with torch.no_grad():
        assert network(a, a).tolist() == [0.0] * 3
        torch.testing.assert_close(network(a, b), network(b, a))


def test_refuses_other_weights_and_shapes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected SHA-256 7be5be79"):
        LPIPSNetwork(str(_alexnet_file(tmp_path)))
    negative = {
        f"lin{i}.model.1.weight": -torch.ones(1, c, 1, 1)
        for i, c in enumerate((64, 192, 384, 256, 256))
    }
    torch.save(negative, tmp_path / "lin.pth")
    with pytest.raises(ConfigError, match="at least 0"):
        LPIPSNetwork(linear_path=str(tmp_path / "lin.pth"))
    with torch.device("meta"):
        network = LPIPSNetwork()
        with pytest.raises(ShapeError, match="at least 35"):
            network(torch.empty(1, 3, 32, 32), torch.empty(1, 3, 32, 32))
        with pytest.raises(ShapeError, match="two stacks"):
            network(torch.empty(1, 3, 64, 64), torch.empty(2, 3, 64, 64))
        assert network(torch.empty(2, 3, 35, 35), torch.empty(2, 3, 35, 35)).shape == (2,)
