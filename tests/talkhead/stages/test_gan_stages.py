"""The two GAN stages on a few random pictures: what learns, when, and at which rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from talkhead import cli
from talkhead.batch import FrameBatch, WindowBatch, to_float
from talkhead.errors import ConfigError
from talkhead.losses.disentangle import orthogonal_loss
from talkhead.losses.foreground import foreground_mask
from talkhead.networks.audio_encoder import AudioEncoder
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.motion_encoder import MotionEncoder
from talkhead.networks.perceptual import GazeFeatures
from talkhead.stages.adversarial import AdversarialStage
from talkhead.stages.lip_disentangle import LipDisentangleStage
from talkhead.stages.reenactment import ReenactmentStage

SIZE, DIM, IDENTITY = 32, 16, 12
SMALL_D = {"width": 4, "layers": 2, "max_width": 8}
GENERATOR = {
    "image_size": SIZE, "latent_dim": IDENTITY + DIM, "map_channels": 8, "channels": 8, "min_channels": 4,
}  # fmt: skip
IDENTITY_ENCODER: dict[str, Any] = {
    "layers": [1, 1, 1, 1], "groups": 2, "width": 16, "dim": IDENTITY, "map_channels": 8, "map_size": 4,
    "image_size": SIZE,
}  # fmt: skip
MOTION_ENCODER: dict[str, Any] = {
    "blocks": [[1, 4, 1, 1], [2, 8, 1, 2]], "last_channels": 8, "dim": DIM,
}  # fmt: skip


def identity_encoder() -> IdentityEncoder:
    return IdentityEncoder(**IDENTITY_ENCODER)


def motion_encoder() -> MotionEncoder:
    return MotionEncoder(**MOTION_ENCODER)


def disentangle(**options: Any) -> LipDisentangleStage:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "image_size": SIZE, "windows": 2, "bank_steps": 3, "discriminator": SMALL_D, "generator": GENERATOR,
        "nonlip_head": {"dim": DIM, "code_dim": 6, "hidden": 8},
        "lip_head": {"dim": DIM, "code_dim": DIM - 6},
        "weights": {"perceptual": 0.0, "gaze": 0.0}, "lr": 1e-2, "lr_generator": 1e-2,
        "lr_discriminator": 1e-2, **options,
    }  # fmt: skip
    audio = AudioEncoder(dim=DIM, widths=[4, 4, 4, 4], counts=[1, 1, 1, 1])
    return LipDisentangleStage(identity_encoder().spec, motion_encoder().spec, audio.spec, **values)


def reenact(**options: Any) -> ReenactmentStage:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "image_size": SIZE, "identity_frames": 1, "discriminator": SMALL_D, "generator": GENERATOR,
        "identity_encoder": IDENTITY_ENCODER, "motion_encoder": MOTION_ENCODER,
        "weights": {"perceptual": 0.0}, "descriptors": 15, **options,
    }  # fmt: skip
    return ReenactmentStage(**values)


def window_batch(seed: int = 0) -> WindowBatch:
    g = torch.Generator().manual_seed(seed)
    return WindowBatch(
        frames=torch.randint(256, (2, 2, 3, SIZE, SIZE), generator=g, dtype=torch.uint8),
        mel=torch.randn(2, 2, 1, 80, 20, generator=g),
        landmarks=torch.rand(2, 2, 478, 3, generator=g),
        identity=torch.randint(256, (2, 1, 3, SIZE, SIZE), generator=g, dtype=torch.uint8),
        frame_index=torch.zeros(2, 2, dtype=torch.long),
        clip=["a", "b"],
    )


def frame_batch(seed: int = 0, extra: int = 0) -> FrameBatch:
    g = torch.Generator().manual_seed(seed)
    return FrameBatch(
        identity=torch.randint(256, (2, 1, 3, SIZE, SIZE), generator=g, dtype=torch.uint8),
        target=torch.randint(256, (2, 3, SIZE, SIZE), generator=g, dtype=torch.uint8),
        landmarks=torch.rand(2, 478, 3, generator=g),
        motion=torch.randn(2, 15, generator=g),
        extra=torch.randint(256, (2, extra, 3, SIZE, SIZE), generator=g, dtype=torch.uint8),
        extra_motion=torch.randn(2, extra, 15, generator=g),
        clip=["a", "b"],
    )


class Statistics(NamedTuple):
    mean: NDArray[np.float32]
    std: NDArray[np.float32]


class Batches(LightningDataModule):
    """Ready batches, with the statistics a stage asks for."""

    motion_stats = Statistics(torch.zeros(15).numpy(), torch.ones(15).numpy())

    def __init__(self, make: Any, count: int) -> None:
        super().__init__()
        self.batches = [make(i) for i in range(count)]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]  # a list is a dataset

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]  # a list is a dataset


def fit(
    stage: AdversarialStage, make: Any, folder: Path, steps: int, precision: Any = "32-true"
) -> Trainer:
    cli.quieten(["fit"])
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, max_steps=steps, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, num_sanity_val_steps=0, precision=precision,
    )  # fmt: skip
    trainer.fit(stage, datamodule=Batches(make, steps))
    return trainer


def weights(part: nn.Module) -> Tensor:
    return torch.cat([torch.zeros(0), *(p.detach().flatten() for p in part.parameters())])


def moved(part: nn.Module, before: Tensor) -> bool:
    return not torch.equal(weights(part), before)


def test_only_what_belongs_to_the_stage_learns(tmp_path: Path) -> None:
    stage = disentangle()
    parts = {name: weights(part) for name, part in stage.named_children()}
    fit(stage, window_batch, tmp_path, steps=2)
    changed = {name for name, before in parts.items() if moved(getattr(stage, name), before)}
    assert changed == {"nonlip_head", "lip_head", "generator", "discriminator"}


def test_identity_encoder_learns_on_request(tmp_path: Path) -> None:
    stage = disentangle(train_identity=True)
    before = weights(stage.identity_encoder)
    fit(stage, window_batch, tmp_path, steps=1)
    assert moved(stage.identity_encoder, before)


def test_heads_freeze_and_the_generator_goes_on(tmp_path: Path) -> None:
    stage = disentangle(freeze_heads_after_batches=0)
    heads, generator = weights(stage.nonlip_head), weights(stage.generator)
    fit(stage, window_batch, tmp_path, steps=2)
    assert not moved(stage.nonlip_head, heads)
    assert moved(stage.generator, generator)


def test_all_but_generator_and_discriminator_stop_where_they_are(tmp_path: Path) -> None:
    options: dict[str, Any] = {"train_identity": True, "freeze_heads_after_batches": 1}
    short, long = disentangle(**options), disentangle(**options)
    fit(short, window_batch, tmp_path, steps=1)
    fit(long, window_batch, tmp_path, steps=3)
    for name, part in short.named_children():
        same = all(torch.equal(long.state_dict()[f"{name}.{k}"], v)
                   for k, v in part.state_dict().items() if isinstance(v, Tensor))  # fmt: skip
        assert same == (name not in ("generator", "discriminator")), name
    assert moved(long.identity_encoder, weights(disentangle(**options).identity_encoder))


@pytest.mark.parametrize(("make", "batch"), [(reenact, frame_batch), (disentangle, window_batch)])
def test_trains_in_bfloat16(make: Any, batch: Any, tmp_path: Path) -> None:
    stage = make(r1=1.0, r1_every=2)
    before = weights(stage)
    trainer = fit(stage, batch, tmp_path, steps=3, precision="bf16-mixed")
    assert moved(stage, before)
    assert weights(stage).isfinite().all()
    assert weights(stage).dtype == torch.float32
    terms = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
    assert {"train/loss/gan", "train/loss/feature_matching", "train/r1"} <= set(terms)
    assert all(bool(value.isfinite()) for value in terms.values())


def test_gaze_term_by_a_backbone_of_choice(tmp_path: Path) -> None:
    # The layout of the file at a thousandth of its size: every tensor shares one number.
    with torch.device("meta"):
        state = GazeFeatures("resnet18").trunk.state_dict()
    torch.save(
        {k: torch.zeros(()).expand(v.shape) for k, v in state.items()}, tmp_path / "l2cs.pkl"
    )
    options: dict[str, Any] = {
        "weights": {"perceptual": 0.0}, "gaze_weights": str(tmp_path / "l2cs.pkl"),
    }  # fmt: skip
    stage = disentangle(gaze_backbone="resnet18", **options)
    assert isinstance(stage.gaze, GazeFeatures)
    assert stage.gaze.dim == 512
    with pytest.raises(ConfigError, match="does not fit L2CS-Net with resnet50"):
        disentangle(**options)


def test_orthogonal_term_is_measured_over_the_bank() -> None:
    stage = disentangle(bank_steps=2).eval()
    stage.bank.train()  # only training fills it
    codes = [stage.codes(window_batch(i)) for i in range(3)]
    terms = [stage.losses(window_batch(i))["orthogonal"].item() for i in range(3)]
    visual, audio = (torch.cat([codes[1][k], codes[2][k]]) for k in (2, 3))
    assert terms[2] == pytest.approx(orthogonal_loss(visual, audio).item(), rel=1e-5)
    assert terms[0] == pytest.approx(orthogonal_loss(*codes[0][2:]).item(), rel=1e-5)


def test_codes_have_the_stated_widths_and_only_heads_get_gradients() -> None:
    stage = disentangle()
    f_nl, f_l, f_ol, f_a = stage.codes(window_batch())
    assert [tuple(x.shape) for x in (f_nl, f_l, f_ol, f_a)] == [(4, 6), (4, 10), (4, 16), (4, 16)]
    assert f_nl.requires_grad
    assert f_l.requires_grad
    assert not f_a.requires_grad


@pytest.mark.parametrize("mode", ["hinge", "log"])
def test_discriminator_step_uses_the_pictures_of_the_generator_step(
    mode: str, tmp_path: Path
) -> None:
    stage = reenact(gan_mode=mode)
    made: list[Tensor] = []
    stage.generator.register_forward_hook(lambda module, args, out: made.append(out))
    trainer = fit(stage, frame_batch, tmp_path, steps=3)
    assert len(made) == 3
    assert trainer.global_step == 3


@pytest.mark.parametrize(
    ("gan", "feature_matching", "adversary"),
    [(0.0, 0.0, False), (0.0, 1.0, True), (1.0, 0.0, True)],
)
def test_the_adversary_runs_only_where_a_term_needs_it(
    gan: float, feature_matching: float, adversary: bool, tmp_path: Path
) -> None:
    stage = reenact(
        weights={"gan": gan, "feature_matching": feature_matching, "perceptual": 0.0, "region": 1.0}
    )
    calls: list[int] = []
    stage.discriminator.register_forward_hook(lambda module, args, out: calls.append(1))
    before, generator = weights(stage.discriminator), weights(stage.generator)
    fit(stage, frame_batch, tmp_path, steps=2)
    assert moved(stage.generator, generator)
    assert moved(stage.discriminator, before) == adversary
    assert bool(calls) == adversary
    assert ("gan" in stage.losses(frame_batch())) == adversary


def test_pixel_term_is_the_mean_absolute_difference() -> None:
    stage = reenact()
    with torch.no_grad():
        passed = stage.generator_pass(frame_batch())
    expected = float((passed.real - passed.fake).abs().mean())
    assert float(passed.terms["pixel"]) == pytest.approx(expected, rel=1e-6)


def test_only_the_foreground_is_judged_on_request(tmp_path: Path) -> None:
    batch = frame_batch()
    plain, masked = reenact().eval(), reenact(foreground_only=True).eval()
    mask = foreground_mask(batch.landmarks, SIZE, SIZE)
    assert 0 < mask.mean() < 1
    shown: list[Tensor] = []
    masked.discriminator.register_forward_hook(lambda module, args, out: shown.append(args[0]))
    with torch.no_grad():
        whole, passed = plain.generator_pass(batch), masked.generator_pass(batch)
    torch.testing.assert_close((passed.real, passed.fake), (whole.real, whole.fake))
    assert len(shown) == 2
    for pictures in (*shown, *passed.judged):
        assert (pictures.masked_select(mask.expand_as(pictures) == 0) == -1).all()
    difference = ((whole.real - whole.fake).abs() * mask).mean()
    assert float(passed.terms["pixel"]) == pytest.approx(float(difference), rel=1e-6)
    before = weights(masked.discriminator)
    fit(masked.train(), frame_batch, tmp_path, steps=2)
    assert moved(masked.discriminator, before)
    assert len(shown) > 2
    assert all(bool((pictures == -1).any()) for pictures in shown)


def test_penalty_comes_every_so_many_batches_and_only_on_request(tmp_path: Path) -> None:
    class Noted(ReenactmentStage):
        def log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
            logged.append((name, self.batches_seen))
            super().log(name, value, *args, **options)

    logged: list[tuple[str, int]] = []
    ready = reenact(r1=1.0, r1_every=2)
    ready.__class__ = Noted
    fit(ready, frame_batch, tmp_path, steps=5)
    assert [batch for name, batch in logged if name == "train/r1"] == [2, 4]
    assert all(
        bool(p.grad.isfinite().all())
        for p in ready.discriminator.parameters()
        if p.grad is not None
    )
    with pytest.raises(ConfigError, match="at least 0, every 1 or more"):
        reenact(r1=-1.0)


def test_rates_warm_up_and_decay() -> None:
    stage = reenact(lr=1.0, lr_warmup_batches=4, lr_decay=0.5, lr_decay_batches=10)
    rates = [stage._rate(n) for n in (0, 1, 3, 9, 10, 20)]
    assert rates == [0.25, 0.5, 1.0, 1.0, 0.5, 0.25]


def test_gradients_are_clipped(tmp_path: Path) -> None:
    norms: list[float] = []

    class Watched(ReenactmentStage):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            grads = [
                p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None
            ]
            norms.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))

    torch.manual_seed(0)
    plain = reenact(grad_clip=1e-3)
    plain.__class__ = Watched
    fit(plain, frame_batch, tmp_path, steps=2)
    assert len(norms) == 4
    assert max(norms) <= 1e-3 * 1.001


def test_descriptor_head_takes_the_statistics_of_the_data(tmp_path: Path) -> None:
    stage = reenact(weights={"perceptual": 0.0, "descriptor": 1.0})
    fit(stage, frame_batch, tmp_path, steps=1)
    assert "descriptor" in stage.losses(frame_batch())
    assert "descriptor" not in reenact().losses(frame_batch())


def test_extra_frames_reach_the_descriptor_term_only() -> None:
    stage = reenact(weights={"perceptual": 0.0, "descriptor": 1.0}, descriptor_frames=3).eval()
    assert stage.needs().extra_frames == 3
    assert reenact(descriptor_frames=3).needs().extra_frames == 0  # nobody to see them
    with torch.no_grad():
        plain, more = stage.losses(frame_batch()), stage.losses(frame_batch(extra=3))
    assert float(plain.pop("descriptor")) != pytest.approx(float(more.pop("descriptor")))
    torch.testing.assert_close(plain, more)
    batch = frame_batch(extra=3)
    assert stage.descriptor_head is not None
    with torch.no_grad():
        pictures = torch.cat([batch.target, batch.extra.flatten(0, 1)])
        shown = torch.cat([batch.motion, batch.extra_motion.flatten(0, 1)])
        wanted = stage.descriptor_head(stage.motion_encoder(to_float(pictures)), shown)
    torch.testing.assert_close(stage.losses(batch)["descriptor"].detach(), wanted)


def test_augmentation_only_while_training() -> None:
    stage = reenact().eval()
    batch = frame_batch()
    first, second = (stage.reconstruct(batch)[1] for _ in range(2))
    torch.testing.assert_close(first, second)
    stage.train()
    torch.manual_seed(1)
    shifted = stage.reconstruct(batch)[0]
    assert not torch.equal(shifted, first)


def test_bad_betas_are_refused() -> None:
    with pytest.raises(ConfigError, match="betas: expected two numbers"):
        reenact(betas=[0.5])
