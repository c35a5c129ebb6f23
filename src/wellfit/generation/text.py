"""Ids → text, piece by piece, without ever showing half a character."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


def stream_text(
    ids: Iterable[int], decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()
) -> Iterator[str]:
    """Ids as they come, and a tokenizer's `decode` → pieces of text; joined, the decoded whole.

    A token of a byte-level tokenizer may end inside a character; such bytes wait for the token
    that completes them, or for the end, where bytes that never became a character appear as
    U+FFFD. `before` are the ids of the prompt: the text of the new ids can depend on them.
    """
    window = list(before)[-8:]
    shown = len(decode(window))
    for token in ids:
        window.append(token)
        text = decode(window)
        whole = text.rstrip(INCOMPLETE)
        if len(whole) > shown:
            yield whole[shown:]
            shown = len(whole)
        if whole == text and len(window) > 64:
            # Decoding all from the start for each token would take quadratic time.
            window = window[-8:]
            shown = len(decode(window))
    rest = decode(window)[shown:]
    if rest:
        yield rest
