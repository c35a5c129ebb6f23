"""Texts in, a tokenizer out; text in, token ids out and exactly back.

Our own is a byte-level BPE (Sennrich et al., arXiv 1508.07909; bytes as in GPT-2) with the whole
byte alphabet, so any text survives the way there and back. Any `tokenizer.json` works too, as long
as it has a token that can stand between documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.errors import DataError

SEPARATOR = "<|endoftext|>"
SEPARATORS = (
    SEPARATOR,
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "[SEP]",
    "<s>",
    "<bos>",
    "[BOS]",
)
"""What may stand between documents, best first: the first that the vocabulary has is taken."""

# Words with their leading space, numbers by up to three digits, runs of punctuation with the line
# break after them, and line breaks with all the indentation but the last space of it. No run is
# longer than any word: learning and encoding take the square of the length of a piece.
_PIECES = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}{1,512}| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]{1,512}[\r\n]{0,512}"
    r"|\s{0,512}[\r\n]{1,512} {0,512}|\s{1,512}(?!\S)|\s{1,512}"
)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer ready for use; made by `train` or `load`."""

    backend: Any
    """The `tokenizers.Tokenizer` behind it."""
    vocabulary_size: int
    """One more than the largest id."""
    separator: int
    """Id of the token between documents; no text ever yields it."""
    separator_text: str
    byte_level: bool
    """Whether the tokens of a text are exactly its UTF-8 bytes, cut into pieces."""

    def encode(self, text: str) -> list[int]:
        """A text → its token ids, without the separator and without anything added around it."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts → token ids of each, on all cores."""
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [list(one.ids) for one in encoded]
        return [
            self._apart(text, self._pieces(text)) if self.separator in found else found
            for text, found in zip(texts, ids, strict=True)
        ]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """A text → first and one past the last character of each of its tokens."""
        pieces = self._pieces(text) if self.separator in self.encode_raw(text) else [text]
        found: list[tuple[int, int]] = []
        start = 0
        for piece in pieces:
            encoded = self.backend.encode(piece, add_special_tokens=False)
            found += [(start + low, start + high) for low, high in encoded.offsets]
            start += len(piece)
        return found

    def encode_raw(self, text: str) -> list[int]:
        """A text → ids as the backend gives them, where its model may yield the separator."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids → text; separators are left out, incomplete characters become U+FFFD."""
        return str(
            self.backend.decode(
                [i for i in map(int, ids) if i != self.separator], skip_special_tokens=False
            )
        )

    def token_bytes(self) -> list[bytes]:
        """The UTF-8 bytes of every id, from 0; empty for the separator and unused ids.

        Exact for a byte-level tokenizer; for another one, the bytes of what the id decodes to.
        """
        result = [b""] * self.vocabulary_size
        if self.byte_level:
            alphabet = _byte_of_character()
            for token, number in self.backend.get_vocab(with_added_tokens=True).items():
                if all(character in alphabet for character in token):
                    result[number] = bytes(alphabet[character] for character in token)
            for number, added in self.backend.get_added_tokens_decoder().items():
                result[number] = added.content.encode()
        else:
            for number in range(self.vocabulary_size):
                result[number] = str(
                    self.backend.decode([number], skip_special_tokens=False)
                ).encode()
        result[self.separator] = b""
        return result

    def json(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`."""
        return str(self.backend.to_str(pretty=True))

    def _pieces(self, text: str) -> list[str]:
        """A text cut inside every copy of the separator's name, so that none is whole."""
        half = len(self.separator_text) // 2
        head, tail = self.separator_text[:half], self.separator_text[half:]
        parts = text.split(self.separator_text)
        pieces = [parts[0] + head]
        pieces += [tail + part + head for part in parts[1:-1]]
        return [*pieces, tail + parts[-1]] if len(parts) > 1 else parts

    def _apart(self, text: str, pieces: list[str]) -> list[int]:
        ids = [i for piece in pieces for i in self.encode_raw(piece)]
        if self.separator in ids:
            raise DataError(
                f"the tokenizer yields its separator {self.separator_text!r} inside a document: "
                f"{text[:60]!r}…",
                where="data.tokenizer",
                way_out="Take another tokenizer.json, or leave data.tokenizer.file empty to train "
                "one on your text.",
            )
        return ids


def train(texts: Iterable[str], vocabulary_size: int, new_tokens: Sequence[str] = ()) -> Tokenizer:
    """Training texts → a byte-level BPE with `<|endoftext|>` as id 0 and all 256 bytes.

    `new_tokens` are special tokens besides; they come next.

    Fewer entries are learned where the texts have too few pairs that stand twice. The result
    depends on the texts alone: not on their order, the number of threads or the run.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[SEPARATOR, *(one for one in new_tokens if one != SEPARATOR)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _ready(backend, where="data.tokenizer")


def load(file: Path, separator: str = "", new_tokens: Sequence[str] = ()) -> Tokenizer:
    """A `tokenizer.json` → the tokenizer; its truncation, padding and templates are taken off.

    `new_tokens` are special tokens that it shall have; those it lacks come behind its last id.
    Without a `separator` it is the first of SEPARATORS that the vocabulary has. Raises DataError
    where the file is missing or no tokenizer, or has no (or not that) separator.
    """
    from tokenizers import Tokenizer as Backend

    way_out = (
        "Give the path of a Hugging Face tokenizer.json as data.tokenizer.file, or leave it empty "
        "to train one on your text."
    )
    if not file.is_file():
        raise DataError("there is no such file", where=str(file), way_out=way_out)
    try:
        backend = Backend.from_str(file.read_text(encoding="utf-8"))
    except Exception as fault:  # the Rust library raises plain Exception
        raise DataError(
            f"this is no tokenizer.json that the tokenizers library can read ({fault})",
            where=str(file),
            way_out=way_out,
        ) from fault
    backend.add_special_tokens(list(new_tokens))
    return _ready(backend, where=str(file), wanted=separator)


def _ready(backend: Any, *, where: str, wanted: str = "") -> Tokenizer:
    backend.no_truncation()
    backend.no_padding()
    # A document may *speak* of `<|endoftext|>`: special names in it are text like any other.
    backend.encode_special_tokens = True
    vocabulary = backend.get_vocab(with_added_tokens=True)
    if wanted and wanted not in vocabulary:
        raise DataError(
            f"the vocabulary has no entry {wanted!r} to stand between documents",
            where=where,
            way_out="Name another one as data.tokenizer.separator, as it is written there.",
        )
    separator = wanted or next((name for name in SEPARATORS if name in vocabulary), None)
    if separator is None:
        raise DataError(
            "the vocabulary has no token that can stand between documents",
            where=where,
            way_out="One of these is needed: " + " ".join(SEPARATORS) + ".",
        )
    return Tokenizer(
        backend=backend,
        vocabulary_size=max(vocabulary.values()) + 1,
        separator=vocabulary[separator],
        separator_text=separator,
        byte_level=_is_byte_level(backend),
    )


def _is_byte_level(backend: Any) -> bool:
    """Whether texts come back exactly and every token stands for the bytes it is made of."""
    import json

    described = json.loads(backend.to_str())
    steps = described.get("pre_tokenizer") or {}
    kinds = [steps, *steps.get("pretokenizers", [])]
    levels = [step for step in kinds if step.get("type") == "ByteLevel"]
    vocabulary = described["model"].get("vocab")
    alphabet = isinstance(vocabulary, dict) and _byte_of_character().keys() <= vocabulary.keys()
    return (
        bool(levels)
        and alphabet
        and not described.get("normalizer")
        and not any(step.get("add_prefix_space") for step in levels)
    )


def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: the printable character that stands for each byte → the byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}
