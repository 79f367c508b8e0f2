from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.disentangle import MemoryBank, orthogonal_loss, pearson_matrix


def _codes(n: int, dv: int, da: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    make = lambda d: torch.randn(n, d, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(dv), make(da)


def test_hand_computed_value() -> None:
    visual = torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    audio = torch.tensor([[2.0], [4.0], [6.0]])
    assert pearson_matrix(visual, audio).flatten().tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    # One of two visual dimensions is the sound itself: (1 + 0) / 2.
    assert orthogonal_loss(visual, audio).item() == pytest.approx(0.5, abs=1e-6)
    # One of two: repeated audio dimensions count again, as the paper divides by d_v only.
    assert orthogonal_loss(visual, audio.expand(3, 4)).item() == pytest.approx(2.0, abs=1e-6)


def test_matrix_is_numpys() -> None:
    visual, audio = _codes(30, 4, 3)
    both = np.corrcoef(visual.numpy().T, audio.numpy().T)
    assert np.allclose(pearson_matrix(visual, audio).numpy(), both[:4, 4:], atol=1e-6)


def test_invariant_to_shift_scale_sign_and_row_order() -> None:
    visual, audio = _codes(20, 4, 3)
    base = orthogonal_loss(visual, audio)
    assert torch.allclose(orthogonal_loss(5 * visual + 2, audio), base, rtol=1e-5)
    assert torch.allclose(orthogonal_loss(visual, -0.5 * audio - 7), base, rtol=1e-5)
    assert torch.allclose(orthogonal_loss(1e-7 * visual, 1e5 * audio), base, rtol=1e-5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonal_loss(visual[order], audio[order]), base)


@pytest.mark.parametrize("rows", [16, 512])
def test_chance_level_of_independent_codes(rows: int) -> None:
    visual, audio = _codes(rows, 64, 512)
    assert orthogonal_loss(visual, audio).item() == pytest.approx(512 / (rows - 1), rel=0.05)


def test_dead_dimensions_and_single_rows_give_zero_and_finite_gradients() -> None:
    visual, audio = _codes(6, 3, 2)
    visual[:, 1] = 0.25
    visual.requires_grad_(True)
    matrix = pearson_matrix(visual, audio)
    assert matrix[1].abs().max() < 1e-6
    matrix.square().sum().backward()
    assert visual.grad is not None
    assert torch.isfinite(visual.grad).all()
    constant = torch.full((7, 3), 0.3)
    assert orthogonal_loss(constant, audio[:1].float().expand(7, 2)).item() < 1e-3
    assert orthogonal_loss(torch.ones(1, 3), torch.ones(1, 2)).item() == 0


def test_gradcheck() -> None:
    visual, audio = _codes(5, 3, 2)
    visual.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: orthogonal_loss(v, audio), (visual,))


def test_bfloat16_and_autocast_are_computed_in_float32() -> None:
    visual, audio = _codes(32, 8, 8)
    exact = orthogonal_loss(visual.float(), audio.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(orthogonal_loss(visual.float(), audio.float()), exact)
    rough = orthogonal_loss(visual.to(torch.bfloat16), audio.to(torch.bfloat16))
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)


def test_loss_errors() -> None:
    for visual, audio in [((3, 2), (4, 2)), ((3, 2, 1), (3, 2)), ((0, 2), (0, 2))]:
        with pytest.raises(ShapeError, match="of the same rows"):
            pearson_matrix(torch.zeros(visual), torch.zeros(audio))


# -- memory bank
# -------------------------------------------------------------------------------------


def test_bank_holds_the_last_steps_in_order() -> None:
    bank = MemoryBank(steps=3)
    for step in range(5):
        rows = torch.full((2, 1), float(step))
        visual, audio = bank(rows, 10 * rows)
        first = max(0, step - 2)
        assert visual[:, 0].tolist() == [float(s) for s in range(first, step + 1) for _ in range(2)]
        assert torch.equal(audio, 10 * visual)
    assert bank.rows == 4


def test_only_current_visual_rows_carry_gradient() -> None:
    bank = MemoryBank(steps=4)
    old = torch.randn(3, 2, requires_grad=True)
    bank(old, torch.randn(3, 2))
    now, sound = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    visual, audio = bank(now, sound)
    orthogonal_loss(visual, audio).backward()
    assert not audio.requires_grad
    assert old.grad is None
    assert sound.grad is None
    assert now.grad is not None
    assert now.grad.abs().sum() > 0


def test_one_step_is_no_memory_and_eval_does_not_store() -> None:
    bank = MemoryBank(steps=1)
    bank(torch.ones(2, 1), torch.ones(2, 1))
    assert bank.rows == 0
    bank = MemoryBank(steps=4)
    bank(torch.ones(2, 1), torch.ones(2, 1))
    bank.eval()
    visual, _ = bank(torch.zeros(3, 1), torch.zeros(3, 1))
    assert len(visual) == 5
    assert bank.rows == 2


def test_later_changes_of_a_batch_do_not_reach_the_bank() -> None:
    bank = MemoryBank(steps=2)
    rows = torch.ones(1, 1)
    bank(rows, rows)
    rows.zero_()
    assert bank(torch.ones(1, 1), torch.ones(1, 1))[0].tolist() == [[1.0], [1.0]]


def test_state_goes_through_a_safe_checkpoint() -> None:
    stage = nn.ModuleDict({"bank": MemoryBank(steps=4), "head": nn.Linear(2, 2)})
    bank = stage["bank"]
    for step in range(3):
        bank(torch.full((2, 2), float(step)), torch.full((2, 3), float(step)))
    file = io.BytesIO()
    torch.save(stage.state_dict(), file)
    file.seek(0)
    fresh = nn.ModuleDict({"bank": MemoryBank(steps=4), "head": nn.Linear(2, 2)})
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    batch = torch.randn(2, 2), torch.randn(2, 3)
    for mine, theirs in zip(bank(*batch), fresh["bank"](*batch), strict=True):
        assert torch.equal(mine, theirs)
    short = MemoryBank(steps=2)
    short.load_state_dict(MemoryBank(steps=4).state_dict())
    short.set_extra_state(stage["bank"].get_extra_state())
    assert short.rows == 2


def test_bank_errors() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        MemoryBank(steps=0)
    bank = MemoryBank()
    with pytest.raises(ShapeError, match="use one bank per pair"):
        bank(torch.ones(2, 3), torch.ones(3, 3))
    bank(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ShapeError, match="as stored before"):
        bank(torch.ones(2, 4), torch.ones(2, 3))
