"""Documents in, train, validation and test out: whole families, chosen by their content.

A *family* is what must not be torn apart: documents linked by near-duplicate pairs, and parts of
one file. Families stand in the order of a hash of their texts, so neither a seed nor the order of
files decides what is held out, and the same text is held out in every build that has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from wellfit.data.dedup.shingles import shingle_hashes
from wellfit.errors import DataError

NGRAM_WORDS = 13
"""Length of the word n-grams that leakage counts, as in the GPT-3 paper (arXiv 2005.14165, C)."""

_OVERSHOOT = 0.1
_TEXTS_AT_ONCE = 1_000_000  # characters of training text looked up in one go


def families(
    ids: Sequence[str],
    pairs: Iterable[tuple[str, str, float]],
    threshold: float,
    together: Sequence[str] | None = None,
) -> list[int]:
    """Ids and verified pairs → family of each document, numbered by first appearance.

    Pairs of at least `threshold` link their two; documents with the same non-empty label in
    `together` (say, the file they are parts of) are linked too. Links are transitive here: that
    errs on the side of not leaking. Pairs that name unknown ids are ignored.

    >>> families(["a", "b", "c", "d"], [("a", "c", 0.6), ("b", "d", 0.4)], 0.5)
    [0, 1, 0, 2]
    """
    place = {document: number for number, document in enumerate(ids)}
    parent = list(range(len(ids)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def link(one: int, two: int) -> None:
        low, high = sorted((root(one), root(two)))
        parent[high] = low

    for one, two, value in pairs:
        if value >= threshold and one in place and two in place:
            link(place[one], place[two])
    leaders: dict[str, int] = {}
    for number, label in enumerate(together or ()):
        if label:
            link(leaders.setdefault(label, number), number)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(number), len(numbers)) for number in range(len(ids))]


def assign(
    family: Sequence[int],
    digests: Sequence[str],
    sizes: Sequence[int],
    validation: float,
    test: float,
    barred: Collection[int] = (),
) -> list[str]:
    """Family, text digest and bytes of each document → `train`, `validation` or `test` of each.

    `validation` and `test` are shares of the bytes. Families are taken in the order of the hash
    of their sorted digests, first for test, then for validation, until the share is reached; one
    that is larger than half of the wanted bytes, or goes beyond them by more than a tenth, is
    passed over unless the others do not suffice (then the smallest of them come first). Families
    in `barred` stay in train. Raises DataError where a wanted split, or train, is empty.
    """
    members: dict[int, list[int]] = {}
    for number, group in enumerate(family):
        members.setdefault(group, []).append(number)
    bytes_of = {group: sum(sizes[number] for number in members[group]) for group in members}

    def key(group: int) -> str:
        listed = sorted(digests[number] for number in members[group])
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()

    free = sorted((g for g in members if bytes_of[g] and g not in barred), key=key)
    total = sum(bytes_of.values())
    shares = [
        (name, share) for name, share in (("test", test), ("validation", validation)) if share
    ]
    side = ["train"] * len(family)
    for place, (name, share) in enumerate(shares):
        # One family at least stays for each split still to come, and for train.
        spare = len(shares) - place - bool(barred)
        taken = _take(free, bytes_of, share * total, len(free) - spare)
        free = [group for group in free if group not in taken]
        if not taken or not (free or barred):
            raise DataError(
                f"{len(members)} independent families of documents ({total} bytes) are too few for "
                f"train, validation {validation:g} and test {test:g}: one of them would be empty",
                where="data.split",
                way_out="Add documents, or set data.split.validation or data.split.test to 0; "
                "documents that are near duplicates count as one family "
                "(data.split.family_threshold).",
            )
        for group in taken:
            for number in members[group]:
                side[number] = name
    return side


def _take(free: Sequence[int], bytes_of: dict[int, int], wanted: float, most: int) -> set[int]:
    """Families in order → those that make up the wanted bytes, at most that many of them."""
    taken: set[int] = set()
    have = 0
    passed_over = []
    for group in free:
        size = bytes_of[group]
        if have >= wanted or len(taken) >= most:
            return taken
        if size > wanted / 2 or have + size > wanted * (1 + _OVERSHOOT):
            passed_over.append(group)
            continue
        taken.add(group)
        have += size
    for group in sorted(passed_over, key=lambda group: bytes_of[group]):
        if have >= wanted or len(taken) >= most:
            break
        taken.add(group)
        have += bytes_of[group]
    return taken


@dataclass(frozen=True, slots=True)
class Leakage:
    """How much of the held-out text also stands in train, in distinct word n-grams."""

    ngram_words: int
    ngrams: int
    """Distinct n-grams of the held-out documents."""
    shared: int
    """Those of them that also stand in a training document."""
    documents: tuple[tuple[str, float], ...]
    """Held-out documents that share any: id and shared part of its n-grams, worst first."""

    @property
    def share(self) -> float:
        """Shared n-grams as a share of all held-out ones; 0 where there are none."""
        return self.shared / self.ngrams if self.ngrams else 0.0


def leakage(
    held_out: Sequence[tuple[str, str]],
    train: Iterable[str],
    *,
    ngram_words: int = NGRAM_WORDS,
) -> Leakage:
    """Held-out documents (id, text) and training texts → what they share.

    Memory is that of the held-out n-grams (8 bytes each); training texts are streamed. A text
    shorter than an n-gram counts as one n-gram.
    """
    hashes, bounds = shingle_hashes([text for _, text in held_out], ngram_words)
    distinct = np.unique(hashes)
    seen = np.zeros(len(distinct), bool)

    def look_up(texts: list[str]) -> None:
        found, _ = shingle_hashes(texts, ngram_words)
        place = np.searchsorted(distinct, found)
        place = np.minimum(place, len(distinct) - 1)
        seen[place[distinct[place] == found]] = True

    waiting: list[str] = []
    characters = 0
    for text in train if len(distinct) else ():
        waiting.append(text)
        characters += len(text)
        if characters >= _TEXTS_AT_ONCE:
            look_up(waiting)
            waiting, characters = [], 0
    if waiting:
        look_up(waiting)

    shared = seen[np.searchsorted(distinct, hashes)] if len(distinct) else seen
    shares = [
        (name, float(shared[bounds[i] : bounds[i + 1]].mean()))
        for i, (name, _) in enumerate(held_out)
        if bounds[i] < bounds[i + 1] and shared[bounds[i] : bounds[i + 1]].any()
    ]
    shares.sort(key=lambda pair: (-pair[1], pair[0]))
    return Leakage(ngram_words, len(distinct), int(seen.sum()), tuple(shares))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What is held out, and what of it nevertheless stands in train."""

    side: list[str]
    """`train`, `validation` or `test` of each document."""
    leakage: Leakage
    barred: int
    """Families that had to stay in train because much of their text stands in other families."""


def hold_out(
    ids: Sequence[str],
    texts: Callable[[Sequence[int]], Iterable[str]],
    family: Sequence[int],
    digests: Sequence[str],
    sizes: Sequence[int],
    *,
    validation: float,
    test: float,
    contained: float,
) -> HeldOut:
    """Documents and their families → the split, with its leakage measured.

    `texts` gives the texts behind numbers of documents, in that order. Near-duplicate pairs do
    not see a short document that is quoted whole in a long one, so a held-out document of whose
    n-grams at least the share `contained` stands in train bars its family, and the split is
    made again; should too little be left to hold out, the leak stays, and is reported.
    """
    barred: set[int] = set()
    number_of = {name: number for number, name in enumerate(ids)}
    side = assign(family, digests, sizes, validation, test)
    while True:
        held = [number for number, where in enumerate(side) if where != "train"]
        train = [number for number, where in enumerate(side) if where == "train"]
        named = list(zip((ids[number] for number in held), texts(held), strict=True))
        found = leakage(named, texts(train))
        leaking = {family[number_of[name]] for name, share in found.documents if share >= contained}
        try:
            again = assign(family, digests, sizes, validation, test, barred | leaking)
        except DataError:
            again = side
        if again == side:
            return HeldOut(side, found, len(barred))
        barred |= leaking
        side = again
