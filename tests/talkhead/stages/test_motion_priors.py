from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from callbacks.ema import EMA
from datamodules.base import TalkheadDataModule
from talkhead.batch import Sequences
from talkhead.checkpoint import load_component, read_checkpoint
from talkhead.diffusion.sampler import CleanFrames, SamplerSettings, Start
from talkhead.diffusion.target import TARGETS, Target, from_x0
from talkhead.errors import ConfigError, SpecError
from talkhead.metrics.floor import halves_floor
from talkhead.metrics.snd import snd
from talkhead.networks.component import weights_digest
from talkhead.networks.prior import PriorNetwork
from talkhead.stages.motion_ar import MotionARStage
from talkhead.stages.motion_diffusion import MotionDiffusionStage
from talkhead.stages.motion_evaluation import ClipSample, derangement
from talkhead.stages.motion_features import feature_statistics
from talkhead.stages.motion_jumps import JumpScores
from talkhead.stages.motion_prior import MotionPriorStage
from tests.datamodules.fakes import make_prepared
from tests.oracles.toy_motion import AUDIO_DIM, CODE_DIM
from tests.talkhead.stages.motion_toys import (
    PARTS,
    PRIOR,
    ToyData,
    autoregressive,
    diffusion,
    toy_batch,
    trainer,
    with_statistics,
)

BOTH = [diffusion, autoregressive]
Maker = Callable[..., MotionPriorStage]
FAST = SamplerSettings(steps=3)
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .* does not have many workers",
    "ignore:The number of training batches",
    "ignore:The dirpath has changed",
    "ignore:You defined a `validation_step` but have no",
)


def _ready(make: Maker, **options: Any) -> MotionPriorStage:
    torch.manual_seed(0)
    stage = with_statistics(make(sampler=FAST, **options)).eval()
    for parameter in stage.prior.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return stage


@pytest.mark.parametrize("make", BOTH)
def test_says_what_it_needs(make: Maker) -> None:
    stage = make()
    assert stage.needs() == Sequences(length=16)
    sources = stage.feature_sources()
    assert {n: (s.kind, s.dim) for n, s in sources.items()} == {
        "audio": ("mel", AUDIO_DIM),
        "nonlip": ("frames", CODE_DIM),
    }
    assert sources["nonlip"].size == stage.video_spec.size
    assert sources["nonlip"].module(torch.zeros(2, 3, 32, 32)).shape == (2, CODE_DIM)
    assert sources["audio"].module(torch.zeros(2, 1, 80, 20)).shape == (2, AUDIO_DIM)
    before = sources["nonlip"].digest
    with torch.no_grad():
        next(stage.nonlip_head.parameters()).add_(1.0)
    assert stage.feature_sources()["nonlip"].digest != before


@pytest.mark.parametrize("make", BOTH)
def test_fit_lowers_the_loss_moves_only_the_prior_and_takes_statistics(
    make: Maker, tmp_path: Path
) -> None:
    seed_everything(1)
    stage = make(sampler=FAST)
    frozen = {n: weights_digest(getattr(stage, n)) for n in PARTS}
    data = ToyData()
    run = trainer(tmp_path, 40)
    run.validate(stage, data, verbose=False)
    run = trainer(tmp_path, 40)
    start = weights_digest(stage.prior)
    run.fit(stage, data)
    last = {k: float(v) for k, v in run.callback_metrics.items()}
    assert weights_digest(stage.prior) != start
    assert {n: weights_digest(getattr(stage, n)) for n in PARTS} == frozen
    codes = data.whole.features["nonlip"].flatten(0, 1)
    torch.testing.assert_close(stage.prior.code_mean, codes.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stage.prior.code_std, codes.std(0), rtol=1e-3, atol=1e-3)
    assert last["val/loss/simple"] < 1.0  # predicting the mean scores 1
    assert {"val/loss", "val/loss/velocity", "val/snd[code]", "train/loss/simple"} <= set(last)


@pytest.mark.parametrize("make", BOTH)
def test_validation_without_samples_has_the_losses(make: Maker, tmp_path: Path) -> None:
    run = trainer(tmp_path, 1)
    run.validate(make(validation_clips=0), ToyData(), verbose=False)
    assert "val/loss" in run.callback_metrics
    assert "val/snd[code]" not in run.callback_metrics


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_reload_and_resume_repeat_the_uninterrupted_run(make: Maker, tmp_path: Path) -> None:
    seed_everything(2)
    stage = make(sampler=FAST)
    trainer(tmp_path, 5).fit(stage, ToyData())
    checkpoint = tmp_path / "step=3.ckpt"
    again = type(stage).load_from_checkpoint(checkpoint)
    assert bool(again.prior.has_statistics)
    assert again.sampler == SamplerSettings()  # chosen anew, never restored
    assert "sampler" not in read_checkpoint(checkpoint)["hyper_parameters"]
    seed_everything(2)
    resumed = make(sampler=FAST)
    trainer(tmp_path / "resumed", 5).fit(resumed, ToyData(), ckpt_path=str(checkpoint))
    assert weights_digest(resumed.prior) == weights_digest(stage.prior)


def test_prior_is_exported_with_its_statistics(tmp_path: Path) -> None:
    stage = diffusion(sampler=FAST)
    trainer(tmp_path, 1).fit(stage, ToyData())
    prior = load_component(tmp_path / "step=1.ckpt", "prior")
    assert isinstance(prior, PriorNetwork)
    torch.testing.assert_close(prior.code_std, stage.prior.code_std)
    audio = load_component(tmp_path / "step=1.ckpt", "audio_encoder")
    assert weights_digest(audio) == weights_digest(stage.audio_encoder)


def test_both_priors_have_the_same_parameters() -> None:
    ours, theirs = diffusion().prior, autoregressive().prior
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    assert {k for k in ours.spec if ours.spec[k] != theirs.spec[k]} == {"causal"}


# -- diffusion losses ------------------------------------------------------------------------------


def test_diffusion_losses_follow_the_generator_and_ignore_padding() -> None:
    stage = _ready(diffusion)
    batch = toy_batch(short=9)

    def score(seed: int) -> Tensor:
        assert isinstance(stage, MotionDiffusionStage)
        return stage.score(batch, torch.Generator().manual_seed(seed))["simple"].detach()

    first = score(5)
    assert torch.equal(first, score(5))
    assert not torch.equal(first, score(6))
    batch.features["nonlip"][-1, 9:] = 1e4
    batch.features["audio"][-1, 9:] = -1e4
    torch.testing.assert_close(score(5), first)


def test_training_draws_come_from_the_global_generator() -> None:
    stage, batch = _ready(diffusion), toy_batch()
    torch.manual_seed(4)
    first = stage.losses(batch)["velocity"].detach()
    torch.manual_seed(4)
    assert torch.equal(first, stage.losses(batch)["velocity"].detach())


def test_clean_frames_are_drawn_in_the_stated_shares() -> None:
    stage = diffusion(editing_share=0.1, prefix_share=0.25, free_share=0.25)
    valid = torch.ones(20_000, 16, dtype=torch.bool)
    valid[:, 12:] = False
    given = stage.draw_clean_frames(valid, torch.Generator().manual_seed(0))
    assert not bool(given[:, 12:].any())
    prefix = given.long().cumprod(1).sum(1)
    is_prefix = (prefix > 0) & (prefix == given.sum(1))
    # a random row is a prefix by chance: frame 0 and no other, and so on
    by_chance = sum(0.1**k * 0.9 ** (12 - k) for k in range(1, 13))
    assert float(is_prefix.float().mean()) == pytest.approx(0.25 + 0.5 * by_chance, abs=0.01)
    none = (given.sum(1) == 0).float().mean()
    assert float(none) == pytest.approx(0.25 + 0.5 * 0.9**12, abs=0.01)
    lengths = prefix[is_prefix]
    assert int(lengths.max()) >= 10
    assert float((lengths == 1).float().mean()) > 0.3
    random = diffusion(prefix_share=0.0, free_share=0.0)
    share = random.draw_clean_frames(valid, torch.Generator().manual_seed(1))[:, :12].float().mean()
    assert float(share) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("target", TARGETS)
def test_a_network_that_knows_the_target_has_no_loss_and_samples_the_codes(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, batch = _ready(diffusion, target=target, schedule="linear"), toy_batch()
    assert isinstance(stage, MotionDiffusionStage)
    codes = stage.prior.standardise(batch.features["nonlip"])

    def known(x: Tensor, step: Tensor, *_: Any, **__: Any) -> Tensor:
        alpha, sigma = stage.schedule.coefficients(step, x.double())
        rows = codes.repeat(len(x) // len(codes), 1, 1).double()  # guidance stacks two halves
        return from_x0(target, rows, x.double(), alpha, sigma)

    monkeypatch.setattr(stage.prior, "forward", known)
    monkeypatch.setattr(stage.prior, "evaluate", known)
    for name, loss in stage.score(batch, torch.Generator().manual_seed(0)).items():
        assert float(loss) < 1e-6, name
    made = stage.sample(batch.features["audio"], [0, 1, 2, 3])
    torch.testing.assert_close(made, batch.features["nonlip"], atol=2e-3, rtol=1e-3)


def test_losses_by_hand_for_a_network_that_says_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, steps = toy_batch(), 1000
    for target in TARGETS:
        stage = _ready(diffusion, target=target, train_editing=False, condition_drop=0.0)
        assert isinstance(stage, MotionDiffusionStage)
        monkeypatch.setattr(stage.prior, "forward", lambda x, *_, **__: torch.zeros_like(x))
        found = stage.score(batch, torch.Generator().manual_seed(3))
        draw = torch.Generator().manual_seed(3)
        codes = stage.prior.standardise(batch.features["nonlip"])
        step = torch.randint(steps, (4,), generator=draw)
        noise = torch.randn(codes.shape, generator=draw)
        alpha = stage.schedule.alpha[step].float()[:, None, None]
        sigma = stage.schedule.sigma[step].float()[:, None, None]
        wanted, implied_error = {
            "x0": (codes, codes),
            "eps": (noise, noise * (sigma / alpha) * (alpha / sigma).clamp(max=1)),
            "v": (alpha * noise - sigma * codes, sigma * (alpha * noise - sigma * codes)),
        }[target]
        torch.testing.assert_close(found["simple"], wanted.square().mean(), rtol=1e-3, atol=0)
        change = implied_error.diff(dim=1).square().mean()
        torch.testing.assert_close(found["velocity"], change, rtol=1e-3, atol=0)


def test_editing_can_be_switched_off() -> None:
    stage = diffusion(train_editing=False)
    assert not bool(stage.draw_clean_frames(torch.ones(50, 16, dtype=torch.bool), None).any())


# -- autoregressive losses -------------------------------------------------------------------------


@pytest.mark.parametrize("first_token", ["zeros", "reference"])
def test_teacher_forcing_shifts_by_one_frame(first_token: Any) -> None:
    stage = autoregressive(first_token=first_token)
    codes = torch.arange(1.0, 9.0).reshape(1, 8, 1).expand(1, 8, CODE_DIM)
    before, given = stage.previous_codes(codes)
    expected = [1.0 if first_token == "reference" else 0.0, *range(1, 8)]
    torch.testing.assert_close(before[0, :, 0], torch.tensor(expected))
    assert given[0].tolist() == [first_token == "reference"] + [True] * 7


def test_scheduled_sampling_changes_inputs_not_targets() -> None:
    batch = toy_batch()
    plain, mixed = _ready(autoregressive), _ready(autoregressive, scheduled_sampling=1.0)
    mixed.prior.load_state_dict(plain.prior.state_dict())
    generator = torch.Generator().manual_seed(0)
    a, b = plain.score(batch, None)["simple"], mixed.score(batch, generator)["simple"]
    assert a.item() != b.item()
    b.backward()
    assert mixed.prior.output.weight.grad is not None


def test_look_ahead_shifts_the_sound_and_a_stream_alike() -> None:
    stage = autoregressive(look_ahead=3)
    audio = torch.arange(10.0).reshape(1, 10, 1)
    expected = [3, 4, 5, 6, 7, 8, 9, 9, 9, 9]
    assert stage.audio_ahead(audio)[0, :, 0].tolist() == expected
    valid = torch.arange(10)[None] < 6
    assert stage.audio_ahead(audio, valid)[0, :6, 0].tolist() == [3, 4, 5, 5, 5, 5]
    for block in (1, 2, 4, 10):
        pieces = list(stage.stream_ahead(audio.split(block, 1)))
        assert torch.cat(pieces, 1)[0, :, 0].tolist() == expected
    assert torch.cat(list(stage.stream_ahead([audio[:, :2]])), 1)[0, :, 0].tolist() == [1, 1]


# -- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("frames", [1, 9, 16, 17, 40])
def test_samples_have_any_length_and_the_scale_of_the_codes(make: Maker, frames: int) -> None:
    stage = _ready(make)
    stage.prior.output.weight.data.zero_()
    stage.prior.output.bias.data.zero_()  # predicts the mean of the codes
    codes = stage.sample(torch.randn(2, frames, AUDIO_DIM))
    assert codes.shape == (2, frames, CODE_DIM)
    torch.testing.assert_close(codes, stage.prior.code_mean.expand_as(codes))


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmpp2m"])
def test_a_sample_does_not_depend_on_its_batch(kind: Any) -> None:
    stage = _ready(diffusion)
    settings = SamplerSettings(kind=kind, steps=4, guidance=2.5)
    audio = torch.randn(3, 20, AUDIO_DIM, generator=torch.Generator().manual_seed(1))
    together = stage.sample(audio, [7, 8, 9], settings=settings)
    alone = stage.sample(audio[1:2], [8], settings=settings)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)
    other = stage.sample(audio[1:2], [80], settings=settings)
    assert float((other - alone).abs().max()) > 1e-2


@pytest.mark.parametrize("make", [*BOTH, lambda **o: autoregressive(look_ahead=2, **o)])
def test_stream_equals_whole(make: Maker) -> None:
    stage = _ready(make)
    audio = torch.randn(1, 45, AUDIO_DIM, generator=torch.Generator().manual_seed(2))
    whole = stage.sample(audio, [3])
    pieces = list(stage.sample_stream(audio.split(7, 1), [3]))
    assert len(pieces) > 1
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [*BOTH, lambda **o: diffusion(train_editing=False, **o)])
def test_given_frames_come_back_as_given(make: Maker) -> None:
    stage = _ready(make)
    audio = torch.randn(2, 30, AUDIO_DIM)
    mask = torch.zeros(2, 30, dtype=torch.bool)
    mask[:, [0, 12, 21]] = True
    clean = CleanFrames(torch.randn(2, 30, CODE_DIM), mask)
    codes = stage.sample(audio, [1, 2], clean=clean)
    torch.testing.assert_close(codes[mask], clean.codes[mask], rtol=1e-4, atol=1e-4)
    kept = {frame: clean.codes[:, frame] for frame in (0, 12, 21)}
    stream = torch.cat(list(stage.sample_stream(audio.split(7, 1), [1, 2], kept=kept)), 1)
    torch.testing.assert_close(stream, codes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", BOTH)
def test_samples_of_a_test_may_begin_with_the_portrait(make: Maker) -> None:
    stage = _ready(make)
    batch = toy_batch(2, 16, seed=3)
    cases: list[tuple[Start, bool]] = [("noise", False), ("portrait", True)]
    for start, given in cases:
        stage.sampler = replace(FAST, start=start)
        for item in stage._items(batch, takes=3):
            same = (item.generated[:, 0] - item.real[0]).abs().amax(-1) < 1e-3
            assert same.tolist() == [given] * 3
    with pytest.raises(ConfigError, match="start out of noise, portrait"):
        SamplerSettings(start="middle")  # type: ignore[arg-type]  # the point of the test


def test_reference_token_is_the_portraits_code() -> None:
    stage = _ready(autoregressive, first_token="reference")
    audio = torch.randn(1, 10, AUDIO_DIM, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 10, dtype=torch.bool)
    mask[:, 0] = True
    a = stage.sample(audio, clean=CleanFrames(torch.full((1, 10, CODE_DIM), 2.0), mask))
    b = stage.sample(audio, clean=CleanFrames(torch.full((1, 10, CODE_DIM), -2.0), mask))
    assert float((a[:, 1:] - b[:, 1:]).abs().max()) > 1e-3


@pytest.mark.parametrize(("guidance", "rows"), [(2.5, 4), (1.0, 2), (0.0, 2)])
def test_ten_seconds_cost_at_most_the_stated_evaluations(
    guidance: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = _ready(diffusion, prior={**PRIOR, "max_length": 128})
    evaluations: list[int] = []
    projections: list[int] = []
    evaluate, project = stage.prior.evaluate, stage.prior.project

    def counted_evaluate(x: Tensor, *rest: Any) -> Tensor:
        evaluations.append(len(x))
        return evaluate(x, *rest)

    def counted_project(audio: Tensor, *rest: Any) -> Tensor:
        projections.append(len(audio))
        return project(audio, *rest)

    monkeypatch.setattr(stage.prior, "evaluate", counted_evaluate)
    monkeypatch.setattr(stage.prior, "project", counted_project)
    settings = SamplerSettings(guidance=guidance)
    stage.sample(torch.zeros(2, 250, AUDIO_DIM), [0, 1], settings=settings)
    assert evaluations == [rows] * 24  # 12 steps, 2 windows
    assert len(projections) == (4 if rows == 4 else 2)  # once a window and branch, not once a step


# -- test and predict ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", BOTH)
def test_test_scores_model_and_baselines(make: Maker, tmp_path: Path) -> None:
    stage = _ready(make, takes=3)
    seen: list[ClipSample] = []

    def extra(sample: ClipSample) -> dict[str, float]:
        seen.append(sample)
        return {"length[extra]": float(sample.real.shape[0])}

    stage.clip_evaluators.append(extra)
    data = ToyData(eval_frames=24)
    run = trainer(tmp_path, 1)
    metrics = run.test(stage, data, verbose=False)[0]
    names = ("var", "fid_fm", "fid_dfm", "snd", "snd_pooled")
    for prefix in ("test/", "test/floor/", "test/mean/", "test/shuffled/"):
        assert all(f"{prefix}{name}[code]" in metrics for name in names), prefix
    assert metrics["test/mean/var[code]"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["test/length[extra]"] == pytest.approx((24 * 3 + 20) / 4)
    assert metrics["test/snd[code]"] == pytest.approx(
        metrics["test/fid_fm[code]"] + metrics["test/fid_dfm[code]"], rel=1e-5
    )
    if make is autoregressive:
        assert metrics["test/multimodality[code]"] == pytest.approx(0.0, abs=1e-6)
    else:
        assert metrics["test/multimodality[code]"] > 0.1
    rows = stage.per_clip_results
    assert [row["clip"] for row in rows] == [f"clip3-{i}" for i in range(4)]
    assert stage.test_scores is not None
    assert len(stage.test_scores.samples) == 4
    model = [s for s in seen if s.variant == "model"]
    assert model[0].generated.shape == (3, 24, CODE_DIM)
    assert model[-1].generated.shape == (3, 20, CODE_DIM)
    one = model[1]
    expected = snd(one.generated, one.real.expand(3, -1, -1), standard=stage.standard).mean()
    assert rows[1]["snd[code]"] == pytest.approx(float(expected), rel=1e-6)
    floor = halves_floor(one.real, standard=stage.standard)
    assert rows[1]["floor/snd[code]"] == pytest.approx(float(floor), rel=1e-6)
    assert {"gt/var[code]", "mean/snd[code]", "shuffled/snd[code]"} < set(rows[1])
    assert "gt/snd[code]" not in rows[1]


@pytest.mark.parametrize("make", BOTH)
def test_jumps_are_measured_at_borders_and_at_edited_frames(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = _ready(make)
    score = JumpScores(stage, stage.standard, "code")
    torch.manual_seed(1)
    real, audio = torch.randn(40, CODE_DIM), torch.randn(40, AUDIO_DIM)
    steps = real.diff(dim=0).div(stage.standard[1]).norm(dim=1)
    sample = ClipSample("a", 0, real[None], real, audio, variant="gt")
    found = score(sample)
    borders, edits = [16, 31], [12, 13, 37, 38]
    for name, at in (("border_jump[code]", borders), ("edit_jump[code]", edits)):
        others = [t for t in range(1, 40) if t not in at]
        wanted = steps[[t - 1 for t in at]].mean() / steps[[t - 1 for t in others]].mean()
        assert found[name] == pytest.approx(float(wanted), rel=1e-5)
    made: list[Tensor] = []
    plain = stage.sample

    def kept(*args: Any, **options: Any) -> Tensor:
        made.append(plain(*args, **options))
        return made[-1]

    monkeypatch.setattr(stage, "sample", kept)
    score(replace(sample, variant="model"))
    (edited,) = made
    torch.testing.assert_close(edited[0, [12, 37]], real[[12, 37]], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(edited[0, 13], real[13], atol=1e-2)
    assert score(replace(sample, variant="mean")) == {}
    assert set(score(replace(sample, generated=real[None, :10]))) == set()


def test_sampler_settings_change_the_test_not_the_model(tmp_path: Path) -> None:
    stage = _ready(diffusion)
    first = stage.predict_step(toy_batch(), 0)
    stage.sampler = SamplerSettings(kind="ddim", steps=5)
    second = stage.predict_step(toy_batch(), 0)
    assert float((first[0].generated - second[0].generated).abs().max()) > 1e-3
    stage.sampler = FAST
    again = stage.predict_step(toy_batch(), 0)
    assert torch.equal(first[0].generated, again[0].generated)
    assert first[0].generated.shape[0] == 2
    assert not torch.equal(first[0].generated[0], first[0].generated[1])


def test_runs_too_short_to_score_are_named(caplog: pytest.LogCaptureFixture) -> None:
    items = _ready(diffusion).predict_step(toy_batch(short=5), 0)
    assert len(items) == 3
    assert "clip0-3" in caplog.text


def test_shuffling_pairs_other_clips() -> None:
    assert derangement(["a", "a", "b"]) == [2, 2, 0]
    assert derangement(["a"]) == [0]


# -- refusals --------------------------------------------------------------------------------------


def test_statistics_need_frames_and_a_datamodule(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="talkhead datamodule"):
        trainer(tmp_path, 1).fit(diffusion(), ToyData().train_dataloader())
    found = feature_statistics([{"nonlip": torch.full((9, 2), 1e4), "audio": torch.ones(9, 1)}])
    torch.testing.assert_close(found["code_mean"], torch.full((2,), 1e4))
    torch.testing.assert_close(found["code_std"], torch.zeros(2))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (diffusion, {"prior": {"causal": True}}, "causal follow"),
        (diffusion, {"prior": {"depth": 3}}, "depth"),
        (diffusion, {"takes": 0}, "at least 1 take"),
        (diffusion, {"editing_share": 1.5}, "editing_share 1.5"),
        (diffusion, {"prefix_share": 0.7, "free_share": 0.7}, "prefix_share \\+ free_share"),
        (diffusion, {"weights": {"speed": 1.0}}, "no loss term speed"),
        (autoregressive, {"first_token": "noise"}, "first_token"),
        (autoregressive, {"look_ahead": -1}, "look_ahead"),
    ],
)
def test_refuses_bad_options(make: Maker, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_refuses_another_picture_size_than_the_encoders(tmp_path: Path) -> None:
    stage = diffusion(sampler=FAST, image_size=64)
    trainer(tmp_path, 1).fit(stage, ToyData())
    path = str(tmp_path / "step=1.ckpt")
    assert diffusion(motion_encoder=path, image_size=64).video_spec.size == 64
    with pytest.raises(SpecError, match=r"set model\.image_size to 64"):
        diffusion(motion_encoder=path)


def test_refuses_a_wrong_number_of_seeds() -> None:
    with pytest.raises(ConfigError, match="expected 2 seeds"):
        _ready(diffusion).sample(torch.zeros(2, 5, AUDIO_DIM), [1])


def test_stage_names() -> None:
    assert (MotionDiffusionStage.stage_name(), MotionARStage.stage_name()) == (
        "motion_diffusion",
        "motion_ar",
    )


# -- with a prepared set ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", BOTH)
def test_from_a_prepared_set_to_scores_in_descriptors(make: Maker, tmp_path: Path) -> None:
    data = TalkheadDataModule(
        str(make_prepared(tmp_path / "set")), batch_size=4, feature_device="cpu"
    )
    stage = make(sampler=FAST, image_size=32, prior={**PRIOR, "dropout": 0.0})
    run = trainer(tmp_path / "run", 2)
    run.fit(stage, data)
    again = type(stage).load_from_checkpoint(tmp_path / "run" / "step=2.ckpt")
    assert again.readout is not None
    assert stage.readout is not None
    torch.testing.assert_close(again.readout.weight, stage.readout.weight)
    assert not any(name.startswith("readout") for name in again.state_dict())
    kept = load_component(tmp_path / "run" / "step=2.ckpt", "readout")
    assert weights_digest(kept) == weights_digest(stage.readout)
    again.sampler = FAST
    metrics = trainer(tmp_path / "test", 1).test(again, data, verbose=False)[0]
    assert {"test/snd[code]", "test/snd[readout]", "test/floor/snd[readout]"} <= set(metrics)
    assert any(name.startswith("test/readout_r2") for name in metrics)


def test_average_of_the_weights_keeps_the_readout(tmp_path: Path) -> None:
    data = TalkheadDataModule(
        str(make_prepared(tmp_path / "set")), batch_size=4, feature_device="cpu"
    )
    stage = diffusion(sampler=FAST, image_size=32)
    # Validation comes first and must leave nothing in the stage that its average has not.
    trainer(tmp_path / "run", 3, EMA(0.5), num_sanity_val_steps=1).fit(stage, data)
    again = MotionDiffusionStage.load_from_checkpoint(tmp_path / "run" / "step=3.ckpt")
    assert again.readout is not None
    assert bool(again.prior.has_statistics)
    torch.testing.assert_close(again.prior.code_mean, stage.prior.code_mean)
