"""What a video shall show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.diffusion.sampler import SamplerKind
from talkhead.diffusion.shallow import StartStep
from talkhead.errors import ConfigError
from talkhead.generation.portrait import Portrait


@dataclass(frozen=True)
class Request:
    """What a video shall show: the options of ``talkhead generate``.

    Attributes:
        renderers: Names of renderers, a column each.
        size: Side of the pictures in pixels.
        seeds: Seeds of the motion, a set of columns each.
        sampler: Sampler of a diffusion prior.
        steps: Its network evaluations; None takes the suite's.
        guidance: Its guidance; None takes the suite's.
        from_portrait: Whether the motion begins with the portrait's own pose and expression.
        edits: Frame -> face whose pose and expression the motion shall have there.
        start_step: Where shallow diffusion enters its chain; None takes the checkpoint's own choice.
        renderer_checkpoint: Checkpoint of the renderer that generated landmarks drive.
    """

    renderers: tuple[str, ...]
    size: int = 256
    seeds: tuple[int, ...] = (0,)
    sampler: SamplerKind = "dpmpp2m"
    steps: int | None = None
    guidance: float | None = None
    from_portrait: bool = False
    edits: Mapping[int, Portrait] = field(default_factory=dict)
    start_step: StartStep | None = None
    renderer_checkpoint: Path | None = None

    def check(self, known: Sequence[str], system: str) -> None:
        """Refuse options in use that not every system has, but those ``known``.

        Args:
            known: Options that the checkpoint's system has.
            system: What the checkpoint is of, and why it does not have the others, for the message.

        Raises:
            ConfigError: One of the others is in use.
        """
        given = {
            "--seed": self.seeds != (0,),
            "--sampler": self.sampler != "dpmpp2m",
            "--steps": self.steps is not None,
            "--guidance": self.guidance is not None,
            "--start": self.from_portrait,
            "--edit": bool(self.edits),
            "--start-step": self.start_step is not None,
            "--renderer-checkpoint": self.renderer_checkpoint is not None,
        }
        refused = [name for name, used in given.items() if used and name not in known]
        if refused:
            raise ConfigError(
                f"{', '.join(refused)}: expected none of these for a checkpoint of {system}. "
                "Leave them out."
            )
