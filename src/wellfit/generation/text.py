"""Ids → text, piece by piece, without ever showing half a character or part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Spelling:
    """Ids of one text as they come, and a tokenizer's `decode` → its pieces.

    A token of a byte-level tokenizer may end inside a character; such bytes wait for the token
    that completes them, or for the end, where bytes that never became a character appear as
    U+FFFD. `before` are the ids of the prompt: the text of the new ids can depend on them.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()) -> None:
        self.decode = decode
        self.window = list(before)[-8:]
        self.shown = len(decode(self.window))

    def feed(self, token: int) -> str:
        """The next id → the text that is known now, perhaps none."""
        self.window.append(token)
        text = self.decode(self.window)
        whole = text.rstrip(INCOMPLETE)
        piece = whole[self.shown :]
        self.shown = max(self.shown, len(whole))
        if whole == text and len(self.window) > 64:
            # Decoding all from the start for each token would take quadratic time.
            self.window = self.window[-8:]
            self.shown = len(self.decode(self.window))
        return piece

    def rest(self) -> str:
        """What waits for a token that does not come."""
        return self.decode(self.window)[self.shown :]


class Until:
    """Pieces of one text as they come → what stands before the first of the stop strings.

    The first is the one that is complete first, however the text is cut into pieces. What may be
    the beginning of a stop string is kept back until that is decided.

    >>> until = Until(("END",))
    >>> until.feed("the E"), until.feed("NE"), until.feed("ND."), until.found
    ('the ', 'EN', '', 'END')
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.kept = ""
        self.found = ""
        """The stop string that ended the text."""

    def feed(self, piece: str) -> str:
        """The next piece → the text that is surely not of a stop string."""
        if self.found:
            return ""
        text = self.kept + piece
        met = [(at + len(stop), at, stop) for stop in self.stops if (at := text.find(stop)) >= 0]
        if met:
            _, at, self.found = min(met)
            self.kept = ""
            return text[:at]
        hold = max((_beginning(text, stop) for stop in self.stops), default=0)
        self.kept = text[len(text) - hold :]
        return text[: len(text) - hold]

    def rest(self) -> str:
        """The end: what only began like a stop string."""
        kept, self.kept = self.kept, ""
        return kept


def _beginning(text: str, stop: str) -> int:
    """A text and a stop string → characters at the text's end that the string begins with.

    >>> _beginning("ab\\n\\n", "\\n\\nUser")
    2
    """
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def stream_text(
    ids: Iterable[int], decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()
) -> Iterator[str]:
    """Ids as they come, and a tokenizer's `decode` → pieces of text; joined, the decoded whole.

    See `Spelling`.
    """
    spelling = Spelling(decode, before)
    for token in ids:
        if piece := spelling.feed(token):
            yield piece
    if rest := spelling.rest():
        yield rest
