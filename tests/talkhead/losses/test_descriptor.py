import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.losses.descriptor import DescriptorHead, shift_motion


def head() -> DescriptorHead:
    made = DescriptorHead(3, 2)
    with torch.no_grad():
        made.linear.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
        made.linear.bias.zero_()
    made.set_statistics(torch.tensor([10.0, 0.0]), torch.tensor([2.0, 4.0]))
    return made


def test_error_is_measured_in_standard_deviations() -> None:
    # predicted (1, 4); wanted ((14 - 10) / 2, (8 - 0) / 4) = (2, 2): (1 + 4) / 2
    loss = head()(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[14.0, 8.0]]))
    assert loss.item() == pytest.approx(2.5)


def test_knowing_only_the_mean_scores_one() -> None:
    motion = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)) * 3 + 5
    made = DescriptorHead(3, 2)
    made.set_statistics(motion.mean(0), motion.std(0))
    with torch.no_grad():
        made.linear.bias.zero_()
    assert made(torch.zeros(20_000, 3), motion).item() == pytest.approx(1.0, abs=1e-3)


def test_other_widths_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected statistics of 2 descriptors, got 5"):
        head().set_statistics(torch.zeros(5), torch.ones(5))
    with pytest.raises(ShapeError, match=r"expected descriptors \(1, 2\), got \(1, 3\)"):
        head()(torch.zeros(1, 3), torch.zeros(1, 3))


def test_a_shift_moves_the_translation_alone() -> None:
    motion = torch.arange(12.0).reshape(2, 6)
    before = torch.rand(2, 478, 3)
    after = before + torch.tensor([0.25, -0.5, 0.0])
    moved = shift_motion(motion, before, after) - motion
    expected = torch.tensor([0, 0, 0, 0.25, -0.5, 0]).expand(2, 6)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)
