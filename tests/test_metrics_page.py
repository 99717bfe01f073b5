"""docs/metrics.md defines every number: the names of all that is written stand there, or in a benchmark's docstring."""

import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train_sae.stores import SITE, write_run
from train_sae.config import TrainConfig
from train_sae.quality.comparison import COMPARISON
from train_sae.quality.metrics import Coherence, Quality
from train_sae.quality.splice import VERSIONS, Scores, summarise
from train_sae.run import train

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def sections(*headings: str) -> set[str]:
    """The names in backquotes in some sections of the page."""
    parts = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}
    chosen = [part for title, part in parts.items() if title.startswith(headings)]
    assert len(chosen) == len(headings)
    return {name for part in chosen for name in re.findall(r"`([^`\n]+)`", part)}


def names(content: Any) -> set[str]:
    """All keys of a JSON document."""
    if not isinstance(content, dict):
        return set()
    return set(content).union(*(names(value) for value in content.values()))


def test_names_are_looked_for_in_the_document_and_in_what_it_holds() -> None:
    assert names({"a": {"b": 1}, "c": [2]}) == {"a", "b", "c"}
    assert "fvu" in sections("SAE quality")
    assert "margin" not in sections("SAE quality")


def test_every_number_of_a_training_is_defined(tmp_path: Path) -> None:
    run = write_run(tmp_path, n_videos=8)
    folder = train(TrainConfig(run=run, site=SITE, d_sae=(16,), k=(2,), batch_size=128, device="cpu"))
    line = (folder / "metrics.jsonl").read_text().splitlines()[-1]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.pop("files")
    written = names(summary) | names(json.loads(line))
    assert len(written) > 30
    assert written - sections("SAE quality") == set()
    assert set(COMPARISON.names) - sections("SAE quality") == set()


def test_every_number_of_an_evaluation_is_defined() -> None:
    some = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    spliced = names(summarise({"v": Scores(loss=some, text_loss=some, margin=-some, accuracy=-some)}, seed=0))
    assert {*VERSIONS, "loss", "recovered", "low"} <= spliced
    fields = {field.name for kind in (Quality, Coherence) for field in dataclasses.fields(kind)}
    written = {"sae", "held_out", "spliced"} | spliced | fields
    assert written - sections("SAE quality", "An SAE spliced") == set()


@pytest.mark.parametrize("benchmark", ["collect", "loader", "quality", "store", "train", "train_e2e"])
def test_every_number_of_a_benchmark_is_defined_in_its_docstring(benchmark: str) -> None:
    text = importlib.import_module(f"benchmarks.{benchmark}").__doc__ or ""
    defined = set(re.findall(r"\w+", text))
    found = json.loads((ROOT / "benchmarks" / "results" / f"{benchmark}.json").read_text())["metrics"]
    if benchmark == "quality":  # A_fvu_SIDE
        found = {re.sub(r"^(topk|batchtopk|matryoshka)(_3x|_residual)?", "A", name) for name in found}
        found = {re.sub(r"_(ours|ours_again|ours_bf16|sae_lens)$", "_SIDE", name) for name in found}
    if benchmark == "train":  # S_PEER_speedup, and S_ARCH_PRECISION_over_gemm or only its end
        found = {re.sub(r"^(small|medium|large|cuda)_", "S_", name) for name in found}
        found = {re.sub(r"^S_\w*topk_(fp32|bf16)", "S_ARCH_PRECISION", name) for name in found}
        found = {re.sub(r"(sae_lens|sparsify|dictionary_learning)", "PEER", name) for name in found}
        defined |= {f"S_ARCH_PRECISION{end}" for end in defined if end.startswith("_")}
    assert {name.removeprefix("tiny_").removesuffix("_ideal") for name in found} - defined == set()
