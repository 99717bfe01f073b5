from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from collect.artefact.seal import BLANK, seal
from collect.errors import UserError
from features.pictures.media import MAX_PANELS, choose_latents, jpeg, read_picture, shown_steps


def test_labelled_latents_are_drawn_first_and_dead_ones_never() -> None:
    catalogue = pd.DataFrame(
        {
            "latent": range(5),
            "is_dead": [False, False, False, True, False],
            "labelled": [False, True, True, False, False],
            "top_auroc": [0.99, 0.7, 0.9, None, None],
        }
    )
    assert choose_latents(catalogue, 10) == [2, 1, 0, 4]
    assert choose_latents(catalogue, 2) == [2, 1]
    assert choose_latents(catalogue, 0) == []


@pytest.mark.parametrize(("n_t", "peak"), [(1, 0), (4, 3), (8, 0), (32, 0), (32, 17), (32, 31)])
def test_strips_show_a_few_steps_in_order_with_the_exemplars(n_t: int, peak: int) -> None:
    steps = shown_steps(n_t, peak).tolist()
    assert peak in steps
    assert steps == sorted(set(steps))
    assert len(steps) == min(n_t, MAX_PANELS)


def test_a_picture_is_read_as_it_was_drawn_and_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "media" / "0.jpg"
    path.parent.mkdir()
    whole = jpeg(Image.new("RGB", (40, 10), (200, 30, 90)))
    path.write_bytes(whole)
    assert read_picture(tmp_path, "media/0.jpg") == (whole, (40, 10))
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        with pytest.raises(UserError, match=r"media/0\.jpg"):
            read_picture(tmp_path, "media/0.jpg")


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/hostname", "gone.jpg", "a\0.jpg", "text.txt", ".", "folder.jpg"])
def test_what_is_no_picture_below_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "features"
    (folder / "folder.jpg").mkdir(parents=True)
    (tmp_path / "out.jpg").write_bytes(jpeg(Image.new("RGB", (4, 4))))
    (folder / "text.txt").write_text("text")
    with pytest.raises(UserError, match="run `video-sae features` again to draw it"):
        read_picture(folder, name)


def test_a_sealed_file_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 400)).save(buffer, format="JPEG", comment=BLANK)
    (tmp_path / "cut.jpg").write_bytes(seal(buffer.getvalue()[:700]))
    (tmp_path / "none.jpg").write_bytes(seal(BLANK))
    for name in ("cut.jpg", "none.jpg"):
        with pytest.raises(UserError, match=rf"{name} is damaged"):
            read_picture(tmp_path, name)
