from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from talkhead.errors import ConfigError
from talkhead.networks.component import Component, weights_digest


class Small(Component):
    def __init__(self, dim: int = 3, widths: tuple[int, ...] = (4, 5), name: str = "a") -> None:
        super().__init__()
        self.linear = nn.Linear(dim, widths[0])
        self.norm = nn.BatchNorm1d(widths[0])


class Child(Small):
    def __init__(self, dim: int, *, gain: float = 0.5) -> None:
        super().__init__(dim + 1, widths=(2,))
        self.gain = gain


class Heir(Small):
    """No constructor of its own."""


class Loaded(Component):
    transient = ("path",)

    def __init__(self, path: str | None = None, origin: str = "random") -> None:
        super().__init__()
        self.amend_spec(origin="file" if path else origin)


def test_spec_holds_defaults_and_turns_tuples_into_lists() -> None:
    assert Small(7).spec == {"dim": 7, "widths": [4, 5], "name": "a"}
    assert Small(widths=(2, 1), name="b").spec == {"dim": 3, "widths": [2, 1], "name": "b"}


def test_rebuild_from_spec_takes_the_state_dict() -> None:
    module = Child(2, gain=0.25)
    assert module.spec == {"dim": 2, "gain": 0.25}
    again = Child(**module.spec)
    again.load_state_dict(module.state_dict(), strict=True)
    assert weights_digest(again) == weights_digest(module)
    assert again.linear.in_features == 3


def test_inherited_constructor_records_too() -> None:
    assert Heir(name="z").spec["name"] == "z"


def test_spec_is_a_copy_and_survives_deepcopy() -> None:
    module = Small()
    module.spec["widths"].append(9)
    assert module.spec["widths"] == [4, 5]
    assert copy.deepcopy(module).spec == module.spec


def test_transient_arguments_leave_the_spec() -> None:
    module = Loaded("weights.pt")
    assert module.spec == {"origin": "file"}
    assert Loaded(**module.spec).spec == {"origin": "file"}


@pytest.mark.parametrize("value", [{"a": 1}, np.float64(1.0), torch.zeros(2), [{}]])
def test_refuses_values_a_safe_checkpoint_cannot_hold(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"Small\(name=…\) expected a number"):
        Small(name=value)


def test_refuses_swallowed_arguments() -> None:
    with pytest.raises(TypeError, match="must name its arguments"):

        class Greedy(Component):
            def __init__(self, **kwargs: int) -> None:
                super().__init__()


def test_amend_refuses_unknown_names() -> None:
    with pytest.raises(ConfigError, match="no argument 'colour'"):
        Small().amend_spec(colour=1)


def test_unknown_argument_is_an_ordinary_type_error() -> None:
    with pytest.raises(TypeError, match="wdths"):
        Small(wdths=[1])  # type: ignore[call-arg]  # the point of the test


def test_digest_sees_weights_buffers_spec_and_type() -> None:
    module = Small()
    seen = {weights_digest(module)}
    with torch.no_grad():
        module.linear.bias[0] += 1e-3
    seen.add(weights_digest(module))
    assert module.norm.num_batches_tracked is not None
    module.norm.num_batches_tracked += 1
    seen.add(weights_digest(module))
    seen.add(weights_digest(copy.deepcopy(module).to(torch.bfloat16)))
    module.amend_spec(name="other")
    seen.add(weights_digest(module))
    assert len(seen) == 5


def test_digest_of_a_plain_module() -> None:
    linear = nn.Linear(2, 2)
    assert weights_digest(linear) == weights_digest(copy.deepcopy(linear))
    assert len(weights_digest(linear)) == 64


class Strided(Component):
    """A 1 x 1 convolution with a stride, as ResNets shorten their skip connections."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, stride=2)
        self.wide = nn.Conv2d(channels, 8, 3)


@pytest.mark.parametrize(("channels", "channels_last"), [(8, True), (4, False)])
def test_convolutions_are_channels_last_where_that_is_safe(
    channels: int, channels_last: bool
) -> None:
    module = Strided(channels)
    assert module.wide.weight.is_contiguous(memory_format=torch.channels_last) is channels_last
    plain = copy.deepcopy(module)
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not in its stub
    x = torch.randn(2, channels, 8, 8)
    torch.testing.assert_close(module.wide(x), plain.wide(x))
    assert weights_digest(module) == weights_digest(plain)


class OverTime(Component):
    def __init__(self) -> None:
        super().__init__()
        self.picture = nn.Conv2d(8, 8, 3)
        self.run = nn.Conv3d(8, 8, (2, 3, 3))


def test_convolutions_over_time_keep_their_layout() -> None:
    module = OverTime()
    assert module.run.weight.is_contiguous()
    assert module.picture.weight.is_contiguous()
