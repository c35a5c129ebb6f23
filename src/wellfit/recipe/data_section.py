"""The recipe's section `data`: documents → shards."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from wellfit.recipe.examples_section import Examples
from wellfit.recipe.section import Call, Section, Share, refuse_split_twice


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
    separator: str = Field(
        "",
        description="Its entry that stands between documents, as it is written there; empty takes "
        "the first that is known as one. With model.weights: the end of text of its model.",
    )
    vocabulary_size: int = Field(
        4096, ge=257, le=1_000_000, description="Entries to learn; unused when `file` is given."
    )
    new_tokens: tuple[str, ...] = Field(
        (),
        description="Special tokens that it shall have besides, such as the marks of a template; "
        "they come behind the last id of a `file`.",
    )

    @model_validator(mode="after")
    def _new_tokens_are_names(self) -> Tokenizer:
        wrong = next((one for one in self.new_tokens if not one.strip()), None)
        twice = next((one for one in self.new_tokens if self.new_tokens.count(one) > 1), None)
        if wrong is not None or twice is not None:
            told = "an empty name" if wrong is not None else f"{twice} twice"
            raise ValueError(f"new_tokens has {told}; such as `new_tokens: ['<|im_end|>']`")
        return self

    @model_validator(mode="after")
    def _separates_what_is_there(self) -> Tokenizer:
        if self.separator and not self.file:
            raise ValueError(
                f"separator {self.separator} is an entry of a file, and none is given; leave it "
                "out, or name file"
            )
        return self


class Tokens(Section):
    """Tokens that another program has made already, in place of documents."""

    train: tuple[str, ...] = Field(
        min_length=1,
        description="Files, folders or globs: `.bin`, `.npy`, `.arrow`, `.parquet`, or a folder "
        "of `save_to_disk`. The files of a split are one stream, in this order.",
    )
    validation: tuple[str, ...] = Field((), description="The same for validation.")
    test: tuple[str, ...] = Field((), description="The same for the final test.")
    validation_share: Share = Field(
        0.0,
        description="Share of the train documents that becomes validation where it has no files; "
        "the hash of a document's tokens decides.",
    )
    test_share: Share = Field(0.0, description="Share that becomes the test, likewise.")
    tokenizer: str = Field(
        "",
        description="The `tokenizer.json` that the tokens were made with; without it give "
        "vocabulary_size and separator, and there are no samples and no bits per byte.",
    )
    vocabulary_size: int | None = Field(
        None, ge=2, le=16_777_216, description="Entries; ids from it on are refused."
    )
    separator: int | None = Field(
        None, ge=0, description="Id that stands between documents; by default the tokenizer's."
    )
    dtype: Literal["auto", "uint16", "uint32"] = Field(
        "auto",
        description="Little-endian numbers of a `.bin` without a header; `auto` takes uint16 up to "
        "65,536 entries, else uint32.",
    )
    column: str = Field(
        "input_ids", min_length=1, description="Column of lists of ids in Arrow and Parquet files."
    )

    @model_validator(mode="after")
    def _knows_its_vocabulary(self) -> Tokens:
        size, separator = self.vocabulary_size, self.separator
        if bool(self.tokenizer) == (size is not None):
            here = "both" if self.tokenizer else "neither"
            raise ValueError(
                f"give exactly one of tokenizer and vocabulary_size; here {here}; such as "
                "`tokenizer: tokenizer.json`, or `vocabulary_size: 50257` with `separator: 50256`"
            )
        if size is not None and separator is None:
            raise ValueError(
                "vocabulary_size needs separator, the id that stands between documents; GPT-2's is "
                "50256"
            )
        if size is not None and separator is not None and separator >= size:
            raise ValueError(
                f"separator {separator} is not below vocabulary_size {size}; try vocabulary_size "
                f"{separator + 1}"
            )
        refuse_split_twice(self)
        return self


class Data(Section):
    """Documents → shards."""

    sources: tuple[Source, ...] = Field((), min_length=1, description="Where documents come from.")
    tokens: Tokens | None = Field(
        None,
        description="Tokens made elsewhere, in place of `sources` and of all below but "
        "`folder` and `packing`.",
    )
    examples: Examples | None = Field(
        None,
        description="Examples with answers, in place of `sources` and of all below but `folder`, "
        "`packing`, `tokenizer` and `max_rejected_share`.",
    )
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
    packing: Literal["stream", "best_fit", "padded"] = Field(
        "stream",
        description="Rows to train on: `stream` fills every place and cuts the document at a row's "
        "end; `best_fit` cuts only documents longer than a row, and pads (arXiv 2404.10830); "
        "`padded`: one example a row, padded to the longest of the batch.",
    )
    workers: int = Field(
        0, ge=0, le=1024, description="Processes of the build; 0 takes one a core, 1 works inline."
    )

    def of_corpus(self) -> dict[str, Any]:
        """The settings that decide what a corpus holds, as JSON."""
        told = self.model_dump(mode="json", exclude={"workers", "folder", "packing"})
        if not self.tokenizer.separator:  # as corpora were built before there was one
            del told["tokenizer"]["separator"]
        return told

    @model_validator(mode="after")
    def _one_origin(self) -> Data:
        given = [name for name in ("sources", "tokens", "examples") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of sources, tokens and examples; here "
                f"{' and '.join(given) or 'none'}; at least `sources: [{{path: FOLDER}}]`, "
                "`tokens: {train: [FILE.bin], …}`, or `examples: {train: [FILE.jsonl]}`"
            )
        return self

    @model_validator(mode="after")
    def _packing_fits(self) -> Data:
        if self.examples is not None and self.packing == "stream":
            raise ValueError(
                "packing stream would cut examples in two; try packing best_fit, or packing padded"
            )
        if self.examples is None and self.packing == "padded":
            raise ValueError(
                "packing padded is for data.examples: documents fill rows; try packing best_fit"
            )
        return self
