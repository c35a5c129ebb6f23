"""How each setting of a guest shows its effect: (what both have, the change, where it is seen)."""

from __future__ import annotations

# Beside tokens made elsewhere, and a module of one's own.
SHARES = ("data.tokens.validation_share=0", "data.tokens.test_share=0")
GUESTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "data.tokens.train": ((), "data.tokens.train=[train.bin, more.bin]", "shards.json"),
    "data.tokens.train[]": ((), "data.tokens.train.0=more.bin", "shards.json"),
    "data.tokens.validation": (SHARES, "data.tokens.validation=[more.bin]", "shards.json"),
    "data.tokens.validation[]": (
        (*SHARES, "data.tokens.validation=[more.bin]"),
        "data.tokens.validation=[wide.bin]",
        "shards.json",
    ),
    "data.tokens.test": (SHARES, "data.tokens.test=[more.bin]", "shards.json"),
    "data.tokens.test[]": (
        (*SHARES, "data.tokens.test=[more.bin]"), "data.tokens.test=[wide.bin]", "shards.json",
    ),
    "data.tokens.validation_share": ((), "data.tokens.validation_share=0.4", "shards.json"),
    "data.tokens.test_share": ((), "data.tokens.test_share=0.4", "shards.json"),
    "data.tokens.tokenizer": ((), "data.tokens.tokenizer=other.json", "error"),
    "data.tokens.vocabulary_size": ((), "data.tokens.vocabulary_size=60", "shards.json"),
    "data.tokens.separator": ((), "data.tokens.separator=7", "shards.json"),
    "data.tokens.dtype": ((), "data.tokens.dtype=uint32", "error"),
    "data.tokens.column": (
        ("data.tokens.train=[rows.parquet]", *SHARES), "data.tokens.column=other", "shards.json",
    ),
    "model.module": (
        (), "model.module={run_guests:Recurrent: {dropout: 0.3}}", "weights",
    ),
}  # fmt: skip
