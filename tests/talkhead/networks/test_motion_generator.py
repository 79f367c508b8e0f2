from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.motion_generator import MotionGenerator
from talkhead.networks.transformer import PostNormBlock
from tests.oracles.motion_prior import torch_layer
from tests.oracles.ms_sync import next_row, recomputed_roll_out

SMALL: dict[str, Any] = {
    "layers": 2,
    "heads": 2,
    "width": 16,
    "feedforward": 24,
    "hidden": 6,
    "inner": 12,
    "context": 5,
}
RELEASED: dict[str, Any] = {"merge": "concat", "audio_free_branch": True}


def made(**options: Any) -> MotionGenerator:
    torch.manual_seed(0)
    net = MotionGenerator(**{**SMALL, **options}).eval()
    for parameter in net.parameters():  # biases, norms and the last layer away from their start
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return net


def inputs(frames: int = 11, observed: int = 3, rows: int = 2) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return (
        0.5 * torch.randn(rows, observed, 60, generator=random),
        torch.randn(rows, 4 * frames, 26, generator=random),
    )


def test_paper_size_defaults() -> None:
    with torch.device("meta"):
        net = MotionGenerator()
        released = MotionGenerator(**RELEASED)
    assert (len(net.blocks), net.context) == (4, 40)
    assert {block.heads for block in net.blocks if isinstance(block, PostNormBlock)} == {8}
    # 512 to 512 four times a layer, and 512 to 1024 and back, with biases and two norms.
    layer = 4 * (512 * 512 + 512) + 512 * 1024 + 1024 + 1024 * 512 + 512 + 4 * 512
    assert sum(p.numel() for p in net.blocks.parameters()) == 4 * layer
    # A branch: 64 + 512 + 512 to 272, norm, 1088, 70.
    branch = 1089 * 272 + 2 * 272 + 273 * 1088 + 1089 * 70
    assert sum(p.numel() for p in net.branches.parameters()) == 4 * branch
    without_sound = branch - 512 * 272
    assert sum(p.numel() for p in released.branches.parameters()) == (
        4 * branch + without_sound + 301 * 60
    )


@pytest.mark.parametrize(
    ("options", "observed"),
    [
        ({}, 1),
        ({}, 3),
        ({}, 7),
        (RELEASED, 3),
        ({"branches": 2}, 3),
        ({"interpolation": "corners"}, 3),
    ],
)
def test_roll_out_equals_full_recomputation(options: dict[str, Any], observed: int) -> None:
    # In double precision, where nothing but a mistake can set them apart.
    net = made(**options).double()
    first, audio = (x.double() for x in inputs(observed=observed))
    first.requires_grad_()
    features = net.audio_features(audio)
    ours, theirs = net.roll_out(first, features), recomputed_roll_out(net, first, features)
    torch.testing.assert_close(ours, theirs)
    weight = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view_as(ours)
    wanted = [first, *net.parameters()]
    pairs = [
        torch.autograd.grad((out * weight).sum(), wanted, retain_graph=True)
        for out in (ours, theirs)
    ]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)
    single = made(**options)
    torch.testing.assert_close(
        single(first.float(), audio.float()).double(), theirs, atol=1e-5, rtol=1e-5
    )


def test_observed_rows_are_predicted_from_observed_ones() -> None:
    net = made()
    first, audio = inputs(observed=4)
    out = net(first, audio)
    features = net.audio_features(audio)
    assert torch.equal(out[:, 0], first[:, 0])
    for t in range(1, 5):  # the fourth is the first that runs free, from the last observed frame
        torch.testing.assert_close(out[:, t], next_row(net, first[:, :t], features)[0])
    # A run that is observed throughout: predictions only.
    known, audio = inputs(frames=6, observed=6)
    torch.testing.assert_close(
        net(known, audio)[:, 5],
        next_row(net, known[:, :5], net.audio_features(audio))[0],
    )


def test_a_frame_hears_itself_and_steps_back_no_further_than_the_context() -> None:
    net = made(layers=1, branches=1)
    first, audio = inputs(frames=12, observed=12)
    features = net.audio_features(audio)
    base = net.roll_out(first, features)
    louder = features.clone()
    louder[:, :, 7] += 1.0
    changed = (net.roll_out(first, louder) - base).abs().amax((0, 2)) > 1e-6
    assert changed.nonzero()[:, 0].tolist() == [7]  # all else is teacher-forced
    moved = first.clone()
    moved[:, 2] += 1.0
    changed = (net.roll_out(moved, features) - base).abs().amax((0, 2)) > 1e-6
    assert changed.nonzero()[:, 0].tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("context", [1, 2, 5, 40])
def test_continued_layer_equals_torchs_own_with_a_band(context: int) -> None:
    torch.manual_seed(0)
    block = PostNormBlock(16, 2, 24, 0.0)
    x = torch.randn(2, 9, 16)
    t = torch.arange(9)
    hidden = (t > t[:, None]) | (t <= t[:, None] - context)
    expected = torch_layer(block, 16, 24).train()(x, src_mask=hidden)
    for cuts in ([9], [1] * 9, [4, 1, 3, 1]):
        past, rows = None, []
        for piece in x.split(cuts, 1):
            out, past = block.continued(piece, past, context)
            rows.append(out)
        torch.testing.assert_close(torch.cat(rows, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, RELEASED])
def test_masks_sum_to_one_over_branches(options: dict[str, Any]) -> None:
    net = made(**options)
    run, audio = inputs(frames=9, observed=9)
    features = net.audio_features(audio)
    masks = net.masks(run, features)
    assert masks.shape == (2, 8, 4 + bool(options), 10)
    torch.testing.assert_close(masks.sum(2), torch.ones(2, 8, 10))
    for t in range(8):
        torch.testing.assert_close(masks[:, t], next_row(net, run[:, : t + 1], features)[1])


def test_masks_choose_the_branch_that_moves_a_keypoint() -> None:
    net = made(branches=2)
    with torch.no_grad():
        net.branches.narrow.weight.zero_()
        net.branches.narrow.bias.zero_()
        net.branches.narrow.bias[0, 0, :60], net.branches.narrow.bias[1, 0, :60] = 0.1, -0.3
        # Keypoint 3 to the first branch, keypoint 4 to the second, the others to both.
        net.branches.narrow.bias[0, 0, 63], net.branches.narrow.bias[1, 0, 64] = 30.0, 30.0
    first, audio = inputs(frames=4, observed=1)
    moved = (net(first, audio)[:, 1] - first[:, 0]).unflatten(1, (10, 6))
    torch.testing.assert_close(moved[:, 3], torch.full((2, 6), 0.1))
    torch.testing.assert_close(moved[:, 4], torch.full((2, 6), -0.3))
    torch.testing.assert_close(moved[:, 5], torch.full((2, 6), -0.1))


@pytest.mark.parametrize("options", [{}, RELEASED])
def test_an_untrained_face_hardly_moves(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = MotionGenerator(**{**SMALL, **options})
    first, audio = inputs(frames=43)
    out = net(first, audio)
    assert float((out[:, 3:] - first[:, 2:3]).detach().abs().max()) < 0.05
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.branches.parameters())


@pytest.mark.parametrize("blocks", [[4 * 90], [4 * 2] * 45, [4 * 70, 4 * 20]])
def test_stream_equals_the_roll_out_with_warm_up(blocks: list[int]) -> None:
    net = made()
    first, audio = inputs(frames=90, observed=1)
    rows = torch.stack(list(net.stream(first[:, 0], audio.split(blocks, 1))), 1)
    warmed = torch.cat([audio[:, :8].flip(1), audio], 1)
    with torch.no_grad():
        whole = net(first.expand(-1, 3, -1), warmed)[:, 2:]
    assert rows.shape == (2, 90, 60)
    assert not rows.requires_grad
    torch.testing.assert_close(rows, whole, atol=1e-5, rtol=1e-5)


def test_a_stream_keeps_as_much_at_frame_1000_as_at_frame_10() -> None:
    net = made(layers=1, heads=1, width=8, context=6, branches=1)
    sizes = []
    block = net.blocks[0]
    assert isinstance(block, PostNormBlock)
    continued = block.continued

    def watched(x: Tensor, past: Any, context: int) -> Any:
        out, kept = continued(x, past, context)
        sizes.append(sum(part.untyped_storage().nbytes() for part in kept))
        return out, kept

    block.continued = watched  # type: ignore[method-assign]  # to see what is kept
    first, audio = inputs(frames=100, rows=1)
    count = sum(1 for _ in net.stream(first[:, 0], iter([audio] * 10)))
    assert count == 1000
    assert sizes[10] == sizes[-1] == 2 * 6 * 8 * 4


def test_grad_mode_is_left_alone_between_rows() -> None:
    net = made()
    first, audio = inputs(frames=4)
    for _ in net.stream(first[:, 0], [audio]):
        assert torch.is_grad_enabled()


def test_released_variant_survives_a_rebuild() -> None:
    net = made(**RELEASED)
    again = MotionGenerator(**net.spec).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(net(*inputs()), again(*inputs()))


def test_reduced_precision_stays_finite_and_keeps_positions() -> None:
    net = made()
    first, audio = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(first, audio)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, net(first, audio), atol=0.1, rtol=0.1)


def test_wrong_options_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="divisible by 3 heads"):
        made(heads=3)
    with pytest.raises(ConfigError, match="context of at least 1 frame, got 16 and 0"):
        made(context=0)
    with pytest.raises(ConfigError, match="merge out of sum, concat, got 'mean'"):
        made(merge="mean")
    net = made()
    first, audio = inputs(frames=4, observed=5)
    with pytest.raises(ShapeError, match="1 <= O <= T, got"):
        net(first, audio)
    with pytest.raises(ShapeError, match="at least 2 frames"):
        net(first[:, :1], audio[:, :4])
    with pytest.raises(ShapeError, match="all 4 frames of sound, got 3; roll them out"):
        net.masks(first[:, :3], net.audio_features(audio))
    with pytest.raises(ShapeError, match=r"features \(B, 4, T, 16\)"):
        net.roll_out(first, net.audio_features(audio)[:, :3])
    with pytest.raises(ShapeError, match=r"first keypoints \(B, 60\)"):
        net.stream(first, [audio])
    with pytest.raises(ShapeError, match="first block of at least 2 frames of sound, got 1"):
        next(net.stream(first[:, 0], [audio[:, :4]]))
    with pytest.raises(ShapeError, match="of whole frames"):
        list(net.stream(first[:, 0], [audio, audio[:, :3]]))
    with pytest.raises(ConfigError, match="interpolation time"):
        made(interpolation="corners").stream(first[:, 0], [audio])
