"""Kept documents in, a split out whose held-out text does not stand in train; what still does.

    parts ─▶ word n-grams of every document (files) ─▶ split ─▶ what of it train has ─▶ split again

Near-duplicate pairs do not see a short document that a long one quotes whole, nor one put
together from pieces of many. Its n-grams do.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.data.dedup.shingles import Hashes, shingle_hashes
from wellfit.data.engine.engine import Engine
from wellfit.data.engine.task import File, Task
from wellfit.data.read.parts import text_batches
from wellfit.data.split import assign
from wellfit.errors import DataError

NGRAM_WORDS = 13
"""Length of the word n-grams that leakage counts, as in the GPT-3 paper (arXiv 2005.14165, C)."""

Ngrams = Callable[[Sequence[int]], Iterable[Hashes]]
"""Numbers of documents, ascending → the distinct n-grams of each, as hashes."""


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


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What is held out, and what of it nevertheless stands in train."""

    side: list[str]
    """`train`, `validation` or `test` of each document."""
    leakage: Leakage
    contained: float
    """A held-out document of whose n-grams train has this share counts as standing in train."""
    barred: tuple[str, ...]
    """Ids of documents kept in train because they, or their families, would have leaked."""


def distinct_ngrams(texts: Sequence[str]) -> list[Hashes]:
    """Texts → the distinct word n-grams of each, as sorted 64-bit hashes.

    A text shorter than an n-gram counts as one n-gram; one without words has none.
    """
    hashes, bounds = shingle_hashes(texts, NGRAM_WORDS)
    return [np.unique(hashes[start:end]) for start, end in itertools.pairwise(bounds)]


def leakage(held_out: Sequence[tuple[str, Hashes]], train: Iterable[Hashes]) -> Leakage:
    """Held-out documents (id, distinct n-grams) and those of training documents → what they share.

    Memory is that of the held-out n-grams (8 bytes each); training documents are streamed.
    """
    distinct = np.unique(np.concatenate([np.zeros(0, np.uint64), *(own for _, own in held_out)]))
    seen = np.zeros(len(distinct), bool)
    for found in train if len(distinct) else ():
        place = np.minimum(np.searchsorted(distinct, found), len(distinct) - 1)
        seen[place[distinct[place] == found]] = True
    shares = []
    for name, own in held_out:
        shared = seen[np.searchsorted(distinct, own)]
        if shared.any():
            shares.append((name, float(shared.mean())))
    shares.sort(key=lambda pair: (-pair[1], pair[0]))
    return Leakage(NGRAM_WORDS, len(distinct), int(seen.sum()), tuple(shares))


def hold_out(
    ids: Sequence[str],
    ngrams: Ngrams,
    family: Sequence[int],
    digests: Sequence[str],
    sizes: Sequence[int],
    *,
    validation: float,
    test: float,
    contained: float,
) -> HeldOut:
    """Documents and their families → the split, with its leakage measured.

    A held-out document of whose n-grams at least the share `contained` stands in train bars its
    family, and the split is made again, until none is left. Where the asked shares could not be
    held out any more, the families that leak most are barred, as many as can be; what then still
    leaks is told. Raises DataError as `assign` does.
    """
    barred: set[int] = set()
    number_of = {name: number for number, name in enumerate(ids)}

    def split(without: Collection[int]) -> list[str] | None:
        """The split, None where the barred families leave too little for the asked shares."""
        try:
            side = assign(family, digests, sizes, validation, test, without)
        except DataError:
            return None
        return side if _suffices(side, sizes, validation, test) else None

    side = assign(family, digests, sizes, validation, test)
    while True:
        found = _measure(ids, ngrams, side)
        worst_first = dict.fromkeys(
            family[number_of[name]] for name, share in found.documents if share >= contained
        )
        leaking = list(worst_first)
        again = split(barred | worst_first.keys()) if leaking else None
        if leaking and again is None:
            count = bisect_right(
                range(1, len(leaking)), 0, key=lambda n: split(barred | {*leaking[:n]}) is None
            )
            leaking = leaking[:count]
            again = split(barred | {*leaking}) if leaking else None
        if again is None:
            names = tuple(name for name, group in zip(ids, family, strict=True) if group in barred)
            return HeldOut(side, found, contained, names)
        barred.update(leaking)
        side = again


def _suffices(side: Sequence[str], sizes: Sequence[int], validation: float, test: float) -> bool:
    wanted = {"validation": validation * sum(sizes), "test": test * sum(sizes)}
    have = dict.fromkeys(wanted, 0)
    for name, size in zip(side, sizes, strict=True):
        if name in have:
            have[name] += size
    return all(have[name] >= wanted[name] for name in wanted)


def _measure(ids: Sequence[str], ngrams: Ngrams, side: Sequence[str]) -> Leakage:
    held = [number for number, name in enumerate(side) if name != "train"]
    train = [number for number, name in enumerate(side) if name == "train"]
    if not held:
        return Leakage(NGRAM_WORDS, 0, 0, ())
    # Copies: what `ngrams` gives are views, each of which would keep all of its part in memory.
    own = [(ids[number], found.copy()) for number, found in zip(held, ngrams(held), strict=True)]
    return leakage(own, ngrams(train))


def ngrams_of(engine: Engine, parts: Sequence[File]) -> Ngrams:
    """Parts → the n-grams of their documents, numbered through; files are read as they are asked.

    The files take some 8 bytes for every word, and stay in `tasks/` like every other result.
    """
    tasks = [Task(part.path.name, (part,)) for part in parts]
    wish = {"words": NGRAM_WORDS}
    results = engine.map("ngrams", find_ngrams, tasks, wish, suffix=".npy")
    files = [result.file.path for result in results]
    first = [0]
    for path in files:
        with path.open("rb") as stream:
            first.append(first[-1] + len(np.load(stream)) - 1)

    def of(numbers: Sequence[int]) -> Iterator[Hashes]:
        opened = -1
        for number in numbers:
            part = bisect_right(first, number) - 1
            if part != opened:
                with files[part].open("rb") as stream:
                    bounds, hashes = np.load(stream), np.load(stream)
                opened = part
            row = number - first[part]
            yield hashes[bounds[row] : bounds[row + 1]]

    return of


def find_ngrams(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Part → two arrays: bounds of its documents, and the distinct n-grams of each."""
    found = [
        own
        for batch in text_batches(task.files[0].path, ["text"])
        for own in distinct_ngrams(batch["text"])
    ]
    bounds = np.cumsum([0, *map(len, found)])
    with output.open("wb") as stream:
        np.save(stream, bounds)
        np.save(stream, np.concatenate([np.zeros(0, np.uint64), *found]))
    return {"ngrams": int(bounds[-1])}
