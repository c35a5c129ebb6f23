"""Documents in, train, validation and test out: whole families, chosen by their content.

A *family* is what must not be torn apart: documents linked by near-duplicate pairs, and parts of
one file. Families stand in the order of a hash of their texts, so neither a seed nor the order of
files decides what is held out, and the same text is held out in every build that has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence

from wellfit.errors import DataError

_OVERSHOOT = 0.1


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
