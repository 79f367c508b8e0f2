from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from talkhead.errors import ConfigError
from talkhead.generation.prior import TalkingHead
from talkhead.generation.request import Request
from tests.talkhead.generation.test_keypoints import portrait, speech


def test_options_of_shallow_diffusion_are_refused_by_a_prior() -> None:
    head = TalkingHead(cast(Any, None))
    request = Request(("mesh",), start_step="noise", renderer_checkpoint=Path("r"))
    with pytest.raises(ConfigError, match="--start-step, --renderer-checkpoint: expected none"):
        next(head.animate(portrait(), speech(), request))
