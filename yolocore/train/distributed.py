"""What a rank needs of the others: a group to talk in, averaged gradients, norms over all pictures.

One process is one rank; gradients are averaged over ranks by DDP. It must not know how processes start and
end, the loop, or a configuration.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from yolocore.errors import ConfigError

T = TypeVar("T")
NetworkT = TypeVar("NetworkT", bound=nn.Module)

LONG_S = 3 * 3600.0  # others wait this long while rank 0 validates or writes
STEP_S = 600.0  # within a batch ranks differ by seconds


class Group:
    """One rank's membership: tensors go by NCCL or gloo, small Python values always by gloo on the CPU.

    At most one at a time in a process. Close it.
    """

    def __init__(self, rank: int, world_size: int, device: torch.device, meeting: Path) -> None:
        """Meet the others over the file `meeting`, which nobody else can name; waits until all are there."""
        assert not dist.is_initialized(), "this process is in a group already"
        self.rank = rank
        self.world_size = world_size
        self.device = device
        on_cuda = device.type == "cuda"
        with _gloo_on_loopback():
            dist.init_process_group(
                "nccl" if on_cuda else "gloo",
                store=dist.FileStore(str(meeting), world_size),  # type: ignore[attr-defined]
                rank=rank,
                world_size=world_size,
                timeout=timedelta(seconds=STEP_S),
                device_id=device if on_cuda else None,
            )
            talk = dist.new_group(backend="gloo", timeout=timedelta(seconds=LONG_S))
        assert isinstance(talk, dist.ProcessGroup)
        self._talk = talk
        self._is_open = True

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every rank; all ranks must call it, and it must be small and picklable."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._talk)
        return box[0]

    def agree(self, value: Any) -> bool:
        """Tell on every rank whether all have a value equal to rank 0's; all ranks must call it."""
        return not self.any(self.broadcast(value) != value)

    def any(self, flag: bool) -> bool:
        """Tell on every rank whether one of them says yes; all ranks must call it."""
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, group=self._talk)
        return votes.item() > 0

    def barrier(self) -> None:
        """Wait for all ranks, for hours if need be."""
        self.any(False)

    def close(self) -> None:
        """Leave; the others need not be there any more."""
        if self._is_open:
            self._is_open = False
            dist.destroy_process_group()

    def abort(self) -> None:
        """Leave at once, also with a kernel under way that waits for a rank that is gone."""
        if self._is_open and self.device.type == "cuda":
            self._is_open = False
            dist.distributed_c10d._abort_process_group()
        self.close()


def wrap(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Return the module whose forward and backward average gradients over ranks; freeze before, not after.

    The graph is static: which parameters are used never depends on the data, and one that no row uses gets
    no gradient, as in a single process. Buffers of rank 0 are sent before each forward: norms then have one
    state that a checkpoint holds whole, and a statistic that only another rank's pictures spoilt leaves no
    trace. The last forward's own update of them still differs: rank 0's is the one to keep.
    """
    return DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        static_graph=True,
        forward_sync_buffers=True,
    )


def settle_buckets(forward: DistributedDataParallel, images: Tensor) -> None:
    """Take (b, 3, h, w) images through a network of raw maps; nothing of it stays but DDP's buckets.

    DDP sorts them after its second pass, and the order of addition over more than two ranks follows them. A
    resumed run would add its first batches in another order than the run it goes on with.
    """
    network = forward.module
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    network.train()
    for _ in range(2):
        torch.stack([raw.sum() for raw in forward(images)]).sum().backward()  # type: ignore[no-untyped-call]
        network.zero_grad()
    for module, training in modes:
        module.training = training
    for buffer, kept in buffers:
        buffer.copy_(kept)


def check_devices(kind: str, world_size: int) -> None:
    """Raise ConfigError where the machine has fewer devices of this kind than processes; CPUs are shared."""
    if kind == "cuda" and torch.cuda.device_count() < world_size:
        raise ConfigError(
            f"each process needs a device of its own; this machine has {torch.cuda.device_count()}",
            place="/world_size",
            value=str(world_size),
        )


def check_sync_bn(device: torch.device, world_size: int) -> None:
    """Raise ConfigError where batch norms cannot share statistics; with one process there is nobody to."""
    if device.type != "cuda":
        raise ConfigError(
            "SyncBatchNorm needs CUDA",
            place="/sync_bn",
            value=f"{world_size} process(es) on {device.type}",
        )


def convert_sync_batchnorm(network: NetworkT) -> NetworkT:
    """Turn every batch norm into one over all ranks' pictures, in place; returns the network.

    Keys, values, eps and momentum stay; parameters and buffers are the very same tensors.
    """
    converted: NetworkT = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


@contextmanager
def _gloo_on_loopback() -> Iterator[None]:
    """Let gloo listen on this machine alone; by itself it takes the address of the machine's name."""
    name = "GLOO_SOCKET_IFNAME"
    loopback = next((each for _, each in socket.if_nameindex() if each in ("lo", "lo0")), None)
    if name in os.environ or loopback is None:
        yield
        return
    os.environ[name] = loopback
    try:
        yield
    finally:
        del os.environ[name]
