from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from talkhead.networks.batch_norm import (
    SharedBatchNorm2d,
    SharedBatchNorm3d,
    share_batch_norm,
)
from tests.ranks import run_ranks

ROWS = 6


def batch() -> Tensor:
    return torch.randn(2 * ROWS, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1)).double()


def network_over_time() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv3d(3, 5, 1), nn.BatchNorm3d(5), nn.Conv3d(5, 2, 1)).double()


def loss_and_gradients(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    loss = net(x).pow(3).mean()
    loss.backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    norm = net[1]  # type: ignore[index]
    return {"loss": loss.detach(), "mean": norm.running_mean, "var": norm.running_var, **found}


def one_rank(rank: int, ranks: int) -> dict[str, Tensor]:
    net = network()
    share_batch_norm(net)
    return loss_and_gradients(net, batch()[rank * ROWS : (rank + 1) * ROWS])


def one_rank_over_time(rank: int, ranks: int) -> dict[str, Tensor]:
    net = network_over_time()
    share_batch_norm(net)
    assert isinstance(net[1], SharedBatchNorm3d)
    return loss_and_gradients(net, batch()[rank * ROWS : (rank + 1) * ROWS, :, None])


@pytest.mark.parametrize("over_time", [False, True])
def test_two_ranks_compute_what_one_process_computes(tmp_path: Path, over_time: bool) -> None:
    parts = run_ranks(one_rank_over_time if over_time else one_rank, tmp_path)
    net, x = (network_over_time(), batch()[:, :, None]) if over_time else (network(), batch())
    whole = loss_and_gradients(net, x)
    for name, value in whole.items():
        found = torch.stack([part[name] for part in parts])
        # DDP averages gradients over ranks; running statistics are the same on each.
        torch.testing.assert_close(found.mean(0), value, rtol=1e-9, atol=1e-12)
        if name in ("mean", "var"):
            assert torch.equal(found[0], found[1])


def test_without_ranks_it_is_plain_batch_norm() -> None:
    plain, shared = network(), network()
    share_batch_norm(shared)
    assert isinstance(shared[1], SharedBatchNorm2d)
    assert list(shared.state_dict()) == list(plain.state_dict())
    assert torch.equal(shared(batch()), plain(batch()))
    assert torch.equal(shared.eval()(batch()), plain.eval()(batch()))
