"""``talkhead generate`` for ControlTalk: a portrait or a video speaks anew."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkhead.errors import ConfigError

if TYPE_CHECKING:
    from talkhead.generation.controltalk import ControlTalker, Speaking
    from talkhead.generation.face_video import FaceVideo
    from talkhead.generation.portrait import Picture

VIDEOS = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"}
OWN = {
    "mouth_opening": "--mouth-opening",
    "driving": "--driving",
    "transfer": "--transfer",
    "driving_expression": "--driving-expression",
    "paste_back": "--paste-back or --crop",
    "at_end": "--at-end",
    "hubert": "--hubert",
}
"""Options that only this system has."""
FOREIGN = {
    "seed": ("--seed", "0"),
    "start": ("--start", "noise"),
    "edit": ("--edit", []),
    "guidance": ("--guidance", None),
    "sampler": ("--sampler", "dpmpp2m"),
    "steps": ("--steps", None),
    "renderer": ("--renderer", "generator"),
}
"""Options that it does not have, with their defaults."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of checkpoints of stage ``audio2exp``."""
    own = parser.add_argument_group(
        "checkpoints of audio2exp (ControlTalk)",
        "--portrait may be a video, which then speaks anew, forwards and backwards for as long as the speech",
    )
    own.add_argument(
        "--mouth-opening",
        type=float,
        help="how far the mouth opens, 0 to 1.5 (0.7)",
        metavar="ALPHA",
    )
    own.add_argument(
        "--driving", type=Path, metavar="VIDEO", help="take the head's pose from a video"
    )
    own.add_argument(
        "--transfer",
        choices=("absolute", "relative"),
        help="take the driving pose as it is, or as changes since its first frame (relative)",
    )
    own.add_argument(
        "--driving-expression",
        action="store_true",
        default=None,
        help="take the driving video's expression, too",
    )
    own.add_argument(
        "--paste-back",
        action="store_true",
        default=None,
        help="show whole frames, the face put back into them (default for a video)",
    )
    own.add_argument(
        "--crop",
        action="store_false",
        dest="paste_back",
        default=None,
        help="show the face alone (default for a portrait)",
    )
    own.add_argument(
        "--at-end",
        choices=("ping_pong", "hold"),
        help="after a video's last frame go backwards, or hold it (ping_pong)",
    )
    own.add_argument(
        "--hubert", metavar="PATH", help="HuBERT's weights, if the checkpoint's expert hears them"
    )


def refuse_own(options: argparse.Namespace, stage: str) -> None:
    """Refuse the options of ControlTalk for other checkpoints.

    Raises:
        ConfigError: One of them was given.
    """
    given = [name for key, name in OWN.items() if getattr(options, key, None) is not None]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: expected none of these for a checkpoint of stage {stage}; they belong to "
            "checkpoints of audio2exp. Leave them out."
        )


def write(
    options: argparse.Namespace,
    talker: ControlTalker,
    tags: Callable[[str, Mapping[str, Any]], dict[str, str]],
) -> None:
    """Decode, speak, paste, encode; eight frames in memory at a time.

    Args:
        options: What the command line says.
        talker: The checkpoint.
        tags: Makes container tags of the stage's name and how the video was made.

    Raises:
        ConfigError: Options of other systems, or numbers out of range.
        DataError: A file that cannot be read, or no face in it.
    """
    from rich.progress import Progress

    from talkhead.media.decode import read_audio
    from talkhead.media.encode import VideoWriter
    from talkhead.specs import SAMPLES_PER_FRAME, samples_to_frames

    speaking = _speaking(options)
    if options.hubert is not None:
        talker.stage.hubert = {"weights_path": options.hubert}
    wave = read_audio(options.speech)
    frames = max(1, samples_to_frames(len(wave)))
    face = _face(options.portrait, frames, talker, options.at_end)
    driving = None
    if options.driving is not None:
        driving = _face(options.driving, frames, talker, options.at_end)
    video = is_video(options.portrait)
    made = tags(
        talker.block["stage"], talker.tags(speaking, driven=driving is not None, video=video)
    )
    with ExitStack() as stack:
        bar = stack.enter_context(Progress())
        task = bar.add_task("frames", total=frames)
        writer = stack.enter_context(VideoWriter(options.out, sound=True, metadata=made))
        paste = video if options.paste_back is None else options.paste_back
        pictures = talking(talker, face, driving, wave, speaking, paste=paste, size=options.size,
                           beside=options.show_portrait)  # fmt: skip
        for number, picture in enumerate(pictures):
            start = number * SAMPLES_PER_FRAME
            writer.write_audio(wave[start : start + SAMPLES_PER_FRAME])
            writer.write_frame(picture)
            bar.advance(task)
    print(f"wrote {options.out} ({frames} frames, {frames / 25:.1f} s)")


def talking(
    talker: ControlTalker,
    face: FaceVideo,
    driving: FaceVideo | None,
    wave: Any,
    speaking: Speaking,
    *,
    paste: bool,
    size: int,
    beside: bool = False,
) -> Iterator[Picture]:
    """Pictures to write, one for every frame of speech.

    Args:
        talker: The checkpoint.
        face: Who speaks.
        driving: Whose pose is taken.
        wave: ``(S,)`` at 16 kHz.
        speaking: How.
        paste: Whole frames with the face put back, else the face alone.
        size: Side of the face alone.
        beside: Show the source in a column to the left.

    Yields:
        ``(H, W, 3)`` uint8 with even sides.
    """
    from talkhead.generation.portrait import resized
    from talkhead.geometry.paste_back import PasteBack

    side = talker.side
    waiting: deque[Picture] = deque()

    def noted() -> Iterator[Picture]:
        for frame in face.endless():
            waiting.append(frame)
            yield frame

    driven = None if driving is None else driving.crops(driving.endless(), side)
    crops = face.crops(noted(), side)
    paster: PasteBack | None = None
    for made in talker.speak(crops, wave, speaking, still=face.frames == 1, driving=driven):
        frame = waiting.popleft()
        if paste:
            paster = paster or PasteBack(face.box, frame.shape[1], frame.shape[0])
            shown = [frame, paster(frame, made)]
        else:
            shown = [resized(next(face.crops([frame], side)), size), resized(made, size)]
        even = (slice(frame.shape[0] // 2 * 2), slice(frame.shape[1] // 2 * 2))
        shown = [picture[even] for picture in shown] if paste else shown
        yield np.concatenate(shown, axis=1) if beside else shown[1]


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in VIDEOS


def _speaking(options: argparse.Namespace) -> Speaking:
    from talkhead.generation.controltalk import Speaking

    foreign = [name for key, (name, default) in FOREIGN.items() if getattr(options, key) != default]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)}: expected none of these for a checkpoint of stage audio2exp, whose motion "
            "is not sampled and which has one renderer. Leave them out."
        )
    if options.driving is None and (options.transfer or options.driving_expression):
        raise ConfigError("--transfer, --driving-expression: expected --driving VIDEO with them.")
    given = {
        key: getattr(options, key)
        for key in ("mouth_opening", "transfer", "driving_expression")
        if getattr(options, key) is not None
    }
    speaking = Speaking(**given)
    speaking.check()
    return speaking


def _face(path: Path, frames: int, talker: ControlTalker, end: str | None) -> FaceVideo:
    """The face of a picture or video."""
    from talkhead.generation.face_video import find_face, picture_reader
    from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh
    from talkhead.media.decode import read_image
    from talkhead.media.endless import frames_from

    read = frames_from(path) if is_video(path) else picture_reader(read_image(path))
    ending: Any = end or "ping_pong"
    return find_face(read, frames, MediaPipeMesh(), talker.face_share, str(path), ending)
