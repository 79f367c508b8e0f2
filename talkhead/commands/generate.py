"""``talkhead generate``: one portrait and speech in, a talking video out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from talkhead import __version__
from talkhead.commands import generate_controltalk as controltalk
from talkhead.errors import ConfigError

if TYPE_CHECKING:
    from talkhead.diffusion.shallow import StartStep
    from talkhead.generation.controltalk import ControlTalker
    from talkhead.generation.request import Request
    from talkhead.generation.talker import PortraitTalker

RENDERERS = ("generator", "mesh")
SYNTHETIC_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="talkhead generate", description=__doc__)
    made.add_argument(
        "--portrait", type=Path, required=True, help="picture or video (first frame) with a face"
    )
    made.add_argument("--speech", type=Path, required=True, help="sound file with speech")
    made.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="checkpoint of a motion prior, of ms_sync, audio2exp or shallow_diffusion",
    )
    made.add_argument("--out", type=Path, required=True, help="mp4 to write")
    made.add_argument(
        "--renderer", default="generator", help="generator, mesh, or both: generator,mesh"
    )
    made.add_argument(
        "--renderer-checkpoint",
        type=Path,
        default=None,
        metavar="CKPT",
        help="shallow_diffusion: the renderer that --renderer generator shows, trained by "
        "81_landmark_renderer",
    )
    made.add_argument("--seed", default="0", help="seed of the motion; several make columns: 0,1")
    made.add_argument(
        "--start",
        choices=("noise", "portrait"),
        default="noise",
        help="portrait: begin with the portrait's own pose and expression",
    )
    made.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="FRAME:PICTURE",
        help="give frame FRAME (25 a second, from 0) the pose and expression of the face in PICTURE; "
        "the motion around it is made to fit; may be repeated",
    )
    made.add_argument("--guidance", type=float, default=None, help="classifier-free guidance (2.5)")
    made.add_argument("--sampler", choices=("dpmpp2m", "ddim", "ddpm"), default="dpmpp2m")
    made.add_argument(
        "--steps",
        type=int,
        default=None,
        help="network evaluations per window (12; shallow_diffusion: 20 for the full chain)",
    )
    made.add_argument(
        "--start-step",
        default=None,
        metavar="K",
        help="shallow_diffusion: run only the last K steps of the chain; or calibrated, predicted, "
        "noise (calibrated)",
    )
    made.add_argument("--size", type=int, default=256, help="side of each picture in pixels")
    made.add_argument(
        "--show-portrait", action="store_true", help="put the portrait in a first column"
    )
    controltalk.add_options(made)
    return made


def main(argv: list[str]) -> int:
    """Run ``talkhead generate``; returns the exit code."""
    options = parser().parse_args(argv)
    renderers, seeds = _list(options.renderer), [_number(s) for s in _list(options.seed)]
    wrong = sorted(set(renderers) - set(RENDERERS))
    if wrong or not renderers:
        raise ConfigError(
            f"--renderer: expected {' or '.join(RENDERERS)}, got {options.renderer!r}."
        )
    if options.size < 64 or options.size % 2:
        raise ConfigError(
            f"--size: expected an even number of at least 64 pixels, got {options.size}."
        )
    from talkhead.generation.controltalk import ControlTalker

    talker = _load(options.checkpoint)
    if isinstance(talker, ControlTalker):
        controltalk.write(options, talker, container_tags)
    else:
        controltalk.refuse_own(options, talker.block["stage"])
        _write(options, talker, renderers, seeds)
    return 0


def _load(path: Path) -> PortraitTalker | ControlTalker:
    """The model of a checkpoint, whatever system it belongs to.

    Raises:
        StageLinkError: A checkpoint of a stage that makes no motion.
    """
    from talkhead.checkpoint import read_block, read_checkpoint
    from talkhead.generation.controltalk import ControlTalker
    from talkhead.generation.keypoints import KeypointTalker
    from talkhead.generation.landmarks import LandmarkTalker
    from talkhead.generation.prior import TalkingHead

    block = read_block(read_checkpoint(path), path)
    talkers: dict[str, type[PortraitTalker | ControlTalker]] = {
        "motion_diffusion": TalkingHead,
        "motion_ar": TalkingHead,
        "ms_sync": KeypointTalker,
        "shallow_diffusion": LandmarkTalker,
        "audio2exp": ControlTalker,
    }
    # A stage that makes no motion is refused by the talker of the priors.
    return talkers.get(block["stage"], TalkingHead).of(block, path)


def _write(
    options: argparse.Namespace, head: PortraitTalker, renderers: list[str], seeds: list[int]
) -> None:
    """Decode, animate, encode; one block of frames in memory at a time."""
    from rich.progress import Progress

    from talkhead.generation.portrait import find_portrait
    from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh
    from talkhead.media.decode import read_audio
    from talkhead.media.encode import VideoWriter
    from talkhead.specs import SAMPLES_PER_FRAME, samples_to_frames

    wave = read_audio(options.speech)
    portrait = find_portrait(
        _first_picture(options.portrait), MediaPipeMesh(), options.size, head.face_share
    )
    request = _request(options, head, renderers, seeds)
    still = [portrait.picture] if options.show_portrait else []
    frames = samples_to_frames(len(wave))
    how = {"renderers": list(request.renderers), **head.tags(request)}
    tags = container_tags(head.block["stage"], how)
    with ExitStack() as stack:
        bar = stack.enter_context(Progress())
        task = bar.add_task("frames", total=frames)
        writer = stack.enter_context(VideoWriter(options.out, sound=True, metadata=tags))
        for number, pictures in enumerate(head.animate(portrait, wave, request)):
            start = number * SAMPLES_PER_FRAME
            writer.write_audio(wave[start : start + SAMPLES_PER_FRAME])
            writer.write_frame(np.concatenate([*still, *pictures], axis=1))
            bar.advance(task)
    print(f"wrote {options.out} ({frames} frames, {frames / 25:.1f} s)")


def _request(
    options: argparse.Namespace, head: PortraitTalker, renderers: list[str], seeds: list[int]
) -> Request:
    """The options, with the faces of the frames that ``--edit`` fixes."""
    from talkhead.generation.portrait import find_portrait
    from talkhead.generation.request import Request
    from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh

    edits = {}
    for edit in options.edit:
        frame, colon, path = edit.partition(":")
        if not colon or not frame.strip().isdecimal():
            raise ConfigError(f"--edit: expected FRAME:PICTURE such as 50:smile.png, got {edit!r}.")
        edits[int(frame)] = find_portrait(
            _first_picture(Path(path)), MediaPipeMesh(), options.size, head.face_share
        )
    return Request(
        renderers=tuple(renderers),
        size=options.size,
        seeds=tuple(seeds),
        sampler=options.sampler,
        steps=options.steps,
        guidance=options.guidance,
        from_portrait=options.start == "portrait",
        edits=edits,
        start_step=_start_step(options.start_step),
        renderer_checkpoint=options.renderer_checkpoint,
    )


def _first_picture(path: Path) -> Any:
    """The picture itself, or the first frame of a video."""
    from talkhead.media.decode import iter_frames, read_image

    if controltalk.is_video(path):
        return next(iter(iter_frames(path)))
    return read_image(path)


def container_tags(stage: str, how: Mapping[str, Any]) -> dict[str, str]:
    """Container tags that mark a video as synthetic and say how it was made.

    Args:
        stage: Of the checkpoint.
        how: Further facts by name.
    """
    made = {"software": f"talkhead {__version__}", "stage": stage, **how}
    return {
        "title": "synthetic talking head",
        "comment": "AI-generated video made with talkhead; not a recording of a real event",
        "digital_source_type": SYNTHETIC_SOURCE,
        "talkhead": json.dumps(made),
    }


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _start_step(text: str | None) -> StartStep | None:
    """A number of steps or one of the words, which the model knows."""
    from talkhead.diffusion.shallow import StartStep

    words = get_args(get_args(StartStep)[1])
    if text is None or text in words:
        return cast("StartStep | None", text)
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(
            f"--start-step: expected a number of steps or {', '.join(words)}, got {text!r}."
        ) from error


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(
            f"--seed: expected whole numbers such as 0 or 0,1, got {text!r}."
        ) from error
