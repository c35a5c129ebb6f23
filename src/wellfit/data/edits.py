"""A text before and after cleaning in, the stretches that differ out; and places carried back.

An edit is a row `(clean_start, clean_end, read_start, read_end)` in characters: that stretch of
the cleaned text stands where that stretch of the text as read stood. Between edits both texts are
the same, character for character. So the map is always right; how fine it is, is a matter of luck
with repeated text, never of correctness.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

Edit = tuple[int, int, int, int]

_AGREEMENT = 8  # characters that must agree again before an edit is taken to be over
_WINDOW = 64  # characters looked ahead for that on either side
_LOOK_AHEAD = 20_000  # characters in which a line that both have is sought where that fails
_LONG_LINE = 12  # characters from which a line is distinctive enough to hold on to


def edits(read_text: str, clean_text: str) -> list[Edit]:
    """Text as read and cleaned text → the edits between them, in order; none where they are equal.

    >>> edits("one\\r\\ntwo\\r\\n", "one\\ntwo\\n")
    [(3, 3, 3, 4), (7, 7, 8, 9)]
    """
    if read_text == clean_text:
        return []
    found: list[Edit] = []
    read = clean = 0
    lines: dict[str, list[int]] | None = None
    while True:
        same = _common_prefix(read_text, read, clean_text, clean)
        read, clean = read + same, clean + same
        if read == len(read_text) and clean == len(clean_text):
            return found
        step = _nearby(read_text, read, clean_text, clean)
        if step is None:
            lines = _line_places(read_text) if lines is None else lines
            step = _next_line(read_text, read, clean_text, clean, lines)
        if step is None:  # nothing to hold on to: all the rest, but for a common end
            tail = _common_suffix(read_text, read, clean_text, clean)
            step = (len(read_text) - tail - read, len(clean_text) - tail - clean)
        found.append((clean, clean + step[1], read, read + step[0]))
        read, clean = read + step[0], clean + step[1]


def to_read(changes: Sequence[Edit], clean_start: int, clean_end: int) -> tuple[int, int, bool]:
    """Edits and a stretch of the cleaned text → the stretch of the text as read it comes from.

    The third value is True where the stretch lies between edits, so that both say the same. A
    stretch that touches an edit takes the whole of that edit's text as read.

    >>> to_read([(3, 3, 3, 4), (7, 7, 8, 9)], 4, 7)
    (5, 8, True)
    """
    first = bisect_right(changes, clean_start, key=lambda change: change[1])
    last = bisect_left(changes, clean_end, key=lambda change: change[0])
    touched = changes[first:last]
    if touched and touched[0][0] <= clean_start:
        start = touched[0][2]
    else:
        start = clean_start + _shift(changes, first)
    if clean_start == clean_end:
        return start, start, not touched
    if touched and touched[-1][1] >= clean_end:
        end = touched[-1][3]
    else:
        end = clean_end + _shift(changes, last)
    return start, end, not touched


def _shift(changes: Sequence[Edit], count: int) -> int:
    """What the first `count` edits add to a place in the cleaned text."""
    return changes[count - 1][3] - changes[count - 1][1] if count else 0


def apply(changes: Sequence[Edit], read_text: str, clean_text: str) -> str:
    """Edits and both texts → the text as read with every edited stretch replaced: the cleaned text.

    What the map promises, in code: tests hold every cleaner to `apply(…) == clean_text`.
    """
    pieces = []
    place = 0
    for low, high, read_low, read_high in changes:
        pieces += [read_text[place:read_low], clean_text[low:high]]
        place = read_high
    return "".join([*pieces, read_text[place:]])


def _common_prefix(read_text: str, read: int, clean_text: str, clean: int) -> int:
    """How many characters agree from two places on: doubling blocks, then halving."""
    limit = min(len(read_text) - read, len(clean_text) - clean)
    same, block = 0, 32
    while same < limit:
        a = read_text[read + same : read + same + block]
        if a == clean_text[clean + same : clean + same + block]:
            same = min(limit, same + block)
            block *= 2
        elif block > 1:
            block = max(1, block // 8)
        else:
            break
    return min(same, limit)


def _common_suffix(read_text: str, read: int, clean_text: str, clean: int) -> int:
    limit = min(len(read_text) - read, len(clean_text) - clean)
    same = 0
    while same < limit and read_text[-1 - same] == clean_text[-1 - same]:
        same += 1
    return same


def _nearby(read_text: str, read: int, clean_text: str, clean: int) -> tuple[int, int] | None:
    """The nearest places ahead where both texts agree again, as (read step, clean step)."""
    if clean_text.startswith("\n", clean) and read_text.startswith("\r\n", read):
        return 1, 0  # the commonest edit of all, also where lines are short or empty
    a = read_text[read : read + _WINDOW + _AGREEMENT]
    b = clean_text[clean : clean + _WINDOW + _AGREEMENT]
    a_ends, b_ends = len(read_text) - read <= len(a), len(clean_text) - clean <= len(b)
    for total in range(1, min(2 * _WINDOW, len(a) + len(b)) + 1):
        for a_step in range(max(0, total - _WINDOW), min(total, _WINDOW) + 1):
            b_step = total - a_step
            if a_step > len(a) or b_step > len(b):
                continue
            # The smaller the edit, the less it takes to believe in it.
            agreement = min(_AGREEMENT, 2 + 2 * total)
            next_a = a[a_step : a_step + agreement]
            next_b = b[b_step : b_step + agreement]
            if next_a != next_b:
                continue
            # A shorter agreement counts only where both texts end with it.
            if len(next_a) == agreement or (a_ends and b_ends):
                return a_step, b_step
    return None


def _line_places(text: str) -> dict[str, list[int]]:
    """Every distinctive line of a text → where it begins."""
    places: dict[str, list[int]] = {}
    start = 0
    for line in text.split("\n"):
        if len(line) >= _LONG_LINE:
            places.setdefault(line, []).append(start)
        start += len(line) + 1
    return places


def _next_line(
    read_text: str, read: int, clean_text: str, clean: int, places: dict[str, list[int]]
) -> tuple[int, int] | None:
    """The next line of the cleaned text that stands ahead in the text as read, as steps to it."""
    place = clean
    if clean and clean_text[clean - 1] != "\n":
        place = clean_text.find("\n", clean) + 1
        if not place:
            return None
    for line in clean_text[place : place + _LOOK_AHEAD].split("\n"):
        starts = places.get(line, [])
        ahead = bisect_left(starts, read)
        if ahead < len(starts):
            return starts[ahead] - read, place - clean
        place += len(line) + 1
    return None
