"""Where Perception Test publishes its files, and where each file's content goes in a data folder.

Source: the repository google-deepmind/perception_test, section on downloads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from collect.download.config import Part, Split

JSON_GROWTH = 12
"""Unpacked annotations are at most about this many times the size of their archive."""
MOST_ARCHIVE_BYTES = 1 << 38
"""A larger archive is not fetched; the largest, the videos of `valid`, has 70 GB."""
MOST_JSON_BYTES = 1 << 28
"""A larger JSON file is not fetched; the cut-frame mappings have a few hundred kB."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One published file."""

    path: str
    """Below the base address."""
    folder: str
    """Where its content goes, below the data folder; `.` is the data folder itself."""
    suffix: str
    """Of the members of an archive that are wanted; or of the file itself."""

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether it is a .zip file, to be unpacked."""
        return self.name.endswith(".zip")

    @property
    def most_bytes(self) -> int:
        """A larger one is not fetched."""
        return MOST_ARCHIVE_BYTES if self.is_archive else MOST_JSON_BYTES

    @property
    def growth(self) -> int:
        """Roughly how many times as large as itself its content is."""
        return JSON_GROWTH if self.is_archive and self.suffix == ".json" else 1


def published_files(splits: Sequence[Split], parts: Sequence[Part]) -> tuple[RemoteFile, ...]:
    """List the files that make up some parts of some splits, small ones first; unpublished ones are left out."""
    found = {file.path: file for part in parts for split in splits for file in _files(split, part)}
    return tuple(sorted(found.values(), key=lambda file: (file.suffix != ".json", file.path)))


def _files(split: Split, part: Part) -> Iterator[RemoteFile]:
    if part == "cut_frames":
        # The videos of the test split are already cut; those of the sample may be of either other split.
        for name in {"sample": ("train", "valid"), "test": ()}.get(split, (split,)):
            yield RemoteFile(path=f"misc/cut_frame_mapping_{name}.json", folder=".", suffix=".json")
    elif part == "videos":
        yield RemoteFile(path=f"zip_data/{split}_videos.zip", folder="videos", suffix=".mp4")
    elif part == "annotations":
        yield RemoteFile(path=f"zip_data/{split}_annotations.zip", folder="annotations", suffix=".json")
    elif split != "sample":  # whose questions are in its annotations
        yield RemoteFile(path=f"zip_data/mc_question_{split}_annotations.zip", folder="annotations", suffix=".json")
