"""A family from outside passes the suite, and the commands take it once its package offers it."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from torch import Tensor

import video_sae
from collect.errors import UserError
from collect.reading import ActivationStore
from collect.tokens.grid import TokenGrid
from collect.video.decode import Clip
from collect.vlm import VideoVlm, VlmFamily, load_vlm, register_family
from collect.vlm.check import check_prefix
from collect.vlm.conformance import VideoVlmTests, clip_of, noise
from collect.vlm.conformance.places import check_painted
from collect.vlm.families import registry
from collect.vlm.families.perception_lm import PerceptionLm
from tests.collect.vlm import own_family
from tests.collect.vlm.own_family import LlavaFrames, tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("llava"))


@pytest.fixture(autouse=True)
def others_do_not_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_families", dict(registry._families))


@pytest.fixture(scope="module")
def vlm(checkpoint: Path) -> VideoVlm:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_families", dict(registry._families))
        register_family(LlavaFrames)
        return load_vlm(str(checkpoint), device="cpu")


class TestLlavaFrames(VideoVlmTests):
    pass


def test_the_suite_finds_an_adapter_that_mirrors_frames(vlm: VideoVlm) -> None:
    class Mirrored(LlavaFrames):
        def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
            return tuple(replace(grid, col_spans=grid.col_spans[::-1].copy()) for grid in super().grids(pixels, clip))

    wrong = VideoVlm(Mirrored(vlm.name, vlm.model, vlm.family.processor), fingerprint="")
    with pytest.raises(AssertionError):
        check_painted(wrong, clip_of([noise(96, 128)] * 2), "projector", 0.3)


def test_the_example_of_the_documentation_is_this_family(vlm: VideoVlm) -> None:
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    (example,) = re.findall(r"```python\n(class LlavaFrames.*?)```", text, flags=re.DOTALL)
    names = dict(vars(own_family))
    exec(example, names)
    assert names["LlavaFrames"] is not LlavaFrames
    check_prefix(VideoVlm(names["LlavaFrames"](vlm.name, vlm.model, vlm.family.processor), fingerprint=""))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package's file of entry points."""
    folder = tmp_path / "site" / "own_families-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: own-families\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(folder.parent)
    return folder / "entry_points.txt"


def test_the_commands_take_a_family_of_an_installed_package(
    package: Path, checkpoint: Path, clips: Path, tmp_path: Path
) -> None:
    package.write_text("[video_sae.families]\nllava = tests.collect.vlm.own_family:LlavaFrames\n")
    words = f"collect --data {clips} --model {checkpoint} --sites resid/1 --out {tmp_path} --frames 2 --device cpu"
    assert video_sae.main(words.split()) == 0
    store = ActivationStore.open(tmp_path / "activations")
    assert [record.grid.n_tokens for record in store.videos] == [2 * 4 * 4] * 10  # frames, rows, columns


def test_without_its_package_the_family_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"family 'llava', which is not supported: use a model of one of gemma3, "):
        load_vlm(str(checkpoint), device="cpu")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package:Family", r"no_such_package:Family cannot be imported \(No module named 'no_such_package'\)"),
        ("tests.collect.vlm.own_family:Clip", r"own_family:Clip is no VlmFamily whose model_type is 'llava': mend"),
        ("collect.vlm.families.gemma3:Gemma3", r"gemma3:Gemma3 is no VlmFamily whose model_type is 'llava': mend"),
    ],
)
def test_a_package_that_offers_no_family_is_named(package: Path, checkpoint: Path, value: str, message: str) -> None:
    package.write_text(f"[video_sae.families]\nllava = {value}\n")
    with pytest.raises(UserError, match=message):
        load_vlm(str(checkpoint), device="cpu")


def test_a_family_cannot_be_replaced(package: Path) -> None:
    class Mine(PerceptionLm):
        model_type: ClassVar[str] = "perception_lm"

    with pytest.raises(UserError, match=r"Mine cannot be registered: .*\.PerceptionLm is the family 'perception_lm'"):
        register_family(Mine)
    package.write_text("[video_sae.families]\nperception_lm = tests.collect.vlm.own_family:LlavaFrames\n")
    assert registry.family_class("x", "perception_lm") is PerceptionLm


def test_a_class_that_is_defined_again_takes_the_place_of_the_first() -> None:
    def define() -> type[VlmFamily]:
        class Again(LlavaFrames):
            pass

        return Again

    register_family(define())
    second = register_family(define())
    assert registry.family_class("x", "llava") is second
