"""face-vid2vid on a few random pictures: what learns, what is judged, and what a checkpoint holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.base import TalkheadDataModule
from talkhead.__main__ import main
from talkhead.batch import FrameBatch, FramePairs, to_float
from talkhead.checkpoint import load_component
from talkhead.errors import ConfigError, ShapeError, StageLinkError
from talkhead.geometry.head_angles import angles_of_pose, mirrored_angles
from talkhead.losses.equivariance import projected_equivariance_loss
from talkhead.losses.head_motion import expression_loss, head_pose_loss, keypoint_prior_loss
from talkhead.losses.landmark_guide import landmark_guide_loss
from talkhead.losses.mouth_weighted import lower_middle
from talkhead.networks.keypoint_picture_discriminator import KeypointPictureDiscriminator
from talkhead.networks.motion_extractor import MotionExtractor
from talkhead.networks.volume_renderer import VolumeRenderer
from talkhead.stages import face_vid2vid
from talkhead.stages.face_vid2vid import FaceVid2vidStage
from tests.datamodules.fakes import make_prepared
from tests.talkhead.stages.short_runs import interrupted, trainer
from tests.talkhead.stages.test_gan_stages import (
    SIZE,
    Batches,
    fit,
    frame_batch,
    moved,
    weights,
)

ROOT = Path(__file__).parents[3]
EXTRACTOR: dict[str, Any] = {
    "keypoints": 4, "width": 4, "max_width": 8, "blocks": 2, "scale": 0.5, "depth": 2, "head_width": 4,
    "head_widths": [8, 8], "head_blocks": [1, 1],
}  # fmt: skip
RENDERER: dict[str, Any] = {
    "keypoints": 4, "width": 4, "max_width": 8, "downs": 1, "channels": 2, "depth": 2, "residual_blocks": 1,
    "compress": 1, "motion_width": 4, "motion_max_width": 8, "motion_blocks": 2, "mask_kernel": 3,
    "middle_blocks": 1, "guide_width": 4,
}  # fmt: skip
JUDGE = {"width": 4, "max_width": 8, "blocks": 2}


def stage(**options: Any) -> FaceVid2vidStage:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "image_size": SIZE, "motion_extractor": EXTRACTOR, "renderer": RENDERER, "discriminator": JUDGE,
        "weights": {"perceptual": 0.0, "pixel": 10.0, "head_pose": 0.1}, **options,
    }  # fmt: skip
    return FaceVid2vidStage(**values)


def test_it_asks_for_one_source_and_one_driving_frame() -> None:
    assert stage().needs() == FramePairs(1, SIZE, 0)
    assert stage().stage_name() == "face_vid2vid"
    assert (stage().monitor, stage().mode, stage().consumes) == ("val/psnr", "max", ())


def test_all_three_networks_learn(tmp_path: Path) -> None:
    made = stage()
    parts = {name: weights(part) for name, part in made.named_children()}
    run = fit(made, frame_batch, tmp_path, steps=2)
    changed = {name for name, before in parts.items() if moved(getattr(made, name), before)}
    assert changed == {"motion_extractor", "renderer", "discriminator"}
    terms = {k.rpartition("/")[2] for k in run.callback_metrics if k.startswith("train/loss/")}
    assert terms == {*made.default_weights} - {"perceptual", "landmark_guide"}


def test_terms_are_the_losses_of_the_parts() -> None:
    """Found one by one and put together by hand."""
    made, batch = stage().eval(), frame_batch()
    source, driving = to_float(batch.identity[:, 0]), to_float(batch.target)
    extractor = made.motion_extractor
    with torch.no_grad():
        passed = made.generator_pass(batch)
        warp = made._drawn_warp(2)
        canonical = extractor.canonical(source)
        of_source, of_driving, of_warped = (
            extractor.keypoints(canonical, extractor.head(x))
            for x in (source, driving, warp.pictures(driving, align_corners=True))
        )
        fake = made.renderer(made.renderer.appearance(source), of_driving, of_source).picture
        (real_out,), (fake_out,) = made.discriminator(driving), made.discriminator(fake)
        found = extractor.head(driving)
    torch.testing.assert_close(passed.fake, fake, atol=1e-5, rtol=1e-4)
    assert passed.condition is None
    share = 2 / 3
    matched = [
        (1 - share) * (r - f).abs().mean()
        + share * (lower_middle(r) - lower_middle(f)).abs().mean()
        for r, f in zip(real_out[1], fake_out[1], strict=True)
    ]
    expected = {
        "equivariance": projected_equivariance_loss(of_driving, of_warped, warp),
        "keypoint_prior": keypoint_prior_loss(of_driving),
        "head_pose": head_pose_loss(found.degrees, angles_of_pose(batch.motion[:, :3])),
        "expression": expression_loss(found.expression),
        "gan": -(1 - share) * fake_out[0].mean() - share * lower_middle(fake_out[0]).mean(),
        "feature_matching": torch.stack(matched).sum(),
        "pixel": (fake - driving).abs().mean(),
    }
    for name, value in expected.items():
        assert float(passed.terms[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-5), name


def guided(**options: Any) -> FaceVid2vidStage:
    parts = {"motion_extractor": EXTRACTOR, "renderer": RENDERER}
    ten = {name: {**spec, "keypoints": 10} for name, spec in parts.items()}
    return stage(**ten, weights={"perceptual": 0.0, "landmark_guide": 1.0}, **options)


def test_keypoints_of_both_frames_may_be_guided_by_landmarks() -> None:
    made, batch = guided().eval(), frame_batch()
    assert made.needs() == FramePairs(1, SIZE, 0, identity_landmarks=True)
    batch.identity_landmarks = torch.rand(len(batch.target), 1, 478, 3)
    extractor = made.motion_extractor
    with torch.no_grad():
        terms = made.losses(batch)
        source, driving = to_float(batch.identity[:, 0]), to_float(batch.target)
        canonical = extractor.canonical(source)
        apart = [
            landmark_guide_loss(extractor.keypoints(canonical, extractor.head(shown)), landmarks)
            for shown, landmarks in (
                (source, batch.identity_landmarks[:, 0]),
                (driving, batch.landmarks),
            )
        ]
    torch.testing.assert_close(terms["landmark_guide"], torch.stack(apart).mean())


def test_a_guided_fit_reads_the_landmarks_of_both_frames(tmp_path: Path) -> None:
    root = make_prepared(tmp_path / "set", frames=20, size=SIZE)
    made = guided()
    run = trainer(tmp_path, 2, limit_val_batches=1)
    run.fit(made, datamodule=TalkheadDataModule(str(root), batch_size=2, epoch_items=4))
    assert float(run.callback_metrics["train/loss/landmark_guide"]) > 0


def test_the_extractor_may_learn_alone_at_first(tmp_path: Path) -> None:
    made = stage(extractor_batches=2)
    before = {name: weights(part) for name, part in made.named_children()}
    run = fit(made, frame_batch, tmp_path / "first", steps=2)
    assert moved(made.motion_extractor, before["motion_extractor"])
    assert not moved(made.renderer, before["renderer"])
    assert not moved(made.discriminator, before["discriminator"])
    assert "train/loss/pixel" not in run.callback_metrics
    assert run.global_step == 2
    more = stage(extractor_batches=2)
    fit(more, frame_batch, tmp_path / "then", steps=3)
    assert moved(more.renderer, before["renderer"])
    assert moved(more.discriminator, before["discriminator"])


def test_the_judge_weighs_the_mouth_unless_told_not_to() -> None:
    real = [(torch.randn(2, 1, 8, 8), [torch.randn(2, 3, 8, 8)])]
    fake = [(torch.randn(2, 1, 8, 8), [torch.randn(2, 3, 8, 8)])]
    plain, made = stage(mouth_share=0.0), stage()

    def hinge(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((1 - a).relu().mean() + (1 + b).relu().mean())

    whole = hinge(real[0][0], fake[0][0])
    mouth = hinge(lower_middle(real[0][0]), lower_middle(fake[0][0]))
    assert float(plain.discriminator_term(real, fake)) == pytest.approx(whole)
    assert float(made.discriminator_term(real, fake)) == pytest.approx((whole + 2 * mouth) / 3)
    assert float(plain.adversarial_terms(real, fake)["gan"]) == pytest.approx(
        -float(fake[0][0].mean())
    )


def test_poses_are_labelled_in_the_extractors_convention_and_mirrored_with_the_picture() -> None:
    batch = frame_batch()
    batch.motion[:, :3] = torch.tensor([[math.pi / 18, 0, 0], [0, math.pi / 6, math.pi / 12]])
    made = stage()
    straight = made._pose_labels(batch, batch.landmarks)
    torch.testing.assert_close(straight[0], torch.tensor([0.0, 10.0, 0.0]))
    mirrored = batch.landmarks.clone()
    mirrored[1, :, 0] = 1.0 - mirrored[1, :, 0]
    labels = made._pose_labels(batch, mirrored)
    torch.testing.assert_close(labels[0], straight[0])
    torch.testing.assert_close(labels[1], mirrored_angles(straight[1]))
    other = stage(motion_extractor={**EXTRACTOR, "convention": "hopenet"})
    torch.testing.assert_close(
        other._pose_labels(batch, batch.landmarks)[0], torch.tensor([0.0, -10.0, 0.0])
    )
    batch.motion = batch.motion[:, :2]
    with pytest.raises(ShapeError, match="begin with pitch, yaw and roll"):
        made._pose_labels(batch, batch.landmarks)


def test_it_learns_the_pose_of_a_tilting_bar(tmp_path: Path) -> None:
    """A white bar on grey, tilted to one side or the other, whose angle is the label of the roll."""

    def bars(seed: int) -> FrameBatch:
        batch = frame_batch(seed)
        g = torch.Generator().manual_seed(seed)
        rows = torch.arange(SIZE)[:, None] - (SIZE - 1) / 2
        columns = torch.arange(SIZE)[None] - (SIZE - 1) / 2
        batch.motion[:, :3] = 0.0
        for i in range(2):
            roll = 0.7 if int(torch.randint(2, (1,), generator=g)) else -0.7
            # Clockwise, as y points down: the bar's direction is (cos, sin).
            off = (rows * math.cos(roll) - columns * math.sin(roll)).abs()
            batch.target[i] = torch.where(off < 3, 255, 100).to(torch.uint8)
            batch.motion[i, 2] = roll
        return batch

    made = stage(
        weights={"perceptual": 0.0, "gan": 0.0, "feature_matching": 0.0, "head_pose": 1.0},
        lr_extractor=2e-2, augment=False,
    )  # fmt: skip
    made.train()
    with torch.no_grad():
        before = [float(made.losses(bars(900 + i))["head_pose"]) for i in range(4)]
    fit(made, bars, tmp_path, steps=40)
    made.train()
    with torch.no_grad():
        after = [float(made.losses(bars(900 + i))["head_pose"]) for i in range(4)]
    assert sum(after) < 0.7 * sum(before)


def test_validation_names_what_copying_the_source_would_score(tmp_path: Path) -> None:
    batch, made = frame_batch(), stage()
    (found,) = trainer(tmp_path, 1).validate(made, Batches(lambda _: batch, 1), verbose=False)
    source, driving = to_float(batch.identity[:, 0]), to_float(batch.target)
    psnr = 10 * torch.log10(4 / (source - driving).square().mean())
    assert found["val/psnr_of_source"] == pytest.approx(float(psnr), rel=1e-4)
    assert {"val/psnr", "val/ssim", "val/loss", "val/loss/head_pose"} <= set(found)
    (again,) = trainer(tmp_path, 1).validate(made, Batches(lambda _: batch, 1), verbose=False)
    assert again == found  # the warp of the equivariance term is fixed in evaluation


def test_trains_in_bfloat16(tmp_path: Path) -> None:
    made = stage()
    run = fit(made, frame_batch, tmp_path, steps=2, precision="bf16-mixed")
    assert weights(made).isfinite().all()
    assert all(bool(value.isfinite()) for value in run.callback_metrics.values())


def test_an_interrupted_run_goes_on_and_hands_over_its_networks(tmp_path: Path) -> None:
    root = make_prepared(tmp_path, frames=20, size=SIZE)
    half, path = interrupted(
        stage, lambda: TalkheadDataModule(str(root), batch_size=2, epoch_items=8, seed=3), tmp_path
    )
    for name, cls in (("motion_extractor", MotionExtractor), ("renderer", VolumeRenderer)):
        exported, own = load_component(path, name), getattr(half, name)
        assert type(exported) is cls
        assert exported.spec == own.spec
        assert torch.equal(weights(exported), weights(own))
    again = FaceVid2vidStage.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(weights(again), weights(half))
    assert isinstance(again.discriminator, KeypointPictureDiscriminator)
    assert again.discriminator.spec["keypoints"] == 0


def test_it_starts_from_an_earlier_run(tmp_path: Path) -> None:
    first = stage()
    run = fit(first, frame_batch, tmp_path, steps=1)
    path = tmp_path / "first.ckpt"
    run.save_checkpoint(path)
    second = stage(motion_extractor=str(path), renderer=str(path))
    before = weights(second.motion_extractor)
    assert torch.equal(before, weights(first.motion_extractor))
    run = fit(second, frame_batch, tmp_path, steps=1)
    assert moved(second.motion_extractor, before)
    run.save_checkpoint(tmp_path / "second.ckpt")
    path.unlink()
    FaceVid2vidStage.load_from_checkpoint(tmp_path / "second.ckpt", weights_only=True)
    with pytest.raises(StageLinkError, match="found no file"):
        stage(renderer=str(path))


def test_published_weights_are_the_start_and_their_file_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None, bool]] = []

    def small(
        path: str, sha256: str | None, *, align_corners: bool
    ) -> tuple[MotionExtractor, VolumeRenderer]:
        asked.append((path, sha256, align_corners))
        return (
            MotionExtractor(**EXTRACTOR, convention="hopenet", provenance="file:0123"),
            VolumeRenderer(**RENDERER, align_corners=align_corners, provenance="file:0123"),
        )

    monkeypatch.setattr(face_vid2vid, "load_face_vid2vid", small)
    published: dict[str, Any] = {"motion_extractor": None, "renderer": None}
    made = stage(vid2vid_weights="vox.tar", vid2vid_sha256="01234567", **published)
    assert asked == [("vox.tar", "01234567", False)]
    run = fit(made, frame_batch, tmp_path, steps=1)
    run.save_checkpoint(tmp_path / "last.ckpt")
    monkeypatch.undo()
    again = FaceVid2vidStage.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(weights(again), weights(made))
    assert again.motion_extractor.convention == "hopenet"
    assert load_component(tmp_path / "last.ckpt", "renderer").spec["provenance"] == (
        "trained from file:0123"
    )
    with pytest.raises(ConfigError, match="leave them null"):
        stage(vid2vid_weights="vox.tar")


def test_fit_and_test_from_the_command_line(tmp_path: Path) -> None:
    root = make_prepared(tmp_path, frames=20, size=SIZE)
    common = [
        "--config", str(ROOT / "experiments/runs/70_face_vid2vid.yaml"),
        "--config", str(ROOT / "experiments/size/demo/70_face_vid2vid.yaml"),
        "--data.root", str(root), "--data.batch_size", "2", "--data.epoch_items", "4",
        "--data.val_items", "2", "--model.image_size", str(SIZE), "--model.perceptual_scales", "1",
        "--model.motion_extractor.depth", "3",
        "--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu",
        "--trainer.callbacks", "[]", "--trainer.logger", "false",
    ]  # fmt: skip
    main(["fit", *common, "--trainer.max_steps", "2"])
    checkpoints = sorted((tmp_path / "run").rglob("last.ckpt"))
    assert len(checkpoints) == 1
    main(["test", *common, "--ckpt_path", str(checkpoints[0])])
    assert load_component(checkpoints[0], "motion_extractor").spec["depth"] == 3


def test_bad_options_are_refused() -> None:
    for options, match in (
        ({"motion_extractor": {"layers": 3}}, "has no option layers"),
        ({"weights": {"foo": 1.0}}, "has no loss term foo"),
        ({"mouth_share": 1.5}, "mouth_share: expected a number from 0 to 1"),
        ({"renderer": {**RENDERER, "keypoints": 5}}, "got 4 of motion_extractor and 5 of renderer"),
        ({"weights": {"landmark_guide": 1.0}}, "at least 10 keypoints, got 4"),
    ):
        with pytest.raises(ConfigError, match=match):
            stage(**options)
