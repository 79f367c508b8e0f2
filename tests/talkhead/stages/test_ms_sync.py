from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything

from datamodules.base import TalkheadDataModule
from talkhead.batch import SequenceBatch
from talkhead.checkpoint import load_component, read_checkpoint
from talkhead.errors import ConfigError, StageLinkError
from talkhead.geometry.points68 import ibug_points
from talkhead.losses.adversarial import discriminator_loss
from talkhead.metrics.lmd import m_lmd
from talkhead.networks.keypoint_detector import KeypointDetector
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.networks.motion_generator import MotionGenerator
from talkhead.networks.rigid_syncer import RigidSyncer
from talkhead.networks.syncer import SyncerPyramid
from talkhead.report.units import unit_of
from talkhead.stages import keypoint_features, keypoint_scores
from talkhead.stages.keypoint_features import read_run
from talkhead.stages.motion_evaluation import ClipSample
from talkhead.stages.ms_sync import MSSyncStage
from tests.datamodules.fakes import make_prepared
from tests.talkhead.stages.short_runs import Losses, interrupted, trainer

OBSERVED, PREDICTED, LONG = 3, 12, 24
SYNCER: dict[str, Any] = {"levels": 2, "dim": 8, "width": 16, "blocks": 1}
GENERATOR: dict[str, Any] = {
    "layers": 1, "heads": 2, "width": 16, "feedforward": 16, "hidden": 8, "inner": 8, "branches": 2,
}  # fmt: skip
JUDGE: dict[str, Any] = {"width": 16, "inner": 8, "blocks": 1, "hidden": 8, "windows": [5, 10]}


def stage(**options: Any) -> MSSyncStage:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "syncer": dict(SYNCER), "observed_frames": OBSERVED, "predicted_frames": PREDICTED,
        "motion_generator": dict(GENERATOR), "discriminator": dict(JUDGE), "lr": 3e-3,
        "lr_discriminator": 1e-3, **options,
    }  # fmt: skip
    return MSSyncStage(**values).train()


def batch(seed: int = 1, rows: int = 4, frames: int = OBSERVED + PREDICTED) -> SequenceBatch:
    random = torch.Generator().manual_seed(seed)
    walk = 0.01 * torch.randn(rows, frames, 60, generator=random).cumsum(1)
    face = torch.randn(rows, 1, 60, generator=random)
    return SequenceBatch(
        features={
            "keypoints": face + walk,
            "keypoints_mirrored": -face - walk,
            "filter_bank": torch.randn(rows, frames, 104, generator=random) - 8,
        },
        motion=torch.zeros(rows, frames, 1),
        valid=torch.ones(rows, frames, dtype=torch.bool),
        start=torch.arange(rows) % 2 * frames,
        clip=[f"s{i}/c{seed}" for i in range(rows)],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("ms"), frames=90, size=16)


def data(root: Path, **options: Any) -> TalkheadDataModule:
    return TalkheadDataModule(str(root), batch_size=4, epoch_items=16, seed=3, **options)


def test_terms_by_hand() -> None:
    made = stage().eval()
    shown = batch()
    run = read_run(shown, smooth=True)
    motion = made(run)
    terms = made.losses(shown)
    apart = (motion - run.keypoints).unflatten(-1, (10, 6))[:, 1:]
    by_hand = apart.square().sum(-1).mean()  # squared norm over the six numbers
    torch.testing.assert_close(terms["reconstruction"], by_hand)
    torch.testing.assert_close(terms["velocity"], motion.diff(dim=1).abs().mean())
    cosines = [(p * a).sum(-1).mean() for p, a in made.syncer(motion, run.audio)]
    torch.testing.assert_close(terms["av_sync"], -(cosines[0] + cosines[1]) / 2)
    summed = stage(av_reduction="sum").eval().losses(shown)
    torch.testing.assert_close(summed["av_sync"], 2 * terms["av_sync"])
    single = stage(av_levels=[0]).eval().losses(shown)
    torch.testing.assert_close(single["av_sync"], -cosines[0])
    share = stage(av_levels=[0], av_reduction="share").eval().losses(shown)
    torch.testing.assert_close(share["av_sync"], -cosines[0] / 2)  # its weight among both
    shown_to_judge = torch.cat([run.keypoints[:, 1:OBSERVED], motion[:, OBSERVED:]], 1)
    judged = made.discriminator(shown_to_judge, OBSERVED - 1)
    torch.testing.assert_close(terms["gan_frames"], -judged.frames.mean())
    by_length = torch.stack([logits.mean(1) for logits in judged.windows]).mean(0)
    torch.testing.assert_close(terms["gan_windows"], -by_length.mean())


def test_a_roll_out_starts_with_the_real_frame_and_then_is_free() -> None:
    made, shown = stage().eval(), batch()
    run = read_run(shown, smooth=False)
    motion = made(run)
    assert torch.equal(motion[:, 0], run.keypoints[:, 0])
    changed = copy.deepcopy(shown)
    changed.features["keypoints"][:, OBSERVED:] += 1.0
    assert torch.equal(made(read_run(changed, smooth=False)), motion)


def test_a_tiny_fit_lowers_the_loss_and_moves_generator_and_judges_only(
    root: Path, tmp_path: Path
) -> None:
    seed_everything(0)
    made = stage(augment=False)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    noted = Losses()
    fitted = trainer(tmp_path, 40, noted, limit_val_batches=1)
    fitted.fit(made, datamodule=data(root, eval_length=LONG))
    assert fitted.global_step == 40  # the discriminators' steps do not count
    assert sum(noted.values[-5:]) < sum(noted.values[:5])
    moved = {n.split(".")[0] for n, p in made.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"motion_generator", "discriminator"}
    found = fitted.callback_metrics
    weights = made.loss_weights
    supervised = weights["av_sync"] * found["val/loss/av_sync"] + found["val/loss/reconstruction"]
    torch.testing.assert_close(found["val/loss_without_gan"], supervised)
    for scale in (200, 400):
        assert -1.0 <= float(found[f"val/av_cosine_{scale}ms[syncer]"]) <= 1.0
        assert float(found[f"val/av_confidence_{scale}ms[syncer]"]) >= 0.0
    assert {"train/loss_discriminator_frames", "train/loss_discriminator_windows"} <= set(found)


def test_without_weight_on_either_gan_term_there_is_no_adversary(
    root: Path, tmp_path: Path
) -> None:
    made = stage(weights={"gan_frames": 0.0, "gan_windows": 0.0})
    before = {n: p.detach().clone() for n, p in made.discriminator.named_parameters()}
    trainer(tmp_path, 2, limit_val_batches=0).fit(made, datamodule=data(root))
    assert all(torch.equal(p, before[n]) for n, p in made.discriminator.named_parameters())
    assert set(made.losses(batch())) == {"av_sync", "reconstruction", "velocity"}


def test_one_roll_out_may_serve_both_steps(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share, expected in ((False, 2), (True, 1)):
        made = stage(share_roll_out=share)
        calls: list[int] = []
        forward = made.motion_generator.forward

        def counted(*inputs: Any, _forward: Any = forward, _calls: list[int] = calls) -> Any:
            _calls.append(1)
            return _forward(*inputs)

        monkeypatch.setattr(made.motion_generator, "forward", counted)
        before = {n: p.detach().clone() for n, p in made.discriminator.named_parameters()}
        trainer(tmp_path, 3, limit_val_batches=0).fit(made, datamodule=data(root))
        assert len(calls) == 3 * expected
        moved = [not torch.equal(p, before[n]) for n, p in made.discriminator.named_parameters()]
        assert sum(moved) > len(moved) / 2


def test_the_discriminator_learns_from_real_and_generated_runs() -> None:
    made, run = stage(), read_run(batch(), smooth=True)
    with torch.no_grad():
        real, fake = made._judged(run, run.keypoints), made._judged(run, made(run))
        by_hand = [
            torch.relu(1 - r).mean() + torch.relu(1 + f).mean()
            for r, f in ((real.frames, fake.frames), (real.run, fake.run))
        ]
    found = [
        discriminator_loss([real.frames], [fake.frames]),
        discriminator_loss([real.run], [fake.run]),
    ]
    torch.testing.assert_close(found, by_hand)


def test_test_scores_have_a_real_row_and_judges_of_other_points(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    rigid = RigidSyncer(levels=1, dim=8, width=16)
    made = stage(rigid_syncer=rigid.spec)
    made.rigid_syncer.load_state_dict(rigid.state_dict())  # type: ignore[union-attr]  # given above
    fitted = trainer(tmp_path, 1, limit_val_batches=0)
    module = data(root, eval_length=88)
    fitted.fit(made, datamodule=module)
    scores = fitted.test(made, datamodule=module, verbose=False)[0]
    for name in ("av_offset_200ms[syncer]", "av_cosine_400ms[syncer]", "drift_0[keypoints]",
                 "lmd_mouth[warped]", "rigid_offset_200ms[rigid_syncer]", "var[keypoints]"):  # fmt: skip
        assert math.isfinite(scores[f"test/{name}"])
        assert math.isfinite(scores[f"test/gt/{name}"])
    assert scores["test/floor/snd[keypoints]"] > 0
    assert "test/shuffled/av_offset_200ms[syncer]" in scores
    assert [name for name in scores if not unit_of(name.removeprefix("test/"))] == []
    # The real keypoints go through the same warp, which costs little.
    assert scores["test/gt/lmd_mouth[warped]"] < scores["test/shuffled/lmd_mouth[warped]"]
    assert {row["clip"] for row in made.per_clip_results} == {
        r.id for r in module.prepared.rows("test")
    }
    module.teardown("test")


def test_warped_landmarks_against_the_metrics_own_function(root: Path) -> None:
    module = data(root)
    module.attach(stage().needs(), stage().feature_sources())
    module.prepare_data()
    row = module.prepared.rows("test")[0]
    real = torch.from_numpy(module.prepared.landmarks(row))
    made = stage()
    keypoints = made.keypoint_detector(real)
    sample = ClipSample(row.id, 0, keypoints[None], keypoints, torch.zeros(len(real), 104))
    judge = keypoint_scores.LandmarkScores(
        made.keypoint_detector, keypoint_scores.RunData(module.prepared)  # type: ignore[arg-type]  # the mesh's
    )  # fmt: skip
    still = keypoints[:1].expand_as(keypoints)[None]
    frozen = ClipSample(row.id, 0, still, keypoints, sample.audio)
    assert judge(frozen)["lmd_mouth[warped]"] == pytest.approx(
        float(m_lmd(ibug_points(real[:1].expand_as(real)), ibug_points(real))), rel=1e-4
    )
    # The drawn faces of these data move their skin at random, which ten keypoints cannot follow.
    assert judge(sample)["lmd_mouth[warped]"] < 0.8 * judge(frozen)["lmd_mouth[warped]"]


def test_drift_by_hand() -> None:
    frames = 100
    rows = torch.zeros(frames, 10, 6)
    rows[:40, :, 0] = 0.25  # 32 px at 256 to the right in the first stretch
    rows[40:80, :, 1] = 0.5
    real = torch.zeros(frames, 60)
    sample = ClipSample("c", 0, rows.flatten(1)[None], real, torch.zeros(frames, 104))
    assert keypoint_scores.DriftScores()(sample) == pytest.approx(
        {"drift_0[keypoints]": 32.0, "drift_40[keypoints]": 64.0}
    )


def test_sync_scores_of_a_known_shift() -> None:
    random = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(1, 60, 16, generator=random), dim=-1)
    found = keypoint_scores.sync_scores_of([(points, points.roll(3, 1)), (points[:, :2], points[:, :2])],
                                           (200, 400))  # fmt: skip
    assert found["offset_200ms"] == 3.0
    assert found["confidence_200ms"] > 1.0
    assert found["cosine_200ms"] < 0.5
    assert found["cosine_400ms"] == pytest.approx(1.0)
    assert "offset_400ms" not in found  # two windows have no offset


def test_an_interrupted_fit_goes_on_and_its_checkpoint_needs_no_other(
    root: Path, tmp_path: Path
) -> None:
    half, path = interrupted(stage, lambda: data(root), tmp_path)
    back = MSSyncStage.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
    run = read_run(batch(), smooth=True)
    assert torch.equal(back(run), half.eval()(run))
    torch.testing.assert_close(back.syncer.state_dict(), half.syncer.state_dict())
    generator = load_component(path, "motion_generator")
    assert isinstance(generator, MotionGenerator)
    offered = set(read_checkpoint(path)["talkhead"]["components"])
    assert offered == {"motion_generator", "keypoint_detector", "syncer"}
    with pytest.raises(StageLinkError, match="offers"):
        stage(keypoint_renderer=str(path))
    assert isinstance(stage(syncer=str(path)).syncer, SyncerPyramid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"av_levels": [2]}, "some of 0 to 1"),
        ({"av_levels": []}, "some of 0 to 1"),
        ({"predicted_frames": 3}, "at least 9 for the 2 levels"),
        ({"av_reduction": "max"}, "expected mean, sum, share"),
        ({"observed_frames": 1}, "at least 2 observed_frames"),
        ({"betas": [0.5]}, "two numbers"),
        ({"weights": {"gan": 1.0}}, "no loss term gan"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(**options)


def test_keypoints_and_renderer_of_the_published_file(monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = {"width": 4, "max_width": 8, "scale": 0.5}
    detector = KeypointDetector(blocks=2, **small)
    renderer = KeypointRenderer(residual_blocks=1, motion_width=4, motion_max_width=8, motion_blocks=2,
                                **small)  # fmt: skip
    asked: list[str] = []

    def load(path: str) -> tuple[KeypointDetector, KeypointRenderer]:
        asked.append(path)
        return detector, renderer

    monkeypatch.setattr(keypoint_features, "load_fomm", load)
    file = "weights/vox-adv-cpk.pth.tar"
    made = stage(keypoint_detector=file, keypoint_renderer=file, image_size=64)
    assert asked == [file, file]
    assert made.keypoint_detector is detector
    assert made.keypoint_renderer is renderer
    assert not detector.training
    assert not any(p.requires_grad for part in (detector, renderer) for p in part.parameters())
    assert made.feature_sources()["keypoints"].kind == "frames"
    assert made.feature_sources()["keypoints"].size == 64
