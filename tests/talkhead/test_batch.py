import pytest
import torch

from talkhead.batch import to_bytes, to_float
from talkhead.errors import ShapeError


def test_bytes_survive_the_round_trip() -> None:
    every = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(3, 16, 16)
    assert torch.equal(to_bytes(to_float(every)), every)


def test_range_is_minus_one_to_one() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).repeat(3, 1).reshape(3, 1, 2)
    assert to_float(ends)[0].tolist() == [[-1.0, 1.0]]
    assert to_bytes(torch.full((3, 1, 1), 7.0)).max() == 255


@pytest.mark.parametrize(
    "bad", [torch.zeros(3, 4, 4), torch.zeros(4, 4, 4, dtype=torch.uint8), torch.zeros(3, 4)]
)
def test_other_layouts_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"expected uint8 pictures"):
        to_float(bad)
