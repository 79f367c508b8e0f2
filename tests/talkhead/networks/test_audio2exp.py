from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.audio2exp import FULL_SIZE, Audio2Exp

N, K, A = 5, 4, 6


def some(seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(N, K, 3, generator=random), torch.randn(N, A, generator=random)


def trained() -> Audio2Exp:
    torch.manual_seed(1)
    return Audio2Exp(K, A, zero_module=False)


def test_the_published_size() -> None:
    made = Audio2Exp()
    assert sum(p.numel() for p in made.parameters()) == FULL_SIZE == 48_150
    assert isinstance(made.linear, nn.Linear)


def test_the_zero_module_changes_nothing_whatever_alpha_and_silence() -> None:
    expression, audio = some()
    made = Audio2Exp(K, A)
    for alpha in (0.0, 0.7, 1.5):
        assert torch.equal(made.edited(expression, audio, alpha, silence=audio[0]), expression)
    assert not torch.equal(trained()(expression, audio), torch.zeros(N, K, 3))


def test_zero_alpha_blocks_the_gradient_and_a_tiny_one_does_not() -> None:
    """Why the ramp of alpha must not begin at zero."""
    expression, audio = some()
    for alpha, moves in ((0.0, False), (1e-3, True)):
        made = Audio2Exp(K, A)
        made.edited(expression, audio, alpha).square().sum().backward()
        assert made.linear.weight.grad is not None
        assert bool(made.linear.weight.grad.abs().sum() > 0) is moves


def test_one_number_by_hand() -> None:
    made = Audio2Exp(1, 2)
    with torch.no_grad():
        # x' = 2 x + 3 a_1; y' and z' stay 0, and a bias on z.
        made.linear.weight[0] = torch.tensor([2.0, 0, 0, 0, 3.0])
        made.linear.bias[2] = 0.5
    delta = made(torch.tensor([[[1.0, 7.0, 7.0]]]), torch.tensor([[9.0, -1.0]]))
    assert delta.tolist() == [[[-1.0, 0.0, 0.5]]]
    edited = made.edited(torch.tensor([[[1.0, 7.0, 7.0]]]), torch.tensor([[9.0, -1.0]]), 0.5)
    assert edited.tolist() == [[[0.5, 7.0, 7.25]]]


def test_the_speech_pass_sees_what_silence_left() -> None:
    expression, audio = some()
    made, kept, silence = trained(), expression.clone(), audio[0]
    rest = expression + made(expression, silence.expand(N, -1))
    expected = rest + 0.7 * made(rest, audio)
    torch.testing.assert_close(made.edited(expression, audio, 0.7, silence=silence), expected)
    torch.testing.assert_close(made.edited(expression, audio, 0.0, silence=silence), rest)
    assert torch.equal(expression, kept)


def test_silence_may_be_for_some_rows_only() -> None:
    expression, audio = some()
    made, some_rows = trained(), torch.tensor([1.0, 0, 1, 0, 0])
    mixed = made.edited(expression, audio, 0.3, silence=audio[0], silence_alpha=some_rows)
    with_all = made.edited(expression, audio, 0.3, silence=audio[0])
    without = made.edited(expression, audio, 0.3)
    torch.testing.assert_close(mixed[[0, 2]], with_all[[0, 2]])
    torch.testing.assert_close(mixed[[1, 3, 4]], without[[1, 3, 4]])


def test_the_change_is_proportional_to_alpha() -> None:
    expression, audio = some()
    made = trained()
    half, whole = (made.edited(expression, audio, alpha) - expression for alpha in (0.5, 1.0))
    torch.testing.assert_close(2 * half, whole)


def test_gradients() -> None:
    made = trained().double()
    expression, audio = (t.double().requires_grad_() for t in some())
    silence = torch.linspace(-1, 1, A, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda e, a, s: made.edited(e, a, 0.7, silence=s), (expression, audio, silence)
    )


def test_what_does_not_fit_is_refused() -> None:
    expression, audio = some()
    made = Audio2Exp(K, A)
    with pytest.raises(ShapeError, match=r"expected expression \(n, 4, 3\)"):
        made(expression[:, :2], audio)
    with pytest.raises(ShapeError, match="take both"):
        made(expression, audio[:2])
    with pytest.raises(ConfigError, match="at least 1 keypoint"):
        Audio2Exp(0)
