"""Settings for single clips; they are recorded, and clips made with others are made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from talkhead.errors import ConfigError
from talkhead.geometry.crop import FACE_SHARE


@dataclass(frozen=True)
class ClipOptions:
    """What decides how one clip is turned into arrays, and whether it is accepted.

    Attributes:
        size: Side of the stored crops in pixels.
        face_share: Share of the crop's width that the face takes.
        min_fps: Lowest frame rate of a source; slower ones repeat pictures so often that lips and
            sound no longer belong together.
        min_seconds: Shortest clip, in seconds.
        max_seconds: Longer clips are cut into equal pieces of at most this length, which also
            bounds memory.
        min_tracked: Lowest share of frames in which the face must be found.
        max_gap: Longest run of lost frames that is bridged; a longer one cuts the clip.
        min_active: Lowest share of 20 ms stretches that are louder than ``active_db``.
        active_db: Level of sound, in dB of full scale, that counts as active.
        require_audio: Reject clips without sound (or take them with silence).
    """

    size: int = 224
    face_share: float = FACE_SHARE
    min_fps: float = 10.0
    min_seconds: float = 1.0
    max_seconds: float = 60.0
    min_tracked: float = 0.9
    max_gap: int = 12
    min_active: float = 0.2
    active_db: float = -45.0
    require_audio: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not 16 <= self.size <= 2048:
            raise ConfigError(f"expected --size between 16 and 2048 pixels, got {self.size}.")
        if not 0.2 <= self.face_share <= 0.8:
            raise ConfigError(
                f"expected --face-share between 0.2 and 0.8 of the crop, got {self.face_share}."
            )
        if self.size % 2:
            raise ConfigError(f"expected an even --size, got {self.size}.")
        if self.min_seconds <= 0 or self.max_seconds < 2 * self.min_seconds:
            raise ConfigError(
                "expected 0 < --min-seconds and --max-seconds of at least twice that, got "
                f"{self.min_seconds} and {self.max_seconds}."
            )
        if not 0 < self.min_tracked <= 1 or not 0 <= self.min_active <= 1:
            raise ConfigError(
                "expected --min-tracked in (0, 1] and --min-active in [0, 1], got "
                f"{self.min_tracked} and {self.min_active}."
            )

    @property
    def digest(self) -> str:
        """Short hash over all settings."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
