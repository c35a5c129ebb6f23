"""The recipe's section `data`: documents → shards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wellfit.recipe.section import Call, Section, Share


class Source(Section):
    """Where documents come from."""

    path: str = Field(
        min_length=1,
        description="A file, a folder, a glob, or the built-in source `python-stdlib`.",
    )
    format: Literal["auto", "text", "markdown", "code", "jsonl", "parquet"] = Field(
        "auto", description="How files are read; `auto` decides by the file's name."
    )
    domain: str = Field("", description="Domain of its documents; empty takes the reader's guess.")
    text_field: str = Field(
        "text", min_length=1, description="Column (Parquet) or key (JSONL) that holds the text."
    )


class Duplicates(Section):
    """Which repeated documents are dropped."""

    exact: bool = Field(True, description="Drop documents whose cleaned text is the same.")
    near: bool = Field(True, description="Drop documents that are nearly the same (verified).")
    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of word shingles from which two are near."
    )
    shingle_words: int = Field(5, ge=1, le=50, description="Words in a shingle.")
    max_removed_share: Share = Field(
        0.5, description="Largest share of one source's documents that near duplicates may remove."
    )


class Split(Section):
    """What is held out. Near-duplicate families stay on one side; the hash of the text decides."""

    validation: Share = Field(0.06, description="Share of the bytes for validation.")
    test: Share = Field(0.04, description="Share of the bytes for the final test.")
    family_threshold: float = Field(
        0.5, gt=0, le=1, description="Jaccard similarity from which documents stay together."
    )

    @model_validator(mode="after")
    def _something_left(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} + test {self.test} leave nothing to train on"
            )
        return self


class Tokenizer(Section):
    """How text becomes tokens."""

    file: str = Field(
        "",
        description="A `tokenizer.json` to use; empty trains a byte-level BPE on the train split.",
    )
    vocabulary_size: int = Field(
        4096, ge=257, le=1_000_000, description="Entries to learn; unused when `file` is given."
    )


class Data(Section):
    """Documents → shards."""

    sources: tuple[Source, ...] = Field(min_length=1, description="Where documents come from.")
    folder: str = Field(
        "", description="The corpus folder; empty means `corpora/NAME` in the current folder."
    )
    clean: tuple[Call, ...] = Field(
        (Call(name="unicode"),), description="Cleaners, applied in order; they fix the text."
    )
    filters: tuple[Call, ...] = Field(
        (Call(name="too_short"), Call(name="repetitive"), Call(name="mostly_non_text")),
        description="Filters; each gives a reason to drop a document, or none.",
    )
    duplicates: Duplicates = Field(Duplicates(), description="Which repeated documents go.")
    split: Split = Field(Split(), description="What is held out.")
    tokenizer: Tokenizer = Field(Tokenizer(), description="How text becomes tokens.")
    max_rejected_share: Share = Field(
        0.2, description="The build stops when more than this share of records cannot be read."
    )
    workers: int = Field(
        0, ge=0, le=1024, description="Processes of the build; 0 takes one a core, 1 works inline."
    )
