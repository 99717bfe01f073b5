"""What edits need to know of a video besides its codes, found when needed: its questions, annotations and partner."""

from __future__ import annotations

from collections.abc import Sequence

from ask.questions import Item
from steer.codes import CodedCases, VideoCodes
from steer.edits.partners import partners
from steer.effects import Around
from steer.targets import Target


class Surroundings:
    """The videos of one split as edits see them."""

    def __init__(self, cases: CodedCases, items: Sequence[Item]) -> None:
        """Keep the items of the split; nothing is built yet."""
        self._cases = cases
        self._items = tuple(items)
        self._partners: dict[str, Item] | None = None

    def of(self, video_id: str, target: Target) -> Around:
        """One video; a swap takes the codes of a video with another count of what the target's subject counts.

        Where the video has no such question, the partner is that of its first counting question.
        """
        return Around(
            case=self._cases[video_id][0],
            scene=self._cases.scene(video_id),
            partner=lambda: self._codes_of_partner(video_id, target.subject),
        )

    def _codes_of_partner(self, video_id: str, subject: str) -> VideoCodes | None:
        if self._partners is None:
            shapes = {item.video_id: self._cases.scene(item.video_id).shape for item in self._items}
            self._partners = partners(self._items, shapes)
        own = [item for item in self._items if item.video_id == video_id and item.item_id in self._partners]
        own.sort(key=lambda item: item.subject != subject)
        return self._cases[self._partners[own[0].item_id].video_id][1] if own else None
