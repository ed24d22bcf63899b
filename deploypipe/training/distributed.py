"""One training on several processes, which `torchrun` starts on one machine or on many.

Every process holds the whole model and takes its share of every batch; DistributedDataParallel averages the gradients,
so that all of them make the same step. One of them leads: it alone writes files and shows anything. All of them read
the run's folder, which must lie where every machine sees it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from deploypipe.errors import DeploypipeError, TrainingError, UsageError, first_line
from deploypipe.torch_compat.kernels import BatchNorm
from deploypipe.training.launch import launched

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """One process's part of a batch."""

    part: slice
    weight: float
    """Times the mean loss of the part: averaged over the processes, that is the mean loss of the batch."""

    def weigh(self, loss: Tensor) -> Tensor:
        return loss if self.weight == 1 else loss * self.weight


@dataclass(frozen=True)
class Group:
    """The processes of one training, seen by one of them. Alone, nothing here changes anything."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this machine."""
    launch_id: str | None = None
    """torchrun's name for this start of the whole group. It starts again what was lost, which then goes on with the
    checkpoint in the run's folder; None where nobody does so."""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def place(self, device: torch.device) -> torch.device:
        """This process's own device. UsageError where the machine has fewer GPUs than processes."""
        if self.size == 1 or device.type != "cuda":
            return device
        if self.local_rank >= torch.cuda.device_count():
            raise UsageError(f"process {self.local_rank} of this machine has no GPU of its own: there are "
                             f"{torch.cuda.device_count()}", "Lower --nproc-per-node.")  # fmt: skip
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` for the training's forward passes, after which every process has the same gradients."""
        if self.size == 1:
            return module
        for layer in module.modules():
            if isinstance(layer, BatchNorm):
                layer.__class__ = _SyncedBatchNorm
        # Every process has the same buffers anyway: none is drawn, and those of batch normalisation are the batch's.
        return DistributedDataParallel(module, forward_sync_buffers=False)

    def share(self, count: int) -> Share:
        """This process's part of a batch of `count` examples. Together the parts are the batch, none of it twice.
        UsageError where there are too few for all."""
        if count < self.size:
            raise UsageError(f"a batch of {count} is too small for {self.size} processes", "Raise --batch-size.")
        start, stop = count * self.rank // self.size, count * (self.rank + 1) // self.size
        return Share(slice(start, stop), (stop - start) * self.size / count)

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """`tensor` averaged over the processes, in place."""
        return self.sum(tensor).div_(self.size) if self.size > 1 else tensor

    def wait(self) -> None:
        """Until all of them are here."""
        if self.size > 1:
            dist.barrier()

    def from_leader(self, make: Callable[[], T]) -> T:
        """What `make` returns in the leading process, in all of them; the others do not call it. Where it raises one of
        deploypipe's errors, the others raise a TrainingError that quotes it."""
        if self.size == 1:
            return make()
        found: list[Any] = [None, ""]
        refused = None
        if self.leads:
            try:
                found[0] = make()
            except DeploypipeError as cause:
                found[1], refused = cause.message, cause
        dist.broadcast_object_list(found)
        if refused:
            raise refused
        if found[1]:
            raise TrainingError(f"the leading process stopped: {found[1]}")
        result: T = found[0]
        return result

    def from_each(self, value: T) -> list[T]:
        """What each process has, in the order of their ranks, in all of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    @contextmanager
    def one_before_the_others(self) -> Iterator[None]:
        """The first process of each machine runs the block, then the others: what it downloads they find."""
        if self.local_rank:
            self.wait()
        yield
        if not self.local_rank:
            self.wait()


ALONE = Group()


@contextmanager
def joined() -> Iterator[Group]:
    """The group that torchrun put this process into, for the block; a group of one where it was not torchrun.

    TrainingError where the others cannot be reached, or one of them was lost during the block.
    """
    if not launched():
        yield ALONE
        return
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    group = Group(rank, size, local_rank, launch_id=os.environ["TORCHELASTIC_RUN_ID"])
    if size == 1:
        yield group
        return
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        yield group
    except RuntimeError as cause:
        if not _lost(cause):
            raise
        raise TrainingError(f"process {rank} of {size} lost the others: {first_line(cause)}",
                            "torchrun starts them again while --max-restarts lasts.") from cause  # fmt: skip
    dist.destroy_process_group()


def _lost(cause: BaseException) -> bool:
    """gloo has no error class of its own: its messages name the file they come from."""
    return isinstance(cause, dist.DistError) or "gloo" in str(cause).lower()


class _Sum(torch.autograd.Function):
    """The sum over the processes, of whose gradient each of them has a part."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _SyncedBatchNorm(BatchNorm):
    """Batch normalisation by the whole batch's mean and variance, not by those of this process's part. PyTorch's own
    SyncBatchNorm does so on GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes, channels = [0, *range(2, input.dim())], input.shape[1]
        values = input.float()
        size = torch.tensor([values.numel() / channels], dtype=torch.float64, device=input.device)
        sums = [part.sum(axes, dtype=torch.float64) for part in (values, values.square())]
        total, squares, count = _Sum.apply(torch.cat([*sums, size])).split([channels, channels, 1])
        mean, variance = (total / count).float(), (squares / count - (total / count) ** 2).float()
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)).float(), self.momentum)
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        shape = [1, channels, *[1] * (input.dim() - 2)]
        normalised: Tensor = values * scale.reshape(shape) + shift.reshape(shape)
        return normalised.to(input.dtype)
