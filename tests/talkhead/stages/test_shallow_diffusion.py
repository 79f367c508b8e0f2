from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything

from datamodules.base import TalkheadDataModule
from talkhead.batch import SequenceBatch
from talkhead.checkpoint import load_component, read_checkpoint
from talkhead.diffusion.shallow import StartStep, boundary_step, squares
from talkhead.errors import ConfigError
from talkhead.losses.motion_streams import independence_loss
from talkhead.networks.landmark_motion_model import LandmarkMotionModel
from talkhead.report.units import unit_of
from talkhead.stages.landmark_features import read_run
from talkhead.stages.landmark_terms import TermOptions, motion_terms
from talkhead.stages.shallow_diffusion import ShallowDiffusionStage
from tests.datamodules.fakes import make_prepared
from tests.talkhead.networks.test_landmark_motion_model import TINY
from tests.talkhead.stages.short_runs import Losses, interrupted, trainer

FRAMES = TINY["max_length"]


def stage(motion_model: dict[str, Any] | None = None, **options: Any) -> ShallowDiffusionStage:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "motion_model": {**TINY, **(motion_model or {})}, "lr": 3e-3, "sampling_steps": 6, "overlap": 4,
        "validation_clips": 2, **options,
    }  # fmt: skip
    return ShallowDiffusionStage(**values).train()


def batch(seed: int = 1, rows: int = 4, frames: int = FRAMES) -> SequenceBatch:
    random = torch.Generator().manual_seed(seed)
    walk = 0.02 * torch.randn(rows, frames, 136, generator=random).cumsum(1)
    return SequenceBatch(
        features={
            "points68": 0.2 * torch.randn(rows, 1, 136, generator=random) + walk,
            "mel_rows": torch.rand(rows, frames, 320, generator=random),
            "prosody": torch.randn(rows, frames, 4, generator=random),
        },
        motion=torch.zeros(rows, frames, 1),
        valid=torch.ones(rows, frames, dtype=torch.bool),
        start=torch.arange(rows) % 2 * frames,
        clip=[f"s{i}/c{seed}" for i in range(rows)],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("shallow"), frames=60, size=16)


def data(root: Path, **options: Any) -> TalkheadDataModule:
    return TalkheadDataModule(str(root), batch_size=4, epoch_items=16, seed=3, **options)


def test_terms_by_hand() -> None:
    made, run, known = stage().eval(), read_run(batch()), 3
    model, first = made.motion_model, run.rows[:, 0]
    assert model.pose is not None
    found = motion_terms(model, run, known, first, TermOptions())
    face, motion = model.face(first), model.relative(run.rows, first)
    heard = model.hear(run.mel, run.prosody)
    coarse = model.coarse(heard, motion[:, :known], face)
    apart = (coarse.motion - motion)[:, known:]
    torch.testing.assert_close(found.terms["reconstruction"], apart.square().mean())
    codes = model.pose.encode(motion - heard.rhythm.offsets, face[:, None])
    still = model.pose.decode(torch.zeros_like(codes), codes) - codes
    by_hand = still[:, 1:].square().mean() + still[:, :-1].square().mean()
    torch.testing.assert_close(found.terms["regularisation"], by_hand)
    back = model.pose.decode(codes[:, :-1] - codes[:, 1:], codes[:, 1:])
    torch.testing.assert_close(found.terms["cycle"], (back - codes[:, :-1]).square().mean())
    assert coarse.pose_codes is not None
    torch.testing.assert_close(
        found.terms["independence"],
        independence_loss(heard.rhythm.codes[:, known:], coarse.pose_codes),
    )
    boundary = boundary_step(
        *squares(coarse.motion[:, known:], motion[:, known:]),
        (FRAMES - known) * 136,
        model.schedule,
    )
    wanted = (model.predicted_share(coarse, face) - boundary.float() / 40).square().mean()
    torch.testing.assert_close(found.terms["step"], wanted)
    literal = motion_terms(model, run, known, first, TermOptions("literal", "l1", "l1"))
    assert coarse.pose_codes is not None
    codes_apart = heard.rhythm.codes[:, known:] - coarse.pose_codes
    torch.testing.assert_close(literal.terms["independence"], codes_apart.abs().mean())
    torch.testing.assert_close(literal.terms["reconstruction"], apart.abs().mean())


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_a_denoiser_that_knows_the_answer_has_no_diffusion_loss(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, run = stage({"target": target}), read_run(batch())
    model, schedule = made.motion_model, made.motion_model.schedule
    motion = model.relative(run.rows, run.rows[:, 0])

    def oracle(shown: Any, step: Any, told: Any, *, given: Any) -> Any:
        assert torch.equal(shown[:, 0], motion[:, 0])  # known frames are shown clean
        assert torch.equal(given[:, :2], torch.tensor([True, False]).expand(4, 2))
        alpha, sigma = schedule.coefficients(step, motion)
        noise = (shown - alpha * motion) / sigma
        left = motion - told[..., :136] - told[..., 136:272]  # what the two streams leave open
        return {"x0": left, "eps": noise, "v": alpha * noise - sigma * left}[target]

    assert model.denoiser is not None
    monkeypatch.setattr(model.denoiser, "forward", oracle)
    terms = motion_terms(model, run, 1, run.rows[:, 0], TermOptions()).terms
    assert terms["diffusion"].item() == pytest.approx(0.0, abs=1e-6)


def test_the_denoisers_loss_does_not_reach_the_streams_nor_the_steps_the_denoiser() -> None:
    made = stage()
    terms = motion_terms(
        made.motion_model, read_run(batch()), 1, read_run(batch()).rows[:, 0], TermOptions()
    ).terms
    reached = {}
    for name in ("diffusion", "step", "reconstruction"):
        made.zero_grad()
        terms[name].backward(retain_graph=True)
        reached[name] = {
            n.split(".")[1]
            for n, p in made.named_parameters()
            if p.grad is not None and p.grad.any()
        }
    assert reached == {
        "diffusion": {"denoiser"},
        "step": {"predictor"},
        "reconstruction": {"content", "pose", "rhythmic"},
    }


def test_training_below_a_step_draws_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = stage(train_below=5), []
    assert made.motion_model.denoiser is not None
    forward = made.motion_model.denoiser.forward

    def noted(shown: Any, step: Any, told: Any, **options: Any) -> Any:
        seen.extend(step.tolist())
        return forward(shown, step, told, **options)

    monkeypatch.setattr(made.motion_model.denoiser, "forward", noted)
    for seed in range(8):
        made.losses(batch(seed))
    assert set(seen) == set(range(5))


@pytest.mark.parametrize(
    ("variant", "missing"),
    [
        ({"pose_stream": False}, {"regularisation", "cycle", "independence"}),
        ({"rhythmic_stream": False}, {"independence"}),
        ({"diffusion": False}, {"diffusion", "step"}),
    ],
    ids=["no pose", "no rhythm", "no diffusion"],
)
def test_variants_have_the_terms_of_their_parts(
    variant: dict[str, bool], missing: set[str]
) -> None:
    full = set(stage().losses(batch()))
    assert full - set(stage(variant).losses(batch())) == missing


def test_windows_begin_as_they_do_in_a_chain() -> None:
    run = read_run(batch())
    seen = {stage(chain_share=1.0)._beginning(run)[0]}
    made = stage(chain_share=1.0)
    portraits = set()
    for _ in range(40):
        known, first = made._beginning(run)
        assert 1 <= known < FRAMES
        seen.add(known)
        portraits.add(int((run.rows[0] == first[0]).all(-1).nonzero()[0]))
    assert len(seen) > 4
    assert len(portraits) > 6
    known, first = stage(chain_share=0.0)._beginning(run)
    assert known == 1
    assert torch.equal(first, run.rows[:, 0])


def test_a_tiny_fit_lowers_the_loss_moves_all_parts_and_calibrates_the_step(
    root: Path, tmp_path: Path
) -> None:
    seed_everything(0)
    made = stage(chain_share=0.2)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    noted = Losses()
    fitted = trainer(tmp_path, 40, noted)
    fitted.fit(made, datamodule=data(root, eval_length=24))
    assert sum(noted.values[-5:]) < sum(noted.values[:5])
    still = {n for n, p in made.named_parameters() if torch.equal(p, before[n])}
    assert still == set()
    found = fitted.callback_metrics
    assert bool(made.motion_model.has_statistics)
    assert int(found["val/shallow_step"]) == int(made.motion_model.calibrated_step)
    calibrated = made._calibration.step(made.motion_model.schedule)
    assert int(made.motion_model.calibrated_step) == calibrated
    assert math.isfinite(found["val/snd[landmarks]"])
    total = sum(made.loss_weights[k] * found[f"val/loss/{k}"] for k in made.loss_weights)
    torch.testing.assert_close(found["val/loss"], total)


def test_validation_without_samples_has_the_losses_and_the_step(root: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, 1)
    run.validate(stage(validation_clips=0), datamodule=data(root), verbose=False)
    assert {"val/loss", "val/shallow_step"} <= set(run.callback_metrics)
    assert "val/snd[landmarks]" not in run.callback_metrics


def test_scores_of_a_test_say_what_the_step_costs(root: Path, tmp_path: Path) -> None:
    made = stage()
    module = data(root, eval_length=48)
    fitted = trainer(tmp_path, 1, limit_val_batches=0)
    fitted.fit(made, datamodule=module)
    counts = {}
    starts: tuple[StartStep, ...] = (0, 10, "noise")
    for start in starts:
        made.start_step = start
        scores = fitted.test(made, datamodule=module, verbose=False)[0]
        counts[start] = scores["test/network_evaluations"]
        assert scores["test/sampling_time"] > 0
    assert counts[0] == 0.0
    assert counts[0] < counts[10] < counts["noise"] == 6.0
    for name in ("lmd_mouth[px256]", "lmd_face[px256]", "var[landmarks]", "snd[landmarks]",
                 "multimodality[landmarks]"):  # fmt: skip
        assert math.isfinite(scores[f"test/{name}"])
        assert unit_of(name)
    assert scores["test/floor/snd[landmarks]"] > 0
    assert "test/shuffled/lmd_mouth[px256]" in scores
    assert [name for name in scores if not unit_of(name.removeprefix("test/"))] == []
    assert {row["clip"] for row in made.per_clip_results} == {
        r.id for r in module.prepared.rows("test")
    }


def test_takes_differ_and_do_not_depend_on_the_batch() -> None:
    made = stage().eval()
    samples = made._samples(batch(), 2)
    assert not torch.allclose(samples[0].generated[0], samples[0].generated[1])
    torch.testing.assert_close(samples[0].generated[:, 0], samples[0].real[:1].expand(2, -1))
    alone = batch()
    for name, value in alone.features.items():
        alone.features[name] = value[1:2]  # type: ignore[index]  # a dict in fact
    alone.start, alone.clip = alone.start[1:2], alone.clip[1:2]
    torch.testing.assert_close(
        made._samples(alone, 2)[0].generated, samples[1].generated, rtol=1e-3, atol=1e-4
    )


def test_an_interrupted_fit_goes_on_and_its_checkpoint_is_enough(
    root: Path, tmp_path: Path
) -> None:
    half, path = interrupted(stage, lambda: data(root), tmp_path)
    half.motion_model.calibrated_step.fill_(17)
    model = load_component(path, "motion_model")
    assert isinstance(model, LandmarkMotionModel)
    assert bool(model.has_statistics)
    torch.testing.assert_close(model.motion_std, half.motion_model.motion_std)
    assert set(read_checkpoint(path)["talkhead"]["components"]) == {"motion_model"}
    back = ShallowDiffusionStage.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    back.motion_model.calibrated_step.fill_(17)
    torch.testing.assert_close(
        back.eval()._samples(batch(), 1)[0].generated, half.eval()._samples(batch(), 1)[0].generated
    )


def test_the_calibrated_step_is_part_of_the_checkpoint(root: Path, tmp_path: Path) -> None:
    made = stage()
    fitted = trainer(tmp_path, 1, limit_val_batches=0)
    fitted.fit(made, datamodule=data(root))
    made.motion_model.calibrated_step.fill_(13)
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    model = load_component(tmp_path / "last.ckpt", "motion_model")
    assert int(model.calibrated_step) == 13  # type: ignore[arg-type]  # a buffer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": [0.5]}, "two numbers"),
        ({"independence": "equal"}, "decorrelated, literal"),
        ({"norm": "l3"}, "norm: expected one of l2, l1"),
        ({"chain_share": 1.5}, r"chain_share in \[0, 1\]"),
        ({"takes": 0}, "at least 1 of takes"),
        ({"start_step": 41}, "start_step: expected 0 to 40"),
        ({"train_below": 0}, "train_below: expected 1 to 40"),
        ({"overlap": 16}, "overlap: expected 1 to 15"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"weights": {"gan": 1.0}}, "no loss term gan"),
        ({"motion_model": {"wide": 1}}, "no option wide"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(**options)
