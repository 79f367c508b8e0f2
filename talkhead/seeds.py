"""Where a run's random numbers start."""

from __future__ import annotations

import hashlib
import os


def base_seed() -> int:
    """The seed given to ``seed_everything``, 0 without one."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def step_seed(seed: int, batches_seen: int, rank: int) -> int:
    """A 63-bit seed for one batch on one rank, unrelated between neighbours."""
    digest = hashlib.sha256(f"{seed}/{batches_seen}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
