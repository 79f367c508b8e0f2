from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from talkhead.errors import ConfigError
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.pretrained import load_pretrained

SMALL: dict[str, Any] = {
    "layers": [1, 1, 1, 1],
    "groups": 2,
    "width_per_group": 16,
    "width": 8,
    "dim": 16,
    "map_channels": 4,
    "map_size": 2,
    "image_size": 64,
}


def _write(path: Path, state: object) -> str:
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_fills_a_backbone_and_names_the_file_by_its_digest(tmp_path: Path) -> None:
    source = nn.Linear(3, 2)
    state = {f"net.{k}": v for k, v in source.state_dict().items()} | {"fc.weight": torch.ones(5)}
    digest = _write(tmp_path / "w.pt", state)
    target = nn.Linear(3, 2)
    found = load_pretrained(
        target, str(tmp_path / "w.pt"), digest[:12].upper(), "a", ignore=("fc.",), strip="net."
    )
    assert found == f"file:{digest}"
    assert torch.equal(target.weight, source.weight)


def test_files_without_batch_counters_load(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(2)
    state = {k: v + 1 for k, v in norm.state_dict().items() if "num_batches" not in k}
    _write(tmp_path / "w.pt", {"state_dict": state})
    load_pretrained(norm, str(tmp_path / "w.pt"), None, "a norm")
    assert norm.running_var is not None
    assert norm.running_var.tolist() == [2.0, 2.0]


def test_without_a_file_it_says_random() -> None:
    linear = nn.Linear(2, 2)
    before = linear.weight.clone()
    assert load_pretrained(linear, None, None, "a") == "random"
    assert torch.equal(linear.weight, before)
    with pytest.raises(ConfigError, match="a digest was given without weights_path"):
        load_pretrained(linear, None, "0" * 64, "a")


def test_missing_file_names_itself_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resnext50.*nothing\.pth.*found no file; download"):
        IdentityEncoder(**SMALL, weights_path=str(tmp_path / "nothing.pth"))


def test_wrong_digest_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "w.pt", nn.Linear(2, 2).state_dict())
    for wrong in ("0" * 64, "12"):
        with pytest.raises(ConfigError, match="expected SHA-256"):
            load_pretrained(nn.Linear(2, 2), str(tmp_path / "w.pt"), wrong, "a")


def test_other_shapes_or_names_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "w.pt", nn.Linear(3, 2).state_dict())
    with pytest.raises(ConfigError, match="does not fit a head: size mismatch"):
        load_pretrained(nn.Linear(2, 2), str(tmp_path / "w.pt"), None, "a head")
    _write(tmp_path / "more.pt", nn.Linear(2, 2).state_dict() | {"extra": torch.ones(1)})
    with pytest.raises(ConfigError, match="extra"):
        load_pretrained(nn.Linear(2, 2), str(tmp_path / "more.pt"), None, "a head")


class _Code:
    """Not a tensor."""


@pytest.mark.parametrize("content", [b"", b"no weights at all", _Code()])
def test_anything_but_tensors_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"x": content}, path)
    with pytest.raises(ConfigError, match="truncated or holds code"):
        load_pretrained(nn.Linear(2, 2), str(path), None, "a")


def test_plain_values_are_no_state_dict(tmp_path: Path) -> None:
    _write(tmp_path / "w.pt", {"epoch": 3})
    with pytest.raises(ConfigError, match="expected a state dict"):
        load_pretrained(nn.Linear(2, 2), str(tmp_path / "w.pt"), None, "a")


def test_provenance_outlives_the_file(tmp_path: Path) -> None:
    state = IdentityEncoder(**SMALL).trunk.state_dict() | {"fc.bias": torch.zeros(1000)}
    digest = _write(tmp_path / "w.pt", state)
    encoder = IdentityEncoder(**SMALL, weights_path=str(tmp_path / "w.pt"), weights_sha256=digest)
    assert encoder.provenance == f"file:{digest}"
    assert torch.equal(encoder.trunk.state_dict()["conv1.weight"], state["conv1.weight"])
    (tmp_path / "w.pt").unlink()
    again = IdentityEncoder(**encoder.spec)
    again.load_state_dict(encoder.state_dict(), strict=True)
    assert "weights_path" not in encoder.spec
    assert again.provenance == encoder.provenance
    assert IdentityEncoder(**SMALL).provenance == "random"
