"""Training in several processes, started by `torchrun`: over tokens (data-parallel) or over latents (sharded).

**Data-parallel.** Every process holds all weights and takes its lane of every batch. Gradients are averaged, counters
and thresholds are kept equal, and BatchTopK selects over the whole batch, so the losses are those of one process that
takes all lanes.

**Latent-sharded.** Every process takes the whole batch and holds the encoder and decoder rows of its share of the
latents, for dictionaries that are too large for one GPU. TopK is exact: each process offers its k best per token, and
those among the k best of all stay. Decoded parts are summed over the processes; gradients of the weights need no
exchange. The SAE is also evaluated in its shares, and put together on the first process's CPU only for writing
(`sharded_sae`).

The option `shard_latents` decides which. Selections wait for the device; with one process nothing does.
"""

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from collect.errors import UserError
from collect.process.ranks import LONGEST_WAIT, Process, in_touch
from train_sae.config import TrainConfig
from train_sae.processes.group import SOLO, Group
from train_sae.step.architectures import Weights
from train_sae.step.selection import ActiveLatents, offsets_of

_BUCKET_ELEMENTS = 2**20
"""Most elements of tensors that are exchanged together. A larger tensor is exchanged alone, because a copy would cost
more."""
SHARDED_ARCHITECTURES = ("topk", "batchtopk", "matryoshka_batchtopk", "frozen_decoder")


class _Processes(Group):
    """The processes of torch's default process group."""

    def __init__(self) -> None:
        self.rank, self.n_processes = dist.get_rank(), dist.get_world_size()

    def select_batch_topk(
        self, pre: Float[Tensor, "token latent"], k: int, guess: Float[Tensor, ""] | None = None
    ) -> ActiveLatents:
        """See `Group`. Among equal values at the boundary, those of earlier processes are taken first."""
        n_tokens, n_latents = pre.shape
        flat, wanted = pre.flatten(), k * n_tokens * self.n_data
        chosen = (flat > 0.9 * guess).nonzero().squeeze(1) if guess is not None and float(guess) > 0 else None
        if chosen is None or self._total(chosen.numel(), pre.device) < wanted:
            chosen = ((flat > 0) & (flat >= self._floor(flat, wanted))).nonzero().squeeze(1)
        values = flat.index_select(0, chosen)
        everywhere = self._gather_uneven(values.float())
        if sum(len(others) for others in everywhere) > wanted:
            boundary = torch.cat(everywhere).topk(wanted, sorted=False).values.min()
            n_above = sum(int((others > boundary).sum()) for others in everywhere)
            n_ties_before = sum(int((others == boundary).sum()) for others in everywhere[: self.rank])
            is_tie = values.float() == boundary
            kept = (values.float() > boundary) | (is_tie & (is_tie.cumsum(0) + n_ties_before <= wanted - n_above))
            chosen, values = chosen[kept], values[kept]
        tokens = chosen // n_latents
        return ActiveLatents(offsets_of(tokens, n_tokens), chosen - tokens * n_latents, values)

    def minimum(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """See `Group`."""
        found = value.clone()
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return found

    def gather(self, shard: Shaped[Tensor, "*shape"]) -> list[Shaped[Tensor, "*shape"]]:
        """See `Group`."""
        return self._gather(shard, wanted=True)

    def gather_first(self, shard: Shaped[Tensor, "*shape"]) -> list[Shaped[Tensor, "*shape"]]:
        """See `Group`."""
        return self._gather(shard, wanted=self.is_first)

    def barrier(self) -> None:
        """See `Group`."""
        dist.barrier()

    def _gather(self, shard: Shaped[Tensor, "*shape"], *, wanted: bool) -> list[Shaped[Tensor, "*shape"]]:
        """One process's tensor at a time is sent; only processes that want them keep them."""
        parts: list[Tensor] = []
        for rank in range(self.n_processes):
            part = shard.detach().clone() if rank == self.rank else torch.empty_like(shard)
            dist.broadcast(part, rank)
            if wanted:
                parts.append(part.cpu())
        return parts

    def _floor(self, flat: Float[Tensor, " n"], wanted: int) -> Float[Tensor, ""]:
        """What at least `wanted` values of all processes reach, if they have so many, and few more do.

        Each process alone holds its share of them at or above its own floor, and the lowest floor counts.
        """
        share = min(-(-wanted // self.n_processes), len(flat))
        return self.minimum(flat.topk(share, sorted=False).values.min().float()).to(flat)

    def _total(self, count: int, device: torch.device) -> int:
        total = torch.tensor(count, device=device)
        dist.all_reduce(total)
        return int(total)

    def _gather_uneven(self, values: Float[Tensor, " n"]) -> list[Float[Tensor, " _"]]:
        counts = [torch.zeros((), dtype=torch.int64, device=values.device) for _ in range(self.n_processes)]
        dist.all_gather(counts, torch.tensor(len(values), device=values.device))
        longest = max(int(count) for count in counts)
        padded = torch.nn.functional.pad(values, (0, longest - len(values)))
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return [part[: int(count)] for part, count in zip(parts, counts, strict=True)]


class DataParallel(_Processes):
    """Each process has a part of the tokens and all latents."""

    def __init__(self) -> None:
        super().__init__()
        self.n_data = self.n_processes

    def average_(self, tensors: Iterable[Float[Tensor, "..."]]) -> None:
        """See `Group`. All exchanges are under way at once, and small tensors share one."""
        buckets = [_Bucket(members) for members in in_buckets(tensors)]
        under_way = [dist.all_reduce(bucket.content, async_op=True) for bucket in buckets]
        for bucket, work in zip(buckets, under_way, strict=True):
            assert work is not None, "an exchange that is not waited for is given back"
            work.wait()
            bucket.content.div_(self.n_processes)
            bucket.unpack()

    def unite_(self, fired: Bool[Tensor, " latent"]) -> None:
        """See `Group`."""
        marks = fired.to(torch.uint8)
        dist.all_reduce(marks, dist.ReduceOp.MAX)
        fired.copy_(marks.bool())


class LatentSharded(_Processes):
    """Each process has all tokens and a part of the latents."""

    def __init__(self) -> None:
        super().__init__()
        self.n_shards = self.n_processes

    def select_topk(self, pre: Float[Tensor, "token latent"], k: int) -> ActiveLatents:
        """See `Group`. Among equal values at the boundary, those of earlier processes are taken first."""
        values, latents = pre.topk(min(k, pre.shape[1]), dim=1, sorted=False)
        offered = torch.nn.functional.pad(values.float(), (0, k - values.shape[1]), value=-torch.inf)
        parts = [torch.empty_like(offered) for _ in range(self.n_processes)]
        dist.all_gather(parts, offered.contiguous())
        everywhere = torch.cat(parts, dim=1)
        boundary = everywhere.topk(k, dim=1).values[:, -1:]
        left = k - (everywhere > boundary).sum(1, keepdim=True)
        n_ties_before = (torch.cat([offered[:, :0], *parts[: self.rank]], dim=1) == boundary).sum(1, keepdim=True)
        is_tie = values.float() == boundary
        kept = (values.float() > boundary) | (is_tie & (is_tie.cumsum(1) + n_ties_before <= left))
        offsets = torch.cat([left.new_zeros(1), kept.sum(1).cumsum(0)])
        return ActiveLatents(offsets, latents[kept], values[kept].relu())

    def sum_shards(self, partial: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """See `Group`."""
        total = partial.contiguous().clone()
        dist.all_reduce(total)
        return total

    def is_anywhere(self, here: bool) -> bool:
        """See `Group`."""
        return self._total(int(here), torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")) > 0


def in_buckets(tensors: Iterable[Tensor], most: int = _BUCKET_ELEMENTS) -> list[list[Tensor]]:
    """Sort tensors into groups that are exchanged together: a large one alone, or several of one type.

    Args:
        tensors: in the same order in every process.
        most: elements of a bucket with more than one tensor.
    """
    buckets: list[list[Tensor]] = []
    open_ones: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        bucket = open_ones.get(tensor.dtype)
        if bucket is None or sum(part.numel() for part in bucket) + tensor.numel() > most:
            bucket = []
            buckets.append(bucket)
            if tensor.numel() <= most:
                open_ones[tensor.dtype] = bucket
        bucket.append(tensor)
    return buckets


class _Bucket:
    """Tensors that travel together; a contiguous one that is alone needs no copy."""

    def __init__(self, members: list[Tensor]) -> None:
        self._members = members
        self._is_packed = len(members) > 1 or not members[0].is_contiguous()
        self.content = torch.cat([part.flatten() for part in members]) if self._is_packed else members[0]

    def unpack(self) -> None:
        """Put the content back into the tensors."""
        if self._is_packed:
            parts = self.content.split([part.numel() for part in self._members])
            for member, part in zip(self._members, parts, strict=True):
                member.copy_(part.view_as(member))


@contextmanager
def joined(shard_latents: bool, device: torch.device) -> Generator[Group]:
    """Within the block, be one of the processes that `torchrun` started; a process that it did not start is on its own.

    Args:
        shard_latents: whether the processes divide the latents instead of the tokens.
        device: where this process computes; it is CUDA's current one within the block.

    Raises:
        UserError: several processes of this machine would share a GPU, through which they cannot exchange anything.
    """
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if Process.of_environment().world_size == 1:
            yield SOLO
            return
        if device.type == "cuda":
            _check_own_gpu()
        with in_touch("nccl" if device.type == "cuda" else "gloo", LONGEST_WAIT):
            yield LatentSharded() if shard_latents else DataParallel()


def _check_own_gpu() -> None:
    n_here, n_gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    # A launcher may also show each process its own GPU only.
    if 1 < n_gpus < n_here:
        raise UserError(
            f"{n_here} processes on this machine cannot train on its {n_gpus} GPUs: start one for each with "
            f"--nproc-per-node {n_gpus}."
        )


def check_parts(group: Group, config: TrainConfig) -> None:
    """Check that the work can be divided.

    Raises:
        UserError: the tokens or the latents do not divide evenly, or an architecture cannot be trained in shards.
    """
    if config.batch_size % group.n_data:
        raise UserError(
            f"--batch-size {config.batch_size} cannot be shared out evenly among {group.n_data} processes: "
            f"give a multiple of {group.n_data}."
        )
    for d_sae in config.d_sae:
        if d_sae % group.n_shards:
            raise UserError(
                f"--d-sae {d_sae} cannot be shared out evenly among {group.n_shards} processes: "
                f"give a multiple of {group.n_shards}."
            )
    for arch in config.arch:
        if group.n_shards > 1 and arch not in SHARDED_ARCHITECTURES:
            raise UserError(
                f"--arch {arch} cannot be trained with shard_latents=true, only {', '.join(SHARDED_ARCHITECTURES)} "
                "can: leave the option out to share out the tokens."
            )


def shard_of(weights: Weights, group: Group, device: torch.device) -> Weights:
    """This process's share of the latents of a whole dictionary, on a device."""
    n_local = len(weights.b_enc) // group.n_shards
    mine = slice(group.rank * n_local, (group.rank + 1) * n_local)
    tensors = {
        name: (tensor if name == "b_dec" else tensor[mine]).detach().to(device, copy=True)
        for name, tensor in weights.tensors().items()
    }
    return Weights.from_tensors(tensors)
