"""What is odd about a video's annotations, once they are read, and about its metadata, compared with its file."""

from collections import Counter
from collections.abc import Sequence

from collect.data.annotation import NOT_ANNOTATED, Question, Video
from collect.data.counting import COUNTING_TAGS, option_number
from collect.data.findings import Findings
from collect.printable import printable
from collect.video.file import DecodeError, Facts, probe

N_OPTIONS = 3
"""Options of a question that a stage can ask."""
RATE_TOLERANCE = 0.02
LENGTH_TOLERANCE = 0.1
MANY_ANSWERS = 20


def check_video(video: Video, place: str, findings: Findings) -> None:
    """Report tracks without a name, parents without a track, and a cut after the end.

    Args:
        video: as read.
        place: where it is written.
        findings: where to report.
    """
    for track in video.tracks:
        if not any(character.isalnum() for character in track.label):
            findings.warn(
                place, "the label of a track names nothing", "its boxes count without a name", f"id {track.id}"
            )
    known = {track.id for track in video.tracks} | {NOT_ANNOTATED}
    for kind, segments in (("action", video.actions), ("sound", video.sounds)):
        for segment in segments:
            if not any(character.isalnum() for character in segment.label):
                findings.warn(
                    place,
                    f"the label of an {kind} names nothing"
                    if kind == "action"
                    else "the label of a sound names nothing",
                    "it labels nothing",
                    f"id {segment.id}",
                )
            unknown = sorted(set(segment.parent_objects) - known)
            if unknown and video.tracks:  # a file of segments alone has no tracks to refer to
                findings.warn(
                    place,
                    "a segment names a parent object that has no track",
                    "no token of that object belongs to the segment",
                    f"{kind} {segment.id}: parent {', '.join(map(str, unknown))}",
                )
    if video.cut_frame is not None and video.n_frames and video.cut_frame > video.n_frames:
        findings.warn(
            place,
            "its cut frame comes after its end",
            "nothing is cut",
            f"{video.cut_frame} of {video.n_frames} frames",
        )


def check_questions(video: Video, place: str, findings: Findings) -> None:
    """Report questions that no stage asks, and say why."""
    for question in video.questions:
        problem = _problem(question)
        if problem is not None:
            what, options = problem, " | ".join(printable(option) for option in question.options)
            findings.warn(f"{place}, question {question.id}", what, "it is not asked", f"options {options}")
    for number, count in Counter(question.id for question in video.questions).items():
        assert count == 1, f"two questions have the id {number}"


def _problem(question: Question) -> str | None:
    if len(question.options) != N_OPTIONS:
        return f"it does not have {N_OPTIONS} options"
    if len({option.strip() for option in question.options}) < N_OPTIONS:
        return "two of its options are alike"
    if any(tag in COUNTING_TAGS for tag in question.tag):
        numbers = [option_number(option) for option in question.options]
        if None in numbers:
            return "it has a counting tag, but an option that is not one number"
        if len(set(numbers)) < N_OPTIONS:
            return "it has a counting tag, but two options name the same number"
    return None


def check_answers(questions: Sequence[Question], place: str, findings: Findings) -> None:
    """Report answers that seem to be counted from 1: with many questions, the first option is sometimes right."""
    answers = [question.answer_id for question in questions if question.answer_id >= 0]
    if len(answers) >= MANY_ANSWERS and 0 not in answers:
        findings.warn(
            place,
            "no question has the answer_id 0",
            "answers are counted from 0: subtract 1 if yours are counted from 1",
            f"{len(answers):,} questions",
        )


def compare_with_file(video: Video, findings: Findings, facts: Facts | None = None) -> None:
    """Report metadata that the video file contradicts; a file that cannot be read is reported when it is collected.

    Args:
        video: as read.
        findings: where to report.
        facts: what `probe` says about the file, if it was called.
    """
    if video.path is None:
        return
    try:
        facts = facts or probe(video.path)
    except DecodeError:
        return
    height, width = facts.height, facts.width
    place = f"{printable(video.path, 4096)}: video '{printable(video.video_id)}'"
    if (video.height, video.width) != (height, width) and video.height and height:
        detail = f"height {video.height} and width {video.width}, where the file has {height} and {width}"
        if abs(video.width * height / (video.height * width) - 1) < RATE_TOLERANCE:
            findings.note(
                place, "its file has another resolution than its metadata", "boxes are fractions of it", detail
            )
        else:
            findings.warn(
                place,
                "its file has other proportions than its metadata",
                "boxes in pixels would be scaled wrongly; mend `resolution` ([height, width])",
                detail,
            )
    if video.frame_rate and facts.frame_rate and abs(facts.frame_rate / video.frame_rate - 1) > RATE_TOLERANCE:
        detail = f"{video.frame_rate:g}, where the file has {facts.frame_rate:g}"
        findings.warn(
            place, "its file has another frame rate than its metadata", "annotated times count, not frame ids", detail
        )
    if video.n_frames and facts.n_frames and abs(facts.n_frames / video.n_frames - 1) > LENGTH_TOLERANCE:
        detail = f"{video.n_frames:,}, where the file has {facts.n_frames:,}"
        findings.warn(
            place,
            "its file has another number of frames than its metadata",
            "what lies after its end has no token",
            detail,
        )
