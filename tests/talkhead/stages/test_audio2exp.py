from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from callbacks.alpha_ramp import AlphaRamp
from datamodules.base import TalkheadDataModule
from talkhead.batch import SpeechRunBatch
from talkhead.checkpoint import load_component
from talkhead.errors import ConfigError, DataError
from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.geometry.mouth_box import run_boxes
from talkhead.geometry.points68 import ibug_points
from talkhead.media.encode import write_wav
from talkhead.networks.audio2exp import Audio2Exp
from talkhead.networks.component import weights_digest
from talkhead.stages.audio2exp import Audio2ExpStage
from talkhead.stages.silence import silence_window
from talkhead.stages.speech_features import speech_front
from tests.datamodules.fakes import make_prepared
from tests.talkhead.stages.short_runs import Losses, interrupted, trainer

SIZE, KEYPOINTS, FRAMES, WINDOW, MEL = 32, 5, 3, 6, 160
EXTRACTOR: dict[str, Any] = {
    "keypoints": KEYPOINTS, "width": 4, "max_width": 8, "blocks": 2, "scale": 0.5, "depth": 2,
    "head_width": 4, "head_widths": [8, 16], "head_blocks": [1, 1],
}  # fmt: skip
RENDERER: dict[str, Any] = {
    "keypoints": KEYPOINTS, "width": 4, "max_width": 8, "downs": 1, "channels": 2, "depth": 2,
    "residual_blocks": 1, "compress": 2, "motion_width": 4, "motion_max_width": 8, "motion_blocks": 1,
    "mask_kernel": 3, "middle_blocks": 1, "guide_width": 4,
}  # fmt: skip
EXPERT: dict[str, Any] = {
    "front": "mel", "feature_dim": MEL, "window": WINDOW, "frames": FRAMES, "side": 16, "dim": 16,
    "audio_widths": [16], "video_widths": [4, 8], "blocks": 1,
}  # fmt: skip
EXPERIMENTS = Path(__file__).parents[3] / "experiments"
WEIGHTS = {"outside": 1.0}
FROZEN = ("motion_extractor", "renderer", "sync_expert")


def stage(**options: Any) -> Audio2ExpStage:
    torch.manual_seed(0)
    values = {
        "motion_extractor": dict(EXTRACTOR), "renderer": dict(RENDERER), "sync_expert": dict(EXPERT),
        "image_size": SIZE, "weights": dict(WEIGHTS), "test_clips": 0, **options,
    }  # fmt: skip
    return Audio2ExpStage(**values).train()


def batch(seed: int = 1, rows: int = 4, runs: int = 1) -> SpeechRunBatch:
    random = torch.Generator().manual_seed(seed)
    face = torch.from_numpy(0.25 * canonical_landmarks().astype(np.float32)) + 0.5
    points = ibug_points(face)[:, :2].expand(rows, runs, FRAMES, -1, -1)
    frames = torch.randint(256, (rows, runs, FRAMES, 3, SIZE, SIZE), generator=random)
    return SpeechRunBatch(
        frames=frames.to(torch.uint8),
        points=points + 0.01 * torch.randn(points.shape, generator=random),
        speech=torch.rand(rows, runs, WINDOW, MEL, generator=random),
        frame_speech=torch.rand(rows, runs, FRAMES, WINDOW, MEL, generator=random),
        frame_index=torch.arange(runs).expand(rows, runs),
        clip=[str(i) for i in range(rows)],
    )


def trained(**options: Any) -> Audio2ExpStage:
    """A stage whose adapter does something."""
    made = stage(audio2exp={"zero_module": False}, **options)
    with torch.no_grad():
        made.audio2exp.linear.weight.mul_(5)
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("adapter"), frames=40, size=SIZE)


def data(root: Path, **options: Any) -> TalkheadDataModule:
    return TalkheadDataModule(str(root), batch_size=2, epoch_items=8, seed=3, **options)


# -- training ------------------------------------------------------------------------------------


def test_a_tiny_fit_lowers_the_loss_and_moves_the_adapter_alone(root: Path, tmp_path: Path) -> None:
    seed_everything(0)
    made, noted = stage(lr=3e-2, silent_share=0.0), Losses()
    before = {n: weights_digest(getattr(made, n)) for n in (*FROZEN, "audio2exp")}
    learning = [name for name, p in made.named_parameters() if p.requires_grad]
    assert learning == ["audio2exp.linear.weight", "audio2exp.linear.bias"]
    run = trainer(tmp_path, 40, noted, AlphaRamp(5), limit_val_batches=2)
    run.fit(made, datamodule=data(root))
    assert sum(noted.values[-8:]) < sum(noted.values[:8])
    after = {n: weights_digest(getattr(made, n)) for n in before}
    assert {n for n in before if before[n] != after[n]} == {"audio2exp"}
    found = run.callback_metrics
    assert {"val/cosine_adapted", "val/portrait_cosine_unadapted", "train/alpha"} <= set(found)


def test_frozen_parts_stay_in_eval() -> None:
    made = stage().train()
    assert [made.get_submodule(name).training for name in FROZEN] == [False] * 3
    assert made.audio2exp.training
    first, second = (made.hear(batch().speech[:, 0]) for _ in range(2))
    assert torch.equal(first, second)  # no dropout


def test_an_interrupted_fit_goes_on_with_the_same_losses(root: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr": 1e-2, "still_share": 0.5, "foreign_share": 0.5, "runs": 2}
    half, path = interrupted(lambda: stage(**options), lambda: data(root), tmp_path)
    again = Audio2ExpStage.load_from_checkpoint(path, weights_only=True)
    for name in (*FROZEN, "audio2exp"):
        part = load_component(path, name)
        assert weights_digest(part) == weights_digest(getattr(half, name))
        assert weights_digest(getattr(again, name)) == weights_digest(part)
    assert isinstance(load_component(path, "audio2exp"), Audio2Exp)
    assert torch.equal(again._silence(), half._silence())
    assert bool(again._buffers["silence_heard"])


def test_fit_and_test_from_the_command_line(root: Path, tmp_path: Path, run: Any) -> None:
    parts = {"motion_extractor": EXTRACTOR, "renderer": RENDERER, "sync_expert": EXPERT}
    common = [
        f"--data.root={root}", "--data.num_workers=0", "--data.batch_size=2", "--trainer.callbacks=[]",
    ]  # fmt: skip
    folder = run(
        "fit", f"--config={EXPERIMENTS / 'runs' / '72_audio2exp.yaml'}", *common,
        *(f"--model.{name}={json.dumps(spec)}" for name, spec in parts.items()),
        f"--model.image_size={SIZE}", "--model.weights.outside=1", "--data.epoch_items=4",
        "--trainer.max_steps=2", "--trainer.limit_val_batches=1",
        "--trainer.callbacks+=callbacks.alpha_ramp.AlphaRamp",
    )  # fmt: skip
    checkpoint = folder / "checkpoints" / "last.ckpt"
    tested = run(
        "test", f"--ckpt_path={checkpoint}", *common, "--model.test_clips=1", "--data.test_items=2",
        "--model.test_alphas=[0.5]", "--model.test_frames=30", folder="test",
    )  # fmt: skip
    written = json.loads((tested / "metrics.json").read_text())
    assert written["stage"] == "audio2exp"
    assert {"portrait_sync_confidence[sync_expert]", "video_outside_change_alpha_0.5"} <= set(
        written["metrics"]
    )


# -- what is rendered and judged -------------------------------------------------------------------


def test_step_0_draws_the_expression_it_found() -> None:
    made = stage().eval()
    assert not made.losses(batch())["delta"].any()
    run = made._read(batch())
    look = made.look(run.pictures.flatten(0, 1))
    heard = made.hear(run.windows.flatten(0, 1))
    bare = made.renderer(look.appearance, look.keypoints, look.keypoints).picture
    torch.testing.assert_close(made(look, heard, 1.5), bare)


def test_terms_by_hand() -> None:
    """The same numbers from the parts, one frame after the other."""
    made, given = trained(weights={"outside": 1.0, "delta": 1.0}), batch(rows=2)
    made.eval()
    with torch.no_grad():
        terms = made.losses(given)
        expert, extractor = made.sync_expert, made.motion_extractor
        quiet = expert.audio(made._silence()[None])
        deltas, again, drawn = [], [], []
        for b in range(2):
            for t in range(FRAMES):
                face = given.frames[b, 0, t][None].float() * 2 / 255 - 1
                canonical, head = extractor.canonical(face), extractor.head(face)
                rest = head.expression + made.audio2exp(head.expression, quiet)
                again.append(made.audio2exp(rest, quiet).square().mean())
                said = rest + made.audio2exp(rest, expert.audio(given.frame_speech[b, :, t]))
                deltas.append((said - head.expression).abs().mean())
                source = extractor.keypoints(canonical, head)
                moved = source - head.expression + said
                volume = made.renderer.appearance(face)
                drawn.append(made.renderer(volume, moved, source).picture)
        faces = torch.cat(drawn).unflatten(0, (2, FRAMES))
        lips = expert.video(expert.mouths(faces, given.points[:, 0]))
        cosine = torch.cosine_similarity(lips, expert.audio(given.speech[:, 0]))
    torch.testing.assert_close(terms["delta"], torch.stack(deltas).mean())
    torch.testing.assert_close(terms["rest"], torch.stack(again).mean())
    torch.testing.assert_close(terms["sync"], -cosine.clamp(1e-3, 1 - 1e-3).log().mean())
    assert "perceptual" not in terms  # no weights were given
    assert float(terms["outside"]) > 0


def test_a_face_held_still_is_compared_with_the_frames_that_were_filmed() -> None:
    made, given = stage(still_share=1.0, silent_share=0.0), batch(rows=2)
    head = made.motion_extractor.head
    with torch.no_grad():
        terms = made.losses(given)
        faces = given.frames[:, 0].float() * 2 / 255 - 1
        found = torch.stack([head(run).expression for run in faces])
    assert not terms["delta"].any()  # nothing is learned yet: every frame keeps the first one's
    torch.testing.assert_close(terms["expression"], (found[:, :1] - found).square().mean())
    assert float(terms["expression"]) > 0


def test_frames_of_a_video_are_their_own_answer() -> None:
    with torch.no_grad():
        untouched, changed = stage().losses(batch()), trained().losses(batch())
    assert not untouched["expression"].any()
    assert float(changed["expression"]) >= float(changed["delta"]) ** 2 > 0  # Jensen


def test_alpha_scales_both_passes_in_training() -> None:
    made, given = trained(silent_share=1.0), batch()
    run = made._read(given)
    look = made.look(run.pictures.flatten(0, 1))
    for alpha in (0.0, 0.25):
        made.alpha = alpha
        said = made.audio2exp.edited(
            look.head.expression,
            made.hear(run.windows.flatten(0, 1)),
            alpha,
            silence=made.hear(made._silence()[None]),
            silence_alpha=alpha,
        )
        expected = (said - look.head.expression).abs().mean()
        torch.testing.assert_close(made.losses(given)["delta"], expected)
    assert made.eval().losses(given)["delta"] > 2 * expected  # in evaluation alpha is 1


def test_runs_are_varied_in_training_alone() -> None:
    given = batch(runs=2)
    made = stage(still_share=1.0, foreign_share=1.0, runs=2)
    assert not torch.equal(made._read(given).heard, given.speech.flatten(0, 1))
    assert torch.equal(made.eval()._read(given).heard, given.speech.flatten(0, 1))


def test_the_perceptual_term_leaves_the_mouth_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stage(weights={"perceptual": 1.0})
    seen: list[Tensor] = []

    class Taps:
        def to(self, device: Any) -> Taps:
            return self

        def __call__(self, pictures: Tensor) -> list[Tensor]:
            seen.append(pictures)
            return [pictures] * 5

    made._vgg.append(Taps())  # type: ignore[arg-type]  # a stand-in for VGG-19
    terms = made.losses(batch(rows=1))
    assert float(terms["perceptual"].detach()) > 0
    assert len(seen) == 4  # source and drawn frames in two sizes
    left, top, right, bottom = run_boxes(batch(rows=1).points[0, 0])[0].tolist()
    middle = (int(SIZE * (top + bottom) / 2), int(SIZE * (left + right) / 2))
    assert all(bool((p[:, :, middle[0], middle[1]] == 0).all()) for p in seen[:2])


# -- silence ----------------------------------------------------------------------------------------


def test_silence_is_heard_once_and_kept(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "silence.wav"
    tone = 0.1 * np.sin(np.arange(16_000) / 5).astype(np.float32)
    write_wav(file, tone)
    made = stage(silence=str(file))
    made.hear_silence()
    expected = speech_front("mel", None).features(torch.from_numpy(tone))[:WINDOW]
    torch.testing.assert_close(made._silence(), expected, atol=2e-2, rtol=0)  # 16 bits in the file
    assert not torch.equal(made._silence(), torch.zeros(WINDOW, MEL))
    file.unlink()
    made.hear_silence()  # not again
    digital = silence_window(speech_front("mel", None), WINDOW)
    assert torch.equal(digital, torch.zeros(WINDOW, MEL))
    with pytest.raises(DataError, match="no media file"):
        stage(silence=str(file)).hear_silence()


def test_a_file_shorter_than_a_window_is_no_silence(tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", np.zeros(1_000, np.float32))
    with pytest.raises(DataError, match=r"at least 0\.36 s"):
        silence_window(speech_front("mel", None), 18, str(tmp_path / "short.wav"))


def test_the_first_batches_may_learn_without_a_picture(root: Path, tmp_path: Path) -> None:
    weights = {"expression": 1.0, "rest": 1.0, "sync": 1.0}
    made = stage(undrawn_batches=2, still_share=1.0, weights=weights, lr=1e-2)
    made.renderer.forward = _never  # type: ignore[method-assign]  # a renderer that must not be asked
    run = trainer(tmp_path, 2, limit_val_batches=0)
    run.fit(made, datamodule=data(root))
    assert bool(made.audio2exp.linear.weight.any())
    assert {"train/loss/expression", "train/loss/rest"} <= set(run.callback_metrics)
    assert "train/loss/sync" not in run.callback_metrics
    then = trainer(tmp_path, 3, limit_val_batches=0)
    then.fit(stage(undrawn_batches=2, weights=weights), datamodule=data(root))
    assert "train/loss/sync" in then.callback_metrics


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("something was drawn")


def test_the_rate_falls_in_steps() -> None:
    made = stage(lr=1.0, lr_decay=0.5, lr_decay_batches=2)
    settings: Any = made.configure_optimizers()
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]
    with pytest.raises(ConfigError, match=r"got 0\.5 and 0; a factor of 1 keeps the rate"):
        stage(lr_decay=0.5, lr_decay_batches=0).configure_optimizers()


# -- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"silent_share": 1.5}, "silent_share: expected a number from 0 to 1"),
        ({"foreign_share": 0.5}, "2 for speech of another run"),
        ({"betas": [0.9]}, "betas: expected two numbers"),
        ({"test_modes": ["dubbing"]}, "test_modes: expected some of video, portrait"),
        ({"test_alphas": [-0.5]}, "numbers of at least 0"),
        ({"audio2exp": {"width": 3}}, "has no option width"),
        ({"weights": {"lips": 1.0}}, "has no loss term lips"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(**options)


def test_checkpoints_need_no_files_of_others(root: Path, tmp_path: Path) -> None:
    made = stage(hubert={"kind": "large", "weights_path": "gone.pth"})
    run = trainer(tmp_path, 1, limit_val_batches=0)
    run.fit(made, datamodule=data(root))
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = Audio2ExpStage.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.hubert is None
