"""Keypoint reenactment on a few random pictures: what learns, what is judged, and what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules.base import TalkheadDataModule
from talkhead.batch import FrameBatch, FramePairs, to_float
from talkhead.checkpoint import load_component
from talkhead.errors import ConfigError, StageLinkError
from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.geometry.thin_plate import ThinPlate
from talkhead.losses.equivariance import jacobian_equivariance_loss, point_equivariance_loss
from talkhead.losses.perceptual import multi_scale_perceptual_loss
from talkhead.networks.keypoint_detector import KeypointDetector
from talkhead.networks.keypoint_picture_discriminator import KeypointPictureDiscriminator
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.networks.landmark_keypoints import LandmarkKeypoints
from talkhead.networks.perceptual import VGG19Features
from talkhead.stages import keypoint_reenactment
from talkhead.stages.keypoint_reenactment import KeypointReenactmentStage
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

DETECTOR: dict[str, Any] = {
    "keypoints": 3, "width": 4, "max_width": 8, "blocks": 2, "scale": 0.5,
}  # fmt: skip
RENDERER: dict[str, Any] = {
    "keypoints": 3, "width": 4, "max_width": 8, "downs": 1, "residual_blocks": 1, "motion_width": 4,
    "motion_max_width": 8, "motion_blocks": 2, "scale": 0.5,
}  # fmt: skip
JUDGE = {"keypoints": 3, "width": 4, "max_width": 8, "blocks": 2}


def stage(**options: Any) -> KeypointReenactmentStage:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "image_size": SIZE, "keypoint_detector": DETECTOR, "keypoint_renderer": RENDERER,
        "discriminator": JUDGE, "weights": {"perceptual": 0.0, "pixel": 10.0}, **options,
    }  # fmt: skip
    return KeypointReenactmentStage(**values)


def test_it_asks_for_one_source_and_one_driving_frame() -> None:
    assert stage().needs() == FramePairs(1, SIZE, 0)
    assert stage().stage_name() == "keypoint_reenactment"


def test_all_three_networks_learn(tmp_path: Path) -> None:
    made = stage()
    parts = {name: weights(part) for name, part in made.named_children()}
    run = fit(made, frame_batch, tmp_path, steps=2)
    changed = {name for name, before in parts.items() if moved(getattr(made, name), before)}
    assert changed == {"keypoint_detector", "keypoint_renderer", "discriminator"}
    terms = {k.rpartition("/")[2] for k in run.callback_metrics if k.startswith("train/loss/")}
    assert terms == {*made.default_weights} - {"perceptual"}


def test_without_an_adversary_it_is_left_alone(tmp_path: Path) -> None:
    made = stage(weights={"perceptual": 0.0, "pixel": 1.0, "gan": 0.0, "feature_matching": 0.0})
    before = weights(made.discriminator)
    fit(made, frame_batch, tmp_path, steps=1)
    assert not moved(made.discriminator, before)
    assert not {"gan", "feature_matching"} & set(made.losses(frame_batch()))


def test_it_learns_to_move_a_square(tmp_path: Path) -> None:
    """A white square on grey, at another place in each frame."""

    def squares(seed: int) -> FrameBatch:
        batch = frame_batch(seed)
        g = torch.Generator().manual_seed(seed)
        for frame in (*batch.identity[:, 0], *batch.target):
            x, y = torch.randint(2, SIZE - 10, (2,), generator=g).tolist()
            frame.fill_(100)
            frame[:, y : y + 8, x : x + 8] = 255
        return batch

    made = stage(
        weights={"perceptual": 0.0, "pixel": 10.0, "gan": 0.0, "feature_matching": 0.0},
        lr=1e-2, lr_detector=1e-2, augment=False,
    )  # fmt: skip
    with torch.no_grad():
        before = [float(made.losses(squares(900 + i))["pixel"]) for i in range(4)]
    fit(made, squares, tmp_path, steps=40)
    with torch.no_grad():
        after = [float(made.losses(squares(900 + i))["pixel"]) for i in range(4)]
    assert sum(after) < 0.5 * sum(before)


def test_terms_are_the_losses_of_the_parts() -> None:
    """Detected one by one and put together by hand."""
    made, batch = stage().eval(), frame_batch()
    source, driving = to_float(batch.identity[:, 0]), to_float(batch.target)
    with torch.no_grad():
        passed = made.generator_pass(batch)
        warp = made._drawn_warp(2)
        of_source, of_driving, of_warped = (
            made.keypoint_detector(x)
            for x in (source, driving, warp.pictures(driving, align_corners=True))
        )
        fake = made.keypoint_renderer(source, of_source, of_driving)
        real_out, fake_out = (made.discriminator(x, of_driving.points)[0] for x in (driving, fake))
    torch.testing.assert_close(passed.fake, fake, atol=1e-5, rtol=1e-4)
    assert passed.condition is not None
    torch.testing.assert_close(passed.condition, of_driving.points)
    expected = {
        "equivariance_points": point_equivariance_loss(of_driving, of_warped, warp),
        "equivariance_jacobians": jacobian_equivariance_loss(of_driving, of_warped, warp),
        "gan": (1 - fake_out[0]).square().mean(),
        "feature_matching": torch.stack(
            [(r - f).abs().mean() for r, f in zip(real_out[1], fake_out[1], strict=True)]
        ).sum(),
        "pixel": (fake - driving).abs().mean(),
    }
    for name, value in expected.items():
        assert float(passed.terms[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-6), name


def test_the_judge_is_shown_the_keypoints_and_teaches_the_detector_nothing(tmp_path: Path) -> None:
    made = stage()
    shown: list[tuple[Tensor, Tensor]] = []
    made.discriminator.register_forward_hook(lambda module, args, out: shown.append(args))
    fit(made, frame_batch, tmp_path, steps=1)
    assert len(shown) == 4  # generated and real, for the generator and for the judge itself
    assert all(torch.equal(points, shown[0][1]) for _, points in shown)
    assert all(not points.requires_grad for _, points in shown)
    assert shown[0][0].requires_grad
    assert not shown[2][0].requires_grad


def test_sample_shows_source_driving_and_result() -> None:
    made, batch = stage().eval(), frame_batch()
    with torch.no_grad():
        frames = made.sample_frames(batch)
        wanted = [batch.identity[:, 0], batch.target, made.predict_step(batch, 0)]
    assert frames.shape == (2, SIZE, 3 * SIZE, 3)
    for column, picture in enumerate(wanted):
        part = frames[:, :, column * SIZE : (column + 1) * SIZE]
        torch.testing.assert_close(part.permute(0, 3, 1, 2), picture.cpu())


def test_validation_names_what_copying_the_source_would_score(tmp_path: Path) -> None:
    batch = frame_batch()
    made = stage()
    (found,) = trainer(tmp_path, 1).validate(made, Batches(lambda _: batch, 1), verbose=False)
    source, driving = to_float(batch.identity[:, 0]), to_float(batch.target)
    error = (source - driving).square().mean()
    psnr = 10 * torch.log10(4 / error)
    assert found["val/psnr_of_source"] == pytest.approx(float(psnr), rel=1e-4)
    assert {"val/psnr", "val/ssim", "val/loss", "val/loss/equivariance_points"} <= set(found)
    (again,) = trainer(tmp_path, 1).validate(made, Batches(lambda _: batch, 1), verbose=False)
    assert again == found  # the warp of the equivariance terms is fixed in evaluation


def test_augmentation_treats_both_frames_alike_and_only_in_training() -> None:
    made, batch = stage(), frame_batch()
    batch.identity[:, 0] = batch.target
    torch.manual_seed(3)
    source, driving, landmarks, _ = made.train()._pictures(batch)
    assert torch.equal(source, driving)
    assert not torch.equal(driving, to_float(batch.target))
    source, driving, landmarks, _ = made.eval()._pictures(batch)
    assert torch.equal(driving, to_float(batch.target))
    assert torch.equal(landmarks, batch.landmarks)
    still = stage(augment=False).train()._pictures(batch)[1]
    assert torch.equal(still, driving)


def test_perceptual_term_over_the_asked_number_of_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taps(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x * k for k in range(1, 6)]

    made = stage(perceptual_scales=2).eval()
    assert made.vgg is None
    made.loss_weights["perceptual"] = 10.0
    monkeypatch.setattr(made, "vgg", Taps())
    with torch.no_grad():
        passed = made.generator_pass(frame_batch())
    expected = multi_scale_perceptual_loss(Taps(), passed.fake, passed.real, 2)
    assert float(passed.terms["perceptual"]) == pytest.approx(float(expected), rel=1e-5)
    assert VGG19Features(**made.vgg_options).imagenet_statistics


@pytest.mark.parametrize("align", [True, False])
def test_pictures_are_warped_on_the_grid_that_the_renderer_samples(align: bool) -> None:
    made = stage(keypoint_renderer={**RENDERER, "align_corners": align})
    seen: list[bool] = []

    class Noted(ThinPlate):
        def pictures(self, pictures: Tensor, *, align_corners: bool) -> Tensor:
            seen.append(align_corners)
            return super().pictures(pictures, align_corners=align_corners)

    drawn = made._drawn_warp
    made._drawn_warp = lambda n: Noted(*drawn(n))  # type: ignore[method-assign]
    made.losses(frame_batch())
    assert seen == [align]


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
    for name, cls in (
        ("keypoint_detector", KeypointDetector),
        ("keypoint_renderer", KeypointRenderer),
    ):
        exported, own = load_component(path, name), getattr(half, name)
        assert type(exported) is cls
        assert exported.spec == own.spec
        assert torch.equal(weights(exported), weights(own))
    again = KeypointReenactmentStage.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(weights(again), weights(half))
    assert isinstance(again.discriminator, KeypointPictureDiscriminator)


def test_it_starts_from_an_earlier_run(tmp_path: Path) -> None:
    first = stage()
    run = fit(first, frame_batch, tmp_path, steps=1)
    path = tmp_path / "first.ckpt"
    run.save_checkpoint(path)
    second = stage(keypoint_detector=str(path), keypoint_renderer=str(path))
    before = weights(second.keypoint_detector)
    assert torch.equal(before, weights(first.keypoint_detector))
    assert second.keypoint_renderer.training
    run = fit(second, frame_batch, tmp_path, steps=1)
    assert moved(second.keypoint_detector, before)
    run.save_checkpoint(tmp_path / "second.ckpt")
    path.unlink()
    KeypointReenactmentStage.load_from_checkpoint(tmp_path / "second.ckpt", weights_only=True)
    with pytest.raises(StageLinkError, match="found no file"):
        stage(keypoint_detector=str(path))


def test_published_weights_are_the_start_and_their_file_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def small(
        path: str, sha256: str | None, *, align_corners: bool
    ) -> tuple[KeypointDetector, KeypointRenderer]:
        asked.append((path, sha256))
        return (
            KeypointDetector(**DETECTOR, provenance="file:0123"),
            KeypointRenderer(**RENDERER, provenance="file:0123"),
        )

    monkeypatch.setattr(keypoint_reenactment, "load_fomm", small)
    published: dict[str, Any] = {"keypoint_detector": None, "keypoint_renderer": None}
    made = stage(fomm_weights="vox.tar", fomm_sha256="01234567", **published)
    assert asked == [("vox.tar", "01234567")]
    assert made.keypoint_detector.spec["provenance"] == "file:0123"
    run = fit(made, frame_batch, tmp_path, steps=1)
    run.save_checkpoint(tmp_path / "last.ckpt")
    monkeypatch.undo()
    again = KeypointReenactmentStage.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(weights(again), weights(made))
    assert load_component(tmp_path / "last.ckpt", "keypoint_renderer").spec["provenance"] == (
        "trained from file:0123"
    )
    with pytest.raises(ConfigError, match="leave them null"):
        stage(fomm_weights="vox.tar")


def driven(**options: Any) -> KeypointReenactmentStage:
    """A renderer of landmarks."""
    values: dict[str, Any] = {
        "detector": "landmarks", "keypoint_detector": None,
        "keypoint_renderer": {**RENDERER, "keypoints": 10}, "discriminator": {**JUDGE, "keypoints": 10},
    }  # fmt: skip
    return stage(**values | options)


def faces(seed: int) -> FrameBatch:
    """Grey pictures with a white square on the nose of a face somewhere in them."""
    batch = frame_batch(seed)
    g = torch.Generator().manual_seed(seed)
    mesh = 0.3 * torch.from_numpy(canonical_landmarks().copy())
    at = 0.3 + 0.4 * torch.rand(2, 2, 1, 2, generator=g)
    landmarks = mesh.expand(2, 2, -1, -1).clone()
    landmarks[..., :2] += at
    pictures = torch.full((2, 2, 3, SIZE, SIZE), 100, dtype=torch.uint8)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = (at[row, column, 0] * SIZE).long().tolist()
        pictures[row, column, :, y - 4 : y + 4, x - 4 : x + 4] = 255
    batch.identity, batch.target = pictures[:, :1], pictures[:, 1]
    batch.identity_landmarks, batch.landmarks = landmarks[:, :1], landmarks[:, 1]
    return batch


def test_landmarks_drive_the_renderer_which_alone_learns(tmp_path: Path) -> None:
    made = driven(lr=1e-2, augment=False, weights={"perceptual": 0.0, "pixel": 10.0, "gan": 0.0,
                                                   "feature_matching": 0.0})  # fmt: skip
    assert made.needs() == FramePairs(1, SIZE, 0, identity_landmarks=True)
    parts = {name: weights(part) for name, part in made.named_children() if list(part.parameters())}
    assert set(parts) == {"keypoint_renderer", "discriminator"}
    terms = made.losses(faces(0))
    assert set(terms) == {"pixel", "region"}
    with torch.no_grad():
        before = sum(float(made.losses(faces(900 + i))["pixel"]) for i in range(4))
    fit(made, faces, tmp_path, steps=40)
    with torch.no_grad():
        after = sum(float(made.losses(faces(900 + i))["pixel"]) for i in range(4))
    assert after < 0.5 * before
    assert {name for name, was in parts.items() if moved(getattr(made, name), was)} == {
        "keypoint_renderer"
    }


def test_keypoints_are_those_of_each_frames_own_landmarks() -> None:
    made, batch = driven().eval(), faces(3)
    shown: list[Any] = []
    made.keypoint_renderer.register_forward_hook(lambda module, args, out: shown.append(args))
    with torch.no_grad():
        passed = made.generator_pass(batch)
    _, of_source, of_driving = shown[0]
    net = LandmarkKeypoints()
    for found, landmarks in (
        (of_source, batch.identity_landmarks[:, 0]),
        (of_driving, batch.landmarks),
    ):
        wanted = net.of_mesh(landmarks)
        torch.testing.assert_close(found.points, wanted.points)
        torch.testing.assert_close(found.jacobians, wanted.jacobians)
    assert passed.condition is not None
    assert torch.equal(passed.condition, of_driving.points)


def test_mirrored_pictures_are_driven_by_the_landmarks_of_mirrored_faces() -> None:
    made, batch = driven().train(), faces(4)
    batch.identity, batch.identity_landmarks = batch.target[:, None], batch.landmarks[:, None]
    face = 0.3 * torch.from_numpy(canonical_landmarks().copy())
    sides = set()
    for seed in range(6):
        torch.manual_seed(seed)
        pair = made._pictures(batch)
        assert pair.source_landmarks is not None
        assert torch.equal(pair.source_landmarks, pair.landmarks)
        # The face is symmetric: mirrored in the mesh's order, it is the same face somewhere else.
        shift = pair.landmarks - face
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-5, rtol=0)
        sides |= set((shift[:, 0, 0] - batch.landmarks[:, 0, 0]).abs().lt(0.01).tolist())
    assert sides == {True, False}


def test_a_renderer_of_landmarks_is_resumed_and_handed_over(tmp_path: Path) -> None:
    root = make_prepared(tmp_path, frames=20, size=SIZE)
    half, path = interrupted(
        driven, lambda: TalkheadDataModule(str(root), batch_size=2, epoch_items=8, seed=3), tmp_path
    )
    detector = load_component(path, "keypoint_detector")
    assert isinstance(detector, LandmarkKeypoints)
    renderer = load_component(path, "keypoint_renderer")
    assert torch.equal(weights(renderer), weights(half.keypoint_renderer))
    again = KeypointReenactmentStage.load_from_checkpoint(path, weights_only=True)
    assert isinstance(again.keypoint_detector, LandmarkKeypoints)
    assert torch.equal(weights(again), weights(half))


def test_what_does_not_go_with_landmarks_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected the 10 of detector: landmarks, got 3"):
        driven(keypoint_renderer=RENDERER)
    with pytest.raises(ConfigError, match="LandmarkKeypoints has no option width"):
        driven(keypoint_detector={"width": 4})
    with pytest.raises(ConfigError, match="or detector: landmarks as well"):
        driven(fomm_weights="vox.tar", keypoint_renderer=None)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no option depth"):
        stage(keypoint_detector={"depth": 3})
    with pytest.raises(ConfigError, match="has no loss term foo"):
        stage(weights={"foo": 1.0})
    with pytest.raises(ConfigError, match="two or more control points"):
        stage(warp_side=1).losses(frame_batch())
