"""What is known of each document → what is kept, what goes and why, and who is held out.

Reads small columns and the n-grams' files, never a text: changing a threshold costs seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wellfit.data.dedup.exact import drop_exact
from wellfit.data.dedup.near import drop_near
from wellfit.data.leakage import HeldOut, Ngrams, hold_out
from wellfit.data.pairs import text_key
from wellfit.data.split import families
from wellfit.recipe.schema import Data

COLUMNS = (
    "id",
    "source",
    "domain",
    "content_type",
    "language",
    "path",
    "row",
    "member",
    "sha256",
    "bytes",
)
"""The columns of a part that decisions and the report read."""

Pair = tuple[str, str, float]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one document."""

    keep: bool
    stage: str
    """What dropped it: `empty`, a filter's name, `exact duplicate`, `near duplicate`; or ""."""
    reason: str
    split: str
    """`train`, `validation` or `test`; empty where it was dropped."""
    other: str = ""
    """The kept document that it repeats, and how nearly."""
    similarity: float = 0.0


@dataclass(frozen=True, slots=True)
class Decided:
    """The decisions, and what the report tells beside them."""

    decisions: dict[str, Decision]
    """By id, in the order of the documents."""
    spared: dict[str, tuple[str, float]]
    """Near duplicates that stayed because their source had lost its largest share already."""
    families: dict[str, int]
    """Family of each kept document."""
    held_out: HeldOut
    """The split of the kept documents, in their order."""


def decide(
    documents: Sequence[Mapping[str, Any]],
    reasons: Sequence[tuple[str, str] | None],
    pairs: Sequence[Pair],
    ngrams: Ngrams,
    section: Data,
) -> Decided:
    """Documents in stable order, filters' reasons, verified pairs and n-grams → decisions.

    Filters come first, then exact duplicates, then near ones: a document is never dropped in
    favour of one that is dropped itself. Raises DataError where a wanted split would be empty.
    """
    number_of = {document["id"]: number for number, document in enumerate(documents)}
    gone: dict[str, Decision] = {}
    for document, objection in zip(documents, reasons, strict=True):
        if objection is not None:
            gone[document["id"]] = Decision(False, objection[0], objection[1], "")
    left = [document for document in documents if document["id"] not in gone]
    if section.duplicates.exact:
        ids = [document["id"] for document in left]
        for one, kept in drop_exact(ids, [document["sha256"] for document in left]).items():
            reason = f"same text as {kept}"
            gone[one] = Decision(False, "exact duplicate", reason, "", kept, 1.0)
        left = [document for document in left if document["id"] not in gone]
    spared: dict[str, tuple[str, float]] = {}
    if section.duplicates.near:
        near = drop_near(
            pairs,
            [document["id"] for document in left],
            section.duplicates.threshold,
            {document["id"]: document["source"] for document in left},
            section.duplicates.max_removed_share,
        )
        spared = near.spared
        for one, (kept, value) in near.dropped.items():
            reason = f"similarity {value:.3f} to {kept}"
            gone[one] = Decision(False, "near duplicate", reason, "", kept, value)
        left = [document for document in left if document["id"] not in gone]
    family = families(
        [document["id"] for document in left],
        pairs,
        section.split.family_threshold,
        _together(left, section),
    )
    numbers = [number_of[document["id"]] for document in left]
    held_out = hold_out(
        [document["id"] for document in left],
        lambda wanted: ngrams([numbers[one] for one in wanted]),
        family,
        [document["sha256"] for document in left],
        [document["bytes"] for document in left],
        validation=section.split.validation,
        test=section.split.test,
        contained=section.split.family_threshold,
    )
    kept_ = {
        document["id"]: Decision(True, "", "", split)
        for document, split in zip(left, held_out.side, strict=True)
    }
    return Decided(
        {d["id"]: gone.get(d["id"]) or kept_[d["id"]] for d in documents},
        spared,
        {document["id"]: number for document, number in zip(left, family, strict=True)},
        held_out,
    )


def pairs_of_documents(
    documents: Sequence[Mapping[str, Any]],
    similarity: Mapping[tuple[int, int], float],
    least: float,
) -> list[Pair]:
    """Similar texts → pairs of documents, copies of one text included, in stable order.

    The first document with a text stands for it; its copies are linked to it with similarity 1.
    """
    first: dict[int, str] = {}
    rank: dict[str, int] = {}
    pairs: list[Pair] = []
    for number, document in enumerate(documents):
        if not document["bytes"]:
            continue
        rank[document["id"]] = number
        stands = first.setdefault(text_key(document["sha256"]), document["id"])
        if stands != document["id"]:
            pairs.append((stands, document["id"], 1.0))
    for (one, two), value in similarity.items():
        if value >= least:
            a, b = sorted((first[one], first[two]), key=rank.__getitem__)
            pairs.append((a, b, value))
    return sorted(pairs, key=lambda pair: (rank[pair[0]], rank[pair[1]]))


def _together(documents: Sequence[Mapping[str, Any]], section: Data) -> list[str]:
    """Documents → a label for pieces of one cut file, which stay on one side of the split.

    A file that is larger than a wanted split has none: it could never be held out whole, so its
    pieces are shared out.
    """
    sizes: Counter[tuple[str, str]] = Counter()
    for document in documents:
        sizes[document["source"], document["path"]] += document["bytes"]
    shares = [share for share in (section.split.validation, section.split.test) if share]
    largest = min(shares, default=0.0) * sum(sizes.values())
    return [
        f"{d['source']}\0{d['path']}"
        if d["row"] is None and not d["member"] and sizes[d["source"], d["path"]] <= largest
        else ""
        for d in documents
    ]
