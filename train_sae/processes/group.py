"""The processes that take a training step together, as the step sees them. The group here is a single process.

A step asks its group for what depends on the other processes: which latents win if tokens or latents are spread over
processes, sums over latent shards, means over token shards. `parallel` has the groups of several processes.
"""

from collections.abc import Iterable

from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from train_sae.step.selection import ActiveLatents, select_batch_topk, select_topk


class Group:
    """One process with all tokens of the batch and all latents."""

    rank: int = 0
    """Number of this process."""
    n_processes: int = 1
    n_data: int = 1
    """Parts into which the tokens of a batch are cut."""
    n_shards: int = 1
    """Parts into which the latents are cut."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def first_latent(self, n_local: int) -> int:
        """Number of the first of this process's `n_local` latents."""
        return self.rank * n_local if self.n_shards > 1 else 0

    def select_topk(self, pre: Float[Tensor, "token latent"], k: int) -> ActiveLatents:
        """The k largest pre-activations of each token over all shards; all of them if there are fewer.

        Returns:
            The entries among this process's latents, numbered from its first one.
        """
        return select_topk(pre, min(k, pre.shape[1]))

    def select_batch_topk(
        self, pre: Float[Tensor, "token latent"], k: int, guess: Float[Tensor, ""] | None = None
    ) -> ActiveLatents:
        """The k × batch largest positive pre-activations of the whole batch and of all shards.

        Args:
            pre: pre-activations of this process's tokens and latents.
            k: active latents per token, on average.
            guess: a guess of the smallest value that will be selected, which saves several processes an exchange of
                many candidates. It does not change the selection.

        Returns:
            The entries among this process's tokens and latents, numbered from its first ones.
        """
        del guess
        return select_batch_topk(pre, k)

    def sum_shards(self, partial: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Sum over the latent shards."""
        return partial

    def is_anywhere(self, here: bool) -> bool:
        """Whether something holds for one of the latent shards."""
        return here

    def average_(self, tensors: Iterable[Float[Tensor, "..."]]) -> None:
        """Replace tensors by their means over the token shards."""

    def unite_(self, fired: Bool[Tensor, " latent"]) -> None:
        """Mark what is marked in any token shard."""

    def minimum(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The smallest value over all processes."""
        return value

    def gather(self, shard: Shaped[Tensor, "*shape"]) -> list[Shaped[Tensor, "*shape"]]:
        """The tensors of all processes, equal in shape, in the order of the processes; on the CPU."""
        return [shard.cpu()]

    def gather_first(self, shard: Shaped[Tensor, "*shape"]) -> list[Shaped[Tensor, "*shape"]]:
        """As `gather` on the first process; an empty list on the others, which do not need it."""
        return [shard.cpu()]

    def barrier(self) -> None:
        """Wait for the other processes."""


SOLO = Group()
