"""Which examples are held out: equal ones on one side, of each class the same share."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence


def sides(given: Sequence[str], strata: Sequence[str], shares: dict[str, float]) -> list[str]:
    """What each example shows, its stratum and the shares wanted → `train` or the split of each.

    Examples that show the same belong together, in the stratum of the first of them. Of each
    stratum, whole groups are taken in the order of their hashes until the share is reached, to the
    nearest; the same examples give the same sides, in whatever order they stand.

    >>> sides(["a", "b", "c", "d", "a"], ["x", "x", "x", "x", "x"], {"validation": 0.5})
    ['train', 'train', 'validation', 'validation', 'train']
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(given):
        groups[hashlib.sha256(text.encode()).hexdigest()].append(number)
    by_stratum: dict[str, list[str]] = defaultdict(list)
    for digest, members in groups.items():
        by_stratum[min(strata[number] for number in members)].append(digest)
    found = ["train"] * len(given)
    for digests in by_stratum.values():
        digests.sort()
        count = sum(len(groups[digest]) for digest in digests)
        place = 0
        for digest in digests:
            members = groups[digest]
            bound = 0.0
            for split, share in shares.items():
                bound += share * count
                if place + len(members) / 2 < bound:
                    for number in members:
                        found[number] = split
                    break
            place += len(members)
    return found
