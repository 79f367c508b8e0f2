from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import inception_v3

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.inception import INCEPTION_SHA256, InceptionFeatures
from tests.oracles.inception import inception_features


def test_features_are_those_of_the_layers_written_out() -> None:
    torch.manual_seed(0)
    network = InceptionFeatures().eval()
    with torch.no_grad():
        for name, value in network.network.state_dict().items():
            if name.endswith(("running_mean", "bn.bias")):
                value.normal_(0, 0.1)
            elif name.endswith(("running_var", "bn.weight")):
                value.uniform_(0.5, 1.5)
        pictures = torch.rand(1, 3, 299, 299)
        ours = network(pictures)
        theirs = inception_features(pictures, network.network.state_dict())
    assert ours.shape == (1, network.dim)
    assert ours.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def test_reads_the_published_layout_and_says_that_it_is_not_published(tmp_path: Path) -> None:
    # The layout of the file at a thousandth of its size: every tensor shares one number.
    with torch.device("meta"):
        state = inception_v3(
            weights=None, num_classes=1008, aux_logits=False, init_weights=False
        ).state_dict()
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    file = tmp_path / "pt_inception.pth"
    torch.save({k: torch.zeros(1).expand(v.shape) for k, v in kept.items()}, file)
    with pytest.raises(ConfigError, match=f"expected SHA-256 {INCEPTION_SHA256}"):
        InceptionFeatures(weights_path=str(file))
    network = InceptionFeatures(weights_path=str(file), weights_sha256=None)
    assert network.provenance.startswith("file:")
    assert network.judge == "inception"
    assert all(not p.any() for p in network.parameters())
    with torch.device("meta"):
        assert InceptionFeatures().judge == "inception"
        published = InceptionFeatures(provenance=f"file:{INCEPTION_SHA256}{'0' * 56}")
    assert published.judge == "inception_v3"


def test_takes_pictures_of_any_size_and_nothing_else() -> None:
    with torch.device("meta"):
        network = InceptionFeatures()
        assert network(torch.empty(2, 3, 64, 80)).shape == (2, 2048)
        with pytest.raises(ShapeError, match="pictures"):
            network(torch.empty(2, 1, 64, 64))
