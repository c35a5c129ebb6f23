"""The ids that stand for what a text lacks: the mask, and the sentinels of spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wellfit.recipe.model_section import Kind

MASKS = ("[MASK]", "<mask>", "<|mask|>")
"""What tokenizers call a mask, best first."""
SENTINEL = "<extra_id_{}>"
"""What tokenizers call the sentinel of the n-th span (arXiv 1910.10683)."""
SENTINELS = 100
"""Of a tokenizer that has none of its own, and the most that are used."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The ids that a kind of model needs beside its text, and the entries of its vocabulary."""

    vocabulary_size: int
    """Entries of the model: the tokenizer's, and behind them the marks it does not have."""
    separator: int
    text_size: int
    """Entries of the tokenizer."""
    mask: int | None = None
    sentinels: tuple[int, ...] = ()

    def spelling(self, token: int) -> str:
        """A mark → how it is shown; empty for any other id."""
        if token == self.mask:
            return MASKS[0]
        if token in self.sentinels:
            return SENTINEL.format(self.sentinels.index(token))
        return ""


def marks(kind: Kind, known: Mapping[str, int], size: int, separator: int) -> Marks:
    """A kind of model, a tokenizer's entries by name, its size and separator → its marks.

    Those that the tokenizer has are its own; the others stand behind its last id. A decoder needs
    none.

    >>> marks("encoder", {"[MASK]": 4}, 300, 0).mask, marks("encoder", {}, 300, 0).mask
    (4, 300)
    >>> marks("encoder_decoder", {}, 300, 0).vocabulary_size
    400
    """
    if kind == "encoder":
        own = next((known[name] for name in MASKS if name in known), None)
        found = size if own is None else own
        return Marks(max(size, found + 1), separator, size, mask=found)
    if kind == "encoder_decoder":
        names = [SENTINEL.format(number) for number in range(SENTINELS)]
        first_missing = next((at for at, name in enumerate(names) if name not in known), SENTINELS)
        ids = tuple(known[name] for name in names[:first_missing])
        ids = ids or tuple(range(size, size + SENTINELS))
        return Marks(max(size, max(ids) + 1), separator, size, sentinels=ids)
    return Marks(size, separator, size)
