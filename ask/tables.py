"""The tables of questions and answers: names, types and meaning of every column.

Each schema documents itself: `SCHEMA.field(name).metadata[b"doc"]` says what the column holds. Margins are in nats.
"""

from __future__ import annotations

import pyarrow as pa

from collect.artefact.table import column, table_schema

TEXT, WHOLE, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
SPLITS = ("train", "held_out")


ITEMS = table_schema(
    "One row per question that is evaluated, with the unedited model's answer.",
    column("item", TEXT, "video_id/question_id"),
    column("video_id", TEXT, "video"),
    column("question_id", WHOLE, "id of the question in the annotations"),
    column("kind", TEXT, "the tag that made it a counting question, or the first tag of a non-counting question"),
    column("counting", FLAG, "whether it is a counting question; else it is a non-counting question"),
    column(
        "subject", TEXT, "what a counting question counts (ask.subjects); null for a non-counting question", null=True
    ),
    column("held_out", FLAG, "whether its video is held out"),
    column("question", TEXT, "text of the question"),
    column("options", pa.list_(TEXT), "the three options in annotated order"),
    column("values", pa.list_(REAL), "numbers that the options name; null for a non-counting question"),
    column("answer_id", WHOLE, "position of the correct option, from 0", least=0),
    column("hash", TEXT, "SHA-256 of video, prompts in all orders of the options, and answer"),
    column("question_only", REAL, "score of the question-only baseline learned on the train videos (1, 0, or chance)"),
    column(
        "margin", REAL, "logit of the correct letter - logsumexp of the wrong ones, mean over the orders of the options"
    ),
    column("accuracy", REAL, "share of the orders answered correctly"),
    column(
        "expected_count", REAL, "expected count under the letter probabilities, mean over the orders of the options"
    ),
    column("option_mass", REAL, "probability of the three letters together, mean over the orders of the options"),
)

BASELINES = table_schema(
    "One row per kind of question and split: what the model scores and what it could score without the video.",
    column("kind", TEXT, "kind of question, or `all counting`, `all non-counting`"),
    column("counting", FLAG, "whether the kind is a counting kind"),
    column("split", TEXT, "train or held_out", among=SPLITS),
    column("n_items", WHOLE, "questions", least=0),
    column("n_videos", WHOLE, "videos", least=0),
    column("chance", REAL, "score of a random letter"),
    column(
        "answer_frequency", REAL, "score of the most frequent answer of each question text, counted on these very items"
    ),
    column(
        "question_only", REAL, "score of the most frequent answer per question and options, learned on train videos"
    ),
    column("accuracy", REAL, "score of the model, mean over the orders of the options"),
    column("accuracy_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("accuracy_high", REAL, "upper end"),
    column("best_baseline", REAL, "highest of chance, answer_frequency and question_only"),
    column("margin", REAL, "mean answer margin of the model"),
)

PROFILE = table_schema(
    "One row per site and kind of question: the fall of the margin when every visual token becomes the mean one.",
    column("site", TEXT, "site whose visual residuals are replaced by their mean over the evaluated videos"),
    column("depth", WHOLE, "decoder layers before the site", least=0),
    column("kind", TEXT, "kind of question, or `all counting`, `all non-counting`"),
    column("counting", FLAG, "whether the kind is a counting kind"),
    column("n_items", WHOLE, "questions", least=0),
    column("n_videos", WHOLE, "videos", least=0),
    column("accuracy", REAL, "accuracy of the unedited model"),
    column("accuracy_replaced", REAL, "accuracy with the visual tokens replaced"),
    column("margin", REAL, "answer margin of the unedited model"),
    column("margin_replaced", REAL, "answer margin with the visual tokens replaced"),
    column("fall", REAL, "margin - margin_replaced", null=False),
    column("fall_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("fall_high", REAL, "upper end"),
    column("fall_share", REAL, "fall divided by the fall at the projector; null where that is not positive"),
)
