"""From one portrait and speech to pictures by generated landmarks, on an untrained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from talkhead.audio.mel import mel_spectrogram
from talkhead.checkpoint import BLOCK, FORMAT, component_entry
from talkhead.commands.generate import _load, _start_step, parser
from talkhead.corpus.prosody import measure_prosody
from talkhead.errors import ConfigError, DataError, SpecError, StageLinkError
from talkhead.generation.landmarks import LandmarkTalker, hear
from talkhead.generation.portrait import Portrait
from talkhead.generation.request import Request
from talkhead.geometry.landmark_rows import landmark_points, landmark_rows
from talkhead.geometry.points68 import ibug_points
from talkhead.networks.component import Component
from talkhead.networks.keypoint_detector import KeypointDetector
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.networks.landmark_keypoints import LandmarkKeypoints
from talkhead.networks.landmark_motion_model import SETTINGS, LandmarkMotionModel
from talkhead.specs import AudioSpec, VideoSpec, spec_dict
from talkhead.stages.shallow_diffusion import ShallowDiffusionStage
from tests.talkhead.generation.test_keypoints import DETECTOR, RENDERER, SIDE, portrait, speech

MODEL: dict[str, Any] = {
    "max_length": 16, "code_dim": 8, "hidden": 16, "content_channels": 4, "rhythmic_channels": 4,
    "rhythmic_layers": 2, "width": 16, "layers": 1, "heads": 2, "feedforward": 16, "dropout": 0.0,
    "diffusion_steps": 24,
}  # fmt: skip
FRAMES = 30


def saved(path: Path, stage: str, video: VideoSpec | None = None, **parts: Component) -> Path:
    """A checkpoint as a stage writes it, of parts as they are."""
    state = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    block = {
        "format": FORMAT,
        "stage": stage,
        "components": {name: component_entry(part, name, state) for name, part in parts.items()},
        "audio": spec_dict(AudioSpec()),
        "video": spec_dict(video or VideoSpec(size=SIDE)),
    }
    torch.save({"state_dict": state, BLOCK: block}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = LandmarkMotionModel(**MODEL)
    deviation = torch.full((136,), 0.01)
    model.set_statistics(landmark_rows(points(portrait())), 5 * deviation, deviation)
    path = tmp_path_factory.mktemp("landmarks") / "last.ckpt"
    return saved(path, "shallow_diffusion", motion_model=model)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("renderer") / "last.ckpt"
    return saved(
        path,
        "keypoint_reenactment",
        keypoint_detector=LandmarkKeypoints(),
        keypoint_renderer=KeypointRenderer(**RENDERER),
    )


def points(face: Portrait) -> torch.Tensor:
    return ibug_points(torch.from_numpy(face.landmarks))[:, :2]


def test_every_frame_has_a_picture_a_seed_and_renderer(checkpoint: Path, renderer: Path) -> None:
    talker = _load(checkpoint)
    assert isinstance(talker, LandmarkTalker)
    face = portrait()
    request = Request(
        ("generator", "mesh"), SIDE, seeds=(0, 1), steps=4, renderer_checkpoint=renderer
    )
    rows = list(talker.animate(face, speech(FRAMES), request))
    assert [len(row) for row in rows] == [4] * FRAMES
    assert {picture.shape for row in rows for picture in row} == {(SIDE, SIDE, 3)}
    # Frame 0 is the portrait, and the mesh at rest is the portrait itself.
    apart = np.abs(rows[0][1].astype(float) - face.picture.astype(float))
    assert np.quantile(apart, 0.9) <= 1
    assert np.array_equal(rows[0][0], rows[0][2])
    assert not np.array_equal(rows[-1][1], rows[-1][3])  # another seed, another motion
    tags = talker.tags(request)
    assert tags["seeds"] == [0, 1]
    assert (tags["sampler"], tags["steps"], tags["start_step"]) == ("dpmpp2m", 4, "calibrated")


def test_motion_is_that_of_the_model_for_the_whole_track(checkpoint: Path) -> None:
    talker, face, wave = LandmarkTalker.load(checkpoint), portrait(), speech(FRAMES)
    made = torch.cat(list(talker.motion(wave, face, Request((), seeds=(3, 5)))), 1)
    assert made.shape == (2, FRAMES, 68, 2)
    torch.testing.assert_close(made[:, 0], points(face).expand(2, -1, -1))
    mel, prosody = hear(wave)
    first = landmark_rows(points(face))[None]
    for row, seed in zip(made, (3, 5), strict=True):
        alone = talker.model.sample_rows(mel[None], prosody[None], first, [seed])
        wanted = landmark_points(torch.cat(list(alone), 1)[0])
        torch.testing.assert_close(row, wanted, atol=1e-5, rtol=0)
    again = torch.cat(list(talker.motion(wave, face, Request((), seeds=(3,)))), 1)
    torch.testing.assert_close(again[0], made[0], atol=1e-5, rtol=0)


def test_options_reach_the_sampler(checkpoint: Path) -> None:
    talker, face, wave = LandmarkTalker.load(checkpoint), portrait(), speech(FRAMES)

    def moved(**options: Any) -> torch.Tensor:
        return torch.cat(list(talker.motion(wave, face, Request((), **options))), 1)

    coarse, calibrated = moved(start_step=0), moved()
    assert torch.equal(moved(start_step=int(talker.model.calibrated_step)), calibrated)
    assert not torch.equal(coarse, calibrated)
    assert torch.equal(moved(start_step=0, seeds=(7,)), coarse)  # nothing is drawn for it
    assert not torch.equal(moved(start_step="noise"), calibrated)
    assert not torch.equal(moved(start_step="noise", steps=2), moved(start_step="noise", steps=8))
    assert not torch.equal(moved(sampler="ddpm"), calibrated)
    assert talker.settings(Request(())) == SETTINGS
    with pytest.raises(ConfigError, match="expected 0 to 24 or one of"):
        moved(start_step=25)


def test_sound_is_heard_as_in_training_whatever_its_length() -> None:
    """300 frames are three blocks; their rows are those of the whole track."""
    wave = speech(300)
    wave[: len(wave) // 2] *= 0.2
    mel, prosody = hear(wave)
    whole = mel_spectrogram(torch.from_numpy(wave)).unflatten(0, (-1, 4)).flatten(1)
    torch.testing.assert_close(mel, whole, atol=1e-5, rtol=0)
    assert torch.equal(prosody, torch.from_numpy(measure_prosody(wave).features))


def test_pictures_come_before_the_whole_motion_is_there(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for long speech: windows are sampled as pictures are asked for, and none is kept."""
    talker = LandmarkTalker.load(checkpoint)
    windows: list[int] = []
    plain = LandmarkMotionModel.refined

    def counted(self: LandmarkMotionModel, *args: Any, **options: Any) -> torch.Tensor:
        windows.append(1)
        return plain(self, *args, **options)

    monkeypatch.setattr(LandmarkMotionModel, "refined", counted)
    pictures = talker.animate(portrait(), speech(200), Request(("mesh",), SIDE, start_step=1))
    for _ in range(3):
        next(pictures)
    assert len(windows) <= 2


def test_the_learned_renderer_is_driven_by_the_points(checkpoint: Path, renderer: Path) -> None:
    talker, face = LandmarkTalker.load(checkpoint), portrait()
    draw = talker._renderer("generator", face, Request((), SIDE, renderer_checkpoint=renderer))
    there = points(face) + torch.tensor([0.1, 0.0])
    (picture,) = draw(there[None])
    network = KeypointRenderer(**RENDERER)
    network.load_state_dict(
        {
            k.removeprefix("keypoint_renderer."): v
            for k, v in torch.load(renderer, weights_only=True)["state_dict"].items()
            if k.startswith("keypoint_renderer.")
        }
    )
    keypoints = LandmarkKeypoints()
    pixels = torch.from_numpy(face.picture).permute(2, 0, 1)[None].float() * 2 / 255 - 1
    with torch.no_grad():
        wanted = network.eval()(pixels, keypoints(points(face)[None]), keypoints(there[None]))
    expected = (wanted[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(picture - expected).max() < 1


def test_a_renderer_in_the_checkpoint_itself_is_used(
    checkpoint: Path, renderer: Path, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    carried = KeypointRenderer(**RENDERER)
    path = saved(
        tmp_path / "last.ckpt",
        "shallow_diffusion",
        motion_model=LandmarkTalker.load(checkpoint).model,
        keypoint_detector=LandmarkKeypoints(),
        keypoint_renderer=carried,
    )
    talker, face = LandmarkTalker.load(path), portrait()
    there = points(face)[None] + 0.05
    (own,) = talker._renderer("generator", face, Request((), SIDE))(there)
    (other,) = talker._renderer("generator", face, Request((), SIDE, renderer_checkpoint=renderer))(
        there
    )
    assert not np.array_equal(own, other)
    alone = saved(
        tmp_path / "renderer.ckpt",
        "keypoint_reenactment",
        keypoint_detector=LandmarkKeypoints(),
        keypoint_renderer=carried,
    )
    request = Request((), SIDE, renderer_checkpoint=alone)
    (same,) = talker._renderer("generator", face, request)(there)
    assert np.array_equal(own, same)


def test_the_stage_takes_a_renderer_along(renderer: Path, tmp_path: Path) -> None:
    made = ShallowDiffusionStage(str(renderer), str(renderer), MODEL, image_size=SIDE)
    written: dict[str, Any] = {
        "state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams),
    }  # fmt: skip
    made.on_save_checkpoint(written)
    path = tmp_path / "last.ckpt"
    torch.save(written, path)
    again = ShallowDiffusionStage(**written["hyper_parameters"])
    again.load_state_dict(written["state_dict"])
    talker, face = LandmarkTalker.load(path), portrait()
    carried, given = (
        talker._renderer("generator", face, request)(points(face)[None] + 0.05)
        for request in (Request((), SIDE), Request((), SIDE, renderer_checkpoint=renderer))
    )
    assert np.array_equal(next(carried), next(given))


def test_what_cannot_be_shown_is_refused(checkpoint: Path, renderer: Path, tmp_path: Path) -> None:
    talker = LandmarkTalker.load(checkpoint)

    def show(wave: NDArray[np.float32] | None = None, **options: Any) -> None:
        request = Request(options.pop("renderers", ("mesh",)), SIDE, **options)
        next(talker.animate(portrait(), speech(FRAMES) if wave is None else wave, request))

    with pytest.raises(ConfigError, match="--guidance, --start: expected none of these"):
        show(guidance=2.0, from_portrait=True)
    with pytest.raises(ConfigError, match="--edit: expected none"):
        show(edits={3: portrait()})
    with pytest.raises(DataError, match="silent"):
        show(wave=0 * speech(FRAMES))
    with pytest.raises(StageLinkError, match="give --renderer-checkpoint"):
        show(renderers=("generator",))
    learned = saved(
        tmp_path / "learned.ckpt",
        "keypoint_reenactment",
        keypoint_detector=KeypointDetector(**DETECTOR),
        keypoint_renderer=KeypointRenderer(**RENDERER),
    )
    with pytest.raises(StageLinkError, match="keypoints of a learned detector"):
        show(renderers=("generator",), renderer_checkpoint=learned)
    parts = {
        "keypoint_detector": LandmarkKeypoints(),
        "keypoint_renderer": KeypointRenderer(**RENDERER),
    }
    wide = VideoSpec(size=SIDE, crop="fixed_box:0.3")
    other = saved(tmp_path / "other.ckpt", "keypoint_reenactment", wide, **parts)
    with pytest.raises(SpecError, match="another clock or crop"):
        show(renderers=("generator",), renderer_checkpoint=other)
    with pytest.raises(StageLinkError, match="expected shallow_diffusion"):
        LandmarkTalker.load(renderer)


def test_start_steps_of_the_command_line() -> None:
    assert _start_step(None) is None
    assert _start_step("12") == 12
    assert _start_step("predicted") == "predicted"
    with pytest.raises(ConfigError, match="--start-step: expected a number of steps or calibrated"):
        _start_step("soon")
    needed = ["--portrait", "a.png", "--speech", "a.wav", "--checkpoint", "a", "--out", "a.mp4"]
    given = parser().parse_args([*needed, "--start-step", "noise", "--renderer-checkpoint", "r"])
    assert (given.start_step, given.renderer_checkpoint) == ("noise", Path("r"))
