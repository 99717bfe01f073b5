"""The steps of other libraries, where they are installed, and what is said where they are not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import peers
from benchmarks.sizes import Size, batches
from collect.errors import UserError
from train_sae.config import Architecture

TINY = Size(32, 128, 4, 256, rounds=1)
BOTH = pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def _falls(step: Any) -> bool:
    """Whether the loss on the same four batches falls at every one of five looks during 100 steps."""
    losses = [step() for _ in range(100)]
    looks = [sum(losses[at : at + 4]) for at in range(0, 100, 24)]
    return len(looks) == 5 and looks == sorted(looks, reverse=True) and looks[-1] < 0.97 * looks[0]


def _needs(name: str) -> None:
    missing = peers.PEERS[name].missing
    if missing:
        pytest.skip(f"cannot import {', '.join(missing)}")


@BOTH
def test_sparsify_learns_with_k_active_latents(precision: torch.dtype) -> None:
    _needs("sparsify")
    data = batches(TINY)
    step = peers.sparsify_step(TINY, "topk", precision, data)
    assert _falls(step)
    assert {p.dtype for p in step.coder.parameters()} == {torch.float32}
    found = step.coder.encode(data[0])
    assert found.top_acts.shape == (256, 4)
    assert float((found.top_acts > 0).float().mean()) > 0.99
    # Decoder directions are set back to norm one at the next step; the gradient had no part along them.
    torch.testing.assert_close(step.coder.W_dec.norm(dim=1), torch.ones(128), rtol=0, atol=1e-2)
    assert int(step.tokens_since_fired.min()) == 0


class _Model(torch.nn.Module):
    """As much of a language model as sparsify's trainer asks for; its activations are the given ones."""

    device = torch.device("cpu")

    def __init__(self, activations: torch.Tensor) -> None:
        super().__init__()
        self.site = torch.nn.Embedding.from_pretrained(activations)
        self.dummy_inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long)}

    @property
    def base_model(self) -> torch.nn.Module:
        return self

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.site(input_ids)


def test_sparsifys_step_is_that_of_its_trainer(tmp_path: Path) -> None:
    _needs("sparsify")
    import sparsify
    from transformers import get_linear_schedule_with_warmup

    data = batches(TINY)
    step = peers.sparsify_step(TINY, "topk", torch.float32, data)
    step.scheduler = get_linear_schedule_with_warmup(step.optimizer, 0, len(data))
    config = sparsify.TrainConfig(
        sparsify.SparseCoderConfig(num_latents=128, k=4),
        batch_size=1,
        optimizer="adam",
        lr=1e-4,
        lr_warmup_steps=0,
        hookpoints=["site"],
        log_to_wandb=False,
        save_dir=str(tmp_path),
    )
    tokens = torch.arange(4 * 256).reshape(4, 256)
    trainer = sparsify.Trainer(config, [{"input_ids": row} for row in tokens], _Model(torch.cat(data)))
    precision = torch.get_float32_matmul_precision()
    try:
        trainer.fit()
    finally:
        torch.set_float32_matmul_precision(precision)
    for _ in data:
        step()
    theirs = trainer.saes["site"].state_dict()
    for name, ours in step.coder.state_dict().items():
        torch.testing.assert_close(ours, theirs[name], rtol=0, atol=1e-6)
    assert torch.equal(step.tokens_since_fired, trainer.num_tokens_since_fired["site"])


@BOTH
@pytest.mark.parametrize("arch", peers.PEERS["dictionary_learning"].architectures)
def test_dictionary_learning_learns_with_k_active_latents(arch: Architecture, precision: torch.dtype) -> None:
    _needs("dictionary_learning")
    data = batches(TINY)
    step = peers.dictionary_learning_step(TINY, arch, precision, data)
    assert _falls(step)
    sae = step.trainer.ae
    assert {p.dtype for p in sae.parameters()} == {torch.float32}
    active = (sae.encode(data[0], use_threshold=False) > 0).sum(1)
    assert float(active.float().mean()) == pytest.approx(4, abs=0.04)
    if arch == "topk":
        assert int(active.max()) == 4
    assert float(sae.threshold) > 0
    if arch == "matryoshka_batchtopk":
        assert step.trainer.group_sizes == [16, 16, 32, 64]  # prefixes of 16, 32, 64, 128


def test_the_process_is_left_as_it_was() -> None:
    _needs("dictionary_learning")
    import math

    before = dict(vars(math))
    peers.dictionary_learning_step(TINY, "topk", torch.float32, batches(TINY))()
    assert {name for name, value in vars(math).items() if before[name] is not value} == set()


@pytest.mark.parametrize("name", peers.PEERS)
def test_what_cannot_be_imported_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = peers.PEERS[name].modules[-1]
    monkeypatch.setattr(peers, "version", lambda _: "1.2.3")
    monkeypatch.setattr(peers, "find_spec", lambda module: None if module == lost else object())
    others = set(peers.PEERS) - {other for other, peer in peers.PEERS.items() if lost in peer.modules}
    assert set(peers.available()) == others
    (line,) = [line for line in peers.notes() if line.startswith(f"{name} is not compared with")]
    assert lost in line
    assert peers.PEERS[name].install in line
    with pytest.raises(UserError, match=f"cannot import {lost}"):
        peers.PEERS[name].step(TINY, "topk", torch.float32, [])


def test_a_module_of_another_distribution_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(distribution: str) -> str:
        if distribution == "eai-sparsify":
            raise peers.PackageNotFoundError
        return "0.1.0"

    monkeypatch.setattr(peers, "version", version)
    monkeypatch.setattr(peers, "find_spec", lambda _: object())
    assert list(peers.available()) == ["dictionary_learning"]
    absent, present = peers.notes()
    assert absent.startswith("sparsify is not compared with: cannot import sparsify. To install: pip install")
    assert present == "dictionary_learning is dictionary-learning 0.1.0: topk, batchtopk, matryoshka_batchtopk"


def test_an_architecture_that_a_peer_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="sparsify does not train batchtopk"):
        peers.sparsify_step(TINY, "batchtopk", torch.float32, [])
