"""Which item comes when: one deterministic order, sharded over ranks and resumable within an epoch.

Item numbers grow without bound: item ``epoch * n + index`` is the ``index``-th item of an epoch of
``n`` items. A training dataset draws its randomness from (seed, item number) alone, so every sample
is reproducible in any worker, on any rank and after any restart.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from talkhead.errors import ConfigError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Position = Callable[[], tuple[int, int]]
"""Returns the epoch and the number of its batches already trained on."""


def item_rng(seed: int, item: int) -> np.random.Generator:
    """The generator every random choice of one item comes from."""
    return np.random.default_rng([seed, item])


def item_below(bound: int, seed: int, item: int) -> int:
    """One integer in ``[0, bound)``, twenty times cheaper than setting up a generator."""
    digest = hashlib.blake2b(f"{seed}/{item}".encode(), digest_size=8).digest()
    # The modulo bias is below 2**-40 for any clip length.
    return int.from_bytes(digest, "little") % bound


class EpochBatches(Sampler[list[int]]):
    """Batches of item numbers of one rank.

    The items of an epoch, shuffled by (seed, epoch) or in order, are cut into global batches of
    ``world * batch_size`` items; rank ``r`` takes the items
    ``[r * batch_size, (r + 1) * batch_size)`` of each. Ranks together therefore see what one
    process with the multiplied batch size sees.

    With ``drop_last`` the incomplete global batch at the end is left out. Without it the rest is
    shared evenly, no item is seen twice, every rank has the same number of batches, and a rest
    smaller than the number of ranks joins the batch before it.

    Attributes:
        epoch: Epoch of the next iteration.
        start_batch: Batches the next iteration leaves out at the start of the epoch; ``len`` stays
            that of the whole epoch.

    Args:
        n: Items in an epoch.
        batch_size: Items in a batch of one rank.
        seed: Of the shuffling.
        rank: This process.
        world: Number of processes.
        shuffle: Another order in every epoch.
        drop_last: Only whole global batches.
        start_batch: See above.

    Raises:
        ConfigError: The numbers leave a rank without any batch.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        drop_last: bool = True,
        start_batch: int = 0,
    ) -> None:
        """Check that every rank gets at least one batch."""
        if batch_size < 1 or not 0 <= rank < world:
            raise ConfigError(
                f"expected batch_size >= 1 and 0 <= rank < world, got batch_size {batch_size}, "
                f"rank {rank}, world {world}; correct the data settings."
            )
        needed = batch_size * world if drop_last else world
        if n < needed:
            raise ConfigError(
                f"expected at least {needed} items for {world} process(es) with batch size "
                f"{batch_size}, got {n}; lower data.batch_size or raise data.epoch_items."
            )
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.rank, self.world = rank, world
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch, self.start_batch = 0, start_batch

    @property
    def global_batch(self) -> int:
        """Items all ranks take together in one step."""
        return self.batch_size * self.world

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        whole, rest = divmod(self.n, self.global_batch)
        # A rest too small to give every rank an item joins the batch before it.
        joins = whole > 0 and rest < self.world
        return whole if self.drop_last or joins else whole + 1

    def order(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Item numbers of the whole epoch over all ranks, ``(n,)``."""
        index = np.arange(self.n, dtype=np.int64)
        if self.shuffle:
            index = np.random.default_rng([self.seed, self.epoch]).permutation(index)
        return index + self.epoch * self.n

    def __iter__(self) -> Iterator[list[int]]:
        """Batches from ``start_batch`` on."""
        order = self.order()
        last = len(self) - 1
        for number in range(self.start_batch, last + 1):
            begin = number * self.global_batch
            if number < last or self.drop_last:
                mine = order[begin + self.rank * self.batch_size :][: self.batch_size]
            else:
                mine = self._share(order[begin:])
            yield mine.tolist()

    def _share(
        self, rest: np.ndarray[Any, np.dtype[np.int64]]
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """This rank's part of the last global batch, which may be short or slightly too long."""
        share: np.ndarray[Any, np.dtype[np.int64]] = np.array_split(rest, self.world)[self.rank]
        return share


class EpochLoader(Generic[Batch]):
    """A ``DataLoader`` over :class:`EpochBatches` that Lightning resumes exactly.

    It is not a ``DataLoader`` itself, so Lightning leaves its sampler alone whatever
    ``use_distributed_sampler`` says. The epoch and the first batch are asked for when the first
    batch is fetched, not when iteration is set up: Lightning creates the iterator before it has
    settled both after a restart.

    Args:
        dataset: Map-style dataset over item numbers.
        batches: The order.
        collate: Makes a batch of what the dataset returns for a list of item numbers.
        num_workers: Loader processes; 0 loads in this process.
        position: Tells epoch and first batch; None keeps those of ``batches``.
        pin_memory: Put batches into page-locked memory for faster copies to a GPU.
    """

    def __init__(
        self,
        dataset: Dataset[Item],
        batches: EpochBatches,
        collate: Callable[[list[Item]], Batch],
        num_workers: int = 0,
        position: Position | None = None,
        pin_memory: bool = False,
    ) -> None:
        """Set the loader up; workers start with the first batch."""
        self.dataset = dataset
        self.batches = batches
        self.position = position
        # Set aside so that building the loader does not draw from the global generator.
        generator = torch.Generator().manual_seed(batches.seed)
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            generator=generator,
        )

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current position to the end of the epoch."""
        if self.position is not None:
            self.batches.epoch, self.batches.start_batch = self.position()
        yield from self._loader

    def state_dict(self) -> dict[str, int]:
        """What the order depends on; Lightning keeps the position itself."""
        batches = self.batches
        return {"items": batches.n, "global_batch": batches.global_batch, "seed": batches.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Warn when a resumed run will not see the order of the interrupted one."""
        mine = self.state_dict()
        changed = [
            f"{k} {state[k]} -> {mine[k]}" for k in mine if k in state and state[k] != mine[k]
        ]
        if changed:
            log.warning(
                "resumed with other data settings (%s): the order of samples differs from that of "
                "the interrupted run.",
                ", ".join(changed),
            )


def training_position(trainer: Trainer) -> tuple[int, int]:
    """Epoch and batch the trainer fetches next.

    Read from Lightning's batch counters after its restart logic, so loader and ``batch_idx`` cannot
    disagree, whether the checkpoint was written after a batch, after validation or at the end of
    an epoch. The epoch is counted in batches because Lightning's own epoch number is one too high
    after resuming a ``max_steps`` run from the end of an epoch (it counts an empty epoch).
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    start = progress.current.ready
    return (progress.total.ready - start) // int(trainer.num_training_batches), start


def spread(count: int, limit: int | None) -> Sequence[int]:
    """At most ``limit`` of the numbers below ``count``, evenly spaced, in order."""
    if limit is None or limit >= count:
        return range(count)
    return [int(i) for i in np.linspace(0, count - 1, limit).round()]
