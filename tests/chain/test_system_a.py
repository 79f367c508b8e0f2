"""System A end to end in tiny sizes, each stage reading the checkpoint the one before just wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from talkhead.__main__ import main
from talkhead.checkpoint import read_block, read_checkpoint
from talkhead.corpus.state import FaceState
from talkhead.errors import TalkheadError
from talkhead.generation.prior import TalkingHead
from talkhead.generation.speech import speech_level
from talkhead.media.decode import iter_frames, probe, read_audio
from talkhead.media.encode import write_wav
from talkhead.stages.av_contrastive import AVContrastiveStage
from talkhead.stages.lip_disentangle import LipDisentangleStage
from tests.chain.recipes import DIM, SIZE


@pytest.mark.parametrize(
    ("stage", "offered"),
    [
        ("10", {"identity_encoder", "motion_encoder", "generator"}),
        ("20", {"audio_encoder", "contrastive_head", "motion_encoder"}),
        (
            "30",
            {
                "nonlip_head",
                "lip_head",
                "generator",
                "identity_encoder",
                "motion_encoder",
                "audio_encoder",
            },
        ),
        (
            "40",
            {
                "prior",
                "readout",
                "nonlip_head",
                "lip_head",
                "generator",
                "identity_encoder",
                "motion_encoder",
                "audio_encoder",
            },
        ),
    ],
)
def test_checkpoint_offers_its_parts(chain: dict[str, Path], stage: str, offered: set[str]) -> None:
    block = read_block(read_checkpoint(chain[stage]), chain[stage])
    assert set(block["components"]) == offered
    assert block["batches_seen"] == 3
    assert block["data"]["data_fingerprint"]


def test_frozen_parts_pass_through_bit_for_bit(chain: dict[str, Path]) -> None:
    digests = {
        n: read_block(read_checkpoint(chain[n]), n)["components"] for n in ("10", "20", "30", "40")
    }
    for name, first in (
        ("motion_encoder", "10"),
        ("identity_encoder", "10"),
        ("audio_encoder", "20"),
    ):
        found = {n: d[name]["digest"] for n, d in digests.items() if name in d}
        assert set(found.values()) == {digests[first][name]["digest"]}


def test_parts_that_go_on_learning_are_in_training_mode(chain: dict[str, Path]) -> None:
    first, second = str(chain["10"]), str(chain["20"])
    gan = LipDisentangleStage(
        first, first, second, image_size=SIZE, generator=first, train_identity=True
    )
    contrastive = AVContrastiveStage(first, image_size=SIZE, train_motion_encoder=True)
    learning = [gan.generator, gan.identity_encoder, contrastive.motion_encoder]
    assert all(part.training for part in learning)
    assert all(p.requires_grad for part in learning for p in part.parameters())
    frozen = [
        gan.motion_encoder,
        gan.audio_encoder,
        AVContrastiveStage(first, image_size=SIZE).motion_encoder,
    ]
    assert not any(part.training for part in frozen)


def test_gan_steps_count_batches(chain: dict[str, Path]) -> None:
    assert read_checkpoint(chain["10"])["global_step"] == 3
    assert read_checkpoint(chain["30"])["global_step"] == 3


@pytest.mark.parametrize("stage", ["20", "30", "40", "41"])
def test_test_writes_metrics_after_the_predecessors_are_gone(
    chain: dict[str, Path], tmp_path: Path, stage: str
) -> None:
    before = sorted((chain["data"] / "features").glob("*/feature.json"))
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(chain[stage].read_bytes())
    options = [
        "test", f"--ckpt_path={alone}", "--data=TalkheadDataModule", f"--data.root={chain['data']}",
        "--data.batch_size=2", "--data.eval_length=200", f"--trainer.default_root_dir={tmp_path}",
        "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    main(options)
    found = json.loads((tmp_path / "metrics.json").read_text())
    wanted = {"20": "test/offset_within", "30": "test/psnr"}.get(stage, "test/snd[code]")
    assert wanted in found["metrics"] or wanted.removeprefix("test/") in found["metrics"]
    assert all(np.isfinite(v) for v in found["metrics"].values() if v is not None)
    assert (tmp_path / "samples.npz").exists() == stage.startswith("4")
    # The restored encoders find the features of the fit; new ones would be those of random weights.
    assert sorted((chain["data"] / "features").glob("*/feature.json")) == before


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A drawn portrait and one second of a buzzing voice."""
    cv2 = pytest.importorskip("cv2")
    from talkhead.render.painted_face import IDENTITY_SEEDS, Identity, PaintedFace

    folder = tmp_path_factory.mktemp("inputs")
    face = PaintedFace(Identity.from_seed(IDENTITY_SEEDS[0]), 256).draw(FaceState.neutral(), 0)
    cv2.imwrite(str(folder / "face.png"), face[..., ::-1])
    cv2.imwrite(str(folder / "wall.png"), np.full((128, 128, 3), 127, np.uint8))
    time_s = np.arange(16_000) / 16_000
    wave = 0.2 * np.sign(np.sin(2 * np.pi * 120 * time_s)) * (np.sin(2 * np.pi * 3 * time_s) > 0)
    write_wav(folder / "voice.wav", wave.astype(np.float32))
    write_wav(folder / "silence.wav", np.zeros(16_000, np.float32))
    return {p.stem: p for p in folder.iterdir()}


def generate(
    chain: dict[str, Path], inputs: dict[str, Path], out: Path, *more: str, **changes: str
) -> None:
    options = {
        "portrait": inputs["face"], "speech": inputs["voice"], "checkpoint": chain["40"], "out": out,
        "size": "64", **changes,
    }  # fmt: skip
    main(["generate", *(f"--{name}={value}" for name, value in options.items()), *more])


def test_generate_writes_a_marked_video_with_sound(
    chain: dict[str, Path], inputs: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "talk.mp4"
    generate(chain, inputs, out, renderer="generator,mesh", seed="0,1")
    frames = list(iter_frames(out))
    assert len(frames) == 25
    assert frames[0].shape == (64, 4 * 64, 3)
    generator, mesh, _, _ = np.split(frames[12].astype(int), 4, axis=1)
    assert np.abs(generator - mesh).mean() > 1
    assert len(read_audio(out)) >= 16_000
    assert probe(out).fps == 25
    av = pytest.importorskip("av")
    with av.open(str(out)) as container:
        tags = container.metadata
    assert "trainedAlgorithmicMedia" in tags["digital_source_type"]
    assert json.loads(tags["talkhead"])["seeds"] == [0, 1]


def test_same_seed_same_codes_and_blocks_do_not_matter(
    chain: dict[str, Path], inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = TalkingHead.load(chain["40"])
    settings = head.sampler(kind="dpmpp2m", steps=3, guidance=1.0)
    wave = read_audio(inputs["voice"])

    def codes(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = list(head.codes(wave, settings, [seed]))
        return torch.cat([n for n, _ in pairs], 1), torch.cat([m for _, m in pairs])

    nonlip, lip = codes(0)
    assert nonlip.shape == (1, 25, 6)
    assert lip.shape == (25, DIM - 6)
    monkeypatch.setattr("talkhead.generation.speech.BLOCK_FRAMES", 10)
    again, lip_again = codes(0)
    torch.testing.assert_close(again, nonlip, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lip_again, lip, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(codes(1)[0], nonlip)


def test_edited_frames_have_the_code_of_their_picture(
    chain: dict[str, Path], inputs: dict[str, Path], tmp_path: Path
) -> None:
    head = TalkingHead.load(chain["40"])
    settings = head.sampler(kind="dpmpp2m", steps=3, guidance=1.0)
    wave = read_audio(inputs["voice"])
    wanted = {0: torch.full((6,), 0.5), 12: torch.full((6,), -0.5)}

    def codes(kept: dict[int, torch.Tensor]) -> torch.Tensor:
        return torch.cat([n for n, _ in head.codes(wave, settings, [0, 1], kept)], 1)

    free, edited = codes({}), codes(wanted)
    for frame, code in wanted.items():
        torch.testing.assert_close(edited[:, frame], code.expand(2, -1), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(edited[:, 11], free[:, 11], atol=1e-4)
    with pytest.raises(TalkheadError, match="frames from 0 to 24"):
        codes({25: wanted[0]})
    out = tmp_path / "edit.mp4"
    options = ["--start=portrait", f"--edit=12:{inputs['face']}"]
    generate(chain, inputs, out, *options)
    with pytest.importorskip("av").open(str(out)) as container:
        tags = json.loads(container.metadata["talkhead"])
    assert (tags["start"], tags["edits"]) == ("portrait", ["12"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"portrait": "wall"}, "no face found in the portrait"),
        ({"speech": "silence"}, "the speech is silent"),
        ({"edit": "smile.png"}, "expected FRAME:PICTURE"),
        ({"edit": "99:face"}, "frames from 0 to 24"),
        ({"checkpoint": "20"}, "stage av_contrastive; expected motion_diffusion or motion_ar"),
    ],
)
def test_bad_input_ends_with_code_two_and_leaves_no_file(
    chain: dict[str, Path],
    inputs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    message: str,
) -> None:
    known = {**inputs, **chain}
    paths = {
        option: ":".join(str(known.get(part, part)) for part in value.split(":"))
        for option, value in changes.items()
    }
    with pytest.raises(SystemExit) as left:
        generate(chain, inputs, tmp_path / "x.mp4", **paths)
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_level_of_less_than_a_frame_is_refused() -> None:
    with pytest.raises(TalkheadError, match="expected at least 640"):
        speech_level(np.zeros(100, np.float32))
