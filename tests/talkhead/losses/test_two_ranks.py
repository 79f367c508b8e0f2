"""Two real processes: gradients over ranks equal those of one process with all the rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from talkhead.losses.contrastive import InfoNCE, gather_with_grad
from talkhead.losses.disentangle import MemoryBank, orthogonal_loss

ROWS = 4
Batch = tuple[Tensor, Tensor]


class Contrast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.audio, self.visual = nn.Linear(2, 4), nn.Linear(4, 4)
        self.loss = InfoNCE()

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        a, v = gather_with_grad(self.audio(audio)), gather_with_grad(self.visual(visual))
        loss: Tensor = self.loss(a[None], v[None])
        return loss


class Orthogonal(nn.Module):
    def __init__(self, gather: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.mlp = nn.Linear(4, 3)
        # A buffer that the bank does not need: DDP does synchronise buffers here.
        self.register_buffer("unused", torch.zeros(1))
        self.bank = MemoryBank(steps=3, gather=gather)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        return orthogonal_loss(*self.bank(self.mlp(visual), audio))


def _last_gradient(module: nn.Module, batches: list[Batch]) -> Tensor:
    for visual, audio in batches:
        module.zero_grad()
        module(visual, audio).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    batches: list[Batch] = torch.load(f"{folder}/batches.pt")
    rows = slice(ROWS * rank, ROWS * (rank + 1))
    mine = [(visual[rows], audio[rows]) for visual, audio in batches]
    own = Orthogonal(gather=False)
    found = {
        "contrast": _last_gradient(DistributedDataParallel(Contrast()), mine),
        "gathered": _last_gradient(DistributedDataParallel(Orthogonal(gather=True)), mine),
        "own": _last_gradient(DistributedDataParallel(own), mine),
    }
    torch.save((found, own.bank.get_extra_state()["audio"]), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    make = lambda d: torch.randn(2 * ROWS, d, generator=generator)  # noqa: E731
    return [(make(4), make(2)) for _ in range(4)]


@pytest.fixture(scope="module")
def ranks(
    batches: list[Batch], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[dict[str, Tensor], list[Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.save(batches, folder / "batches.pt")
    spawn(_rank, (str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def test_contrast_over_all_rows(
    batches: list[Batch], ranks: list[tuple[dict[str, Tensor], list[Tensor]]]
) -> None:
    expected = _last_gradient(Contrast(), batches)
    for found, _ in ranks:
        assert torch.allclose(found["contrast"], expected, atol=1e-6)


def test_gathered_bank_is_the_bank_of_one_process(
    batches: list[Batch], ranks: list[tuple[dict[str, Tensor], list[Tensor]]]
) -> None:
    expected = _last_gradient(Orthogonal(gather=True), batches)
    for found, _ in ranks:
        assert torch.allclose(found["gathered"], expected, atol=1e-6)


def test_own_banks_stay_apart_and_their_gradients_are_averaged(
    batches: list[Batch], ranks: list[tuple[dict[str, Tensor], list[Tensor]]]
) -> None:
    halves = []
    for rank, (_, stored) in enumerate(ranks):
        rows = slice(ROWS * rank, ROWS * (rank + 1))
        for kept, (_, audio) in zip(stored, batches[-2:], strict=True):
            assert torch.equal(kept, audio[rows])
        halves.append(
            _last_gradient(Orthogonal(gather=False), [(v[rows], a[rows]) for v, a in batches])
        )
    for found, _ in ranks:
        assert torch.allclose(found["own"], torch.stack(halves).mean(0), atol=1e-6)
