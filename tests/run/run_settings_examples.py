"""How each setting of examples shows its effect: (what both have, the change, where it is seen)."""

from __future__ import annotations

CLASSES = (
    "data.examples.task=classification",
    "data.examples.classes=[bad, fine, good]",
    "data.examples.train=[labelled.jsonl]",
    "model.kind=encoder",
)
SPAN = ("data.examples.task=span", "data.examples.train=[questions.jsonl]", "model.kind=encoder")
NO_SHARES = ("data.examples.validation_share=0", "data.examples.test_share=0")
INDEX = "shards.json"
EXAMPLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "data.examples.train": ((), "data.examples.train=[answers.jsonl, more.jsonl]", INDEX),
    "data.examples.train[]": ((), "data.examples.train.0=more.jsonl", INDEX),
    "data.examples.validation": (NO_SHARES, "data.examples.validation=[more.jsonl]", INDEX),
    "data.examples.validation[]": (
        (*NO_SHARES, "data.examples.validation=[more.jsonl]"),
        "data.examples.validation=[odd.jsonl]",
        INDEX,
    ),
    "data.examples.test": (NO_SHARES, "data.examples.test=[more.jsonl]", INDEX),
    "data.examples.test[]": (
        (*NO_SHARES, "data.examples.test=[more.jsonl]"),
        "data.examples.test=[odd.jsonl]",
        INDEX,
    ),
    "data.examples.validation_share": ((), "data.examples.validation_share=0.4", INDEX),
    "data.examples.test_share": ((), "data.examples.test_share=0.4", INDEX),
    "data.examples.task": (
        ("data.examples.train=[both.jsonl]",),
        "data.examples.task=span model.kind=encoder",
        INDEX,
    ),
    "data.examples.columns.source": ((), "data.examples.columns.source=other", INDEX),
    "data.examples.columns.context": ((), "data.examples.columns.context=other", INDEX),
    "data.examples.columns.target": ((), "data.examples.columns.target=other", INDEX),
    "data.examples.columns.messages": (
        ("data.examples.train=[talks.jsonl]", "data.examples.template=chatml"),
        "data.examples.columns.messages=talk",
        INDEX,
    ),
    "data.examples.columns.system": (
        ("data.examples.template=chatml",), "data.examples.columns.system=other", INDEX,
    ),
    "data.examples.columns.tools": (
        ("data.examples.train=[talks.jsonl]", "data.examples.template=tools.jinja"),
        "data.examples.columns.tools=calls",
        INDEX,
    ),
    "data.examples.template": ((), "data.examples.template=chatml", INDEX),
    "data.examples.turns": (
        ("data.examples.train=[talks.jsonl]", "data.examples.template=chatml"),
        "data.examples.turns=last",
        "shards/train-00000.labels.bin",
    ),
    "data.examples.columns.text": (CLASSES, "data.examples.columns.text=other", INDEX),
    "data.examples.columns.pair": (CLASSES, "data.examples.columns.pair=other", INDEX),
    "data.examples.columns.label": (CLASSES, "data.examples.columns.label=other", "error"),
    "data.examples.columns.question": (SPAN, "data.examples.columns.question=other", INDEX),
    "data.examples.columns.answers": (SPAN, "data.examples.columns.answers=other", "error"),
    "data.examples.columns.domain": ((), "data.examples.columns.domain=other", INDEX),
    "data.examples.classes": (
        CLASSES, "data.examples.classes=[fine, bad, good]", "shards/train-00000.labels.bin",
    ),
    "data.examples.classes[]": (CLASSES, "data.examples.classes.0=odd", "error"),
    "data.examples.apart": ((), "data.examples.apart=true model.kind=encoder_decoder", INDEX),
    "data.examples.train_on_source": ((), "data.examples.train_on_source=true", INDEX),
    "data.examples.source_max_len": ((), "data.examples.source_max_len=2", INDEX),
    "data.examples.target_max_len": ((), "data.examples.target_max_len=2", INDEX),
    "data.examples.longest": ((), "data.examples.longest=20", INDEX),
    "model.head": (CLASSES, "model.head=tokens", "error"),
    "model.classes": (CLASSES, "model.classes=4", "error"),
    "train.class_weights": (CLASSES, "train.class_weights=balanced", "weights"),
}  # fmt: skip
