"""A recipe of examples → what a model is shown of them, and which tokens it learns."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wellfit.data.build import build_corpus
from wellfit.data.examples.build import speaker_of
from wellfit.errors import RunError
from wellfit.records import CANDIDATE, IGNORED
from wellfit.run.load import load
from wellfit.run.setting import corpus_folder
from wellfit.run.show import Quiet, Show

if TYPE_CHECKING:
    from wellfit.data.corpus import Corpus
    from wellfit.data.tokens.tokenizer import Tokenizer
    from wellfit.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an example."""

    text: str
    kind: str
    """`read`: shown and not asked; `learnt`: asked; `place`: one to choose from; `source`."""
    note: str = ""
    """What is asked here, where that is not the token itself."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One example, token by token."""

    id: str
    place: str
    """File and line, row or entry."""
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Xray:
    """Some examples, and counts over all of train."""

    name: str
    task: str
    template: str
    examples: tuple[Shown, ...]
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "task": self.task,
            "template": self.template,
            "facts": self.facts,
            "examples": [
                {
                    "id": one.id,
                    "place": one.place,
                    "pieces": [[p.text, p.kind, p.note] for p in one.pieces],
                }
                for one in self.examples
            ],
        }


def xray(
    path: Path, changes: tuple[str, ...] = (), *, count: int = 5, show: Show | None = None
) -> Xray:
    """A recipe file and how many examples → the X-ray; its corpus is built where it is not yet.

    The examples are spread evenly over train. Raises RunError where the recipe has none.
    """
    recipe = load(path, changes)
    if recipe.data.examples is None:
        raise RunError(
            "the recipe learns from plain text, where every token is learnt",
            where=str(path),
            way_out="An X-ray is for recipes with data.examples.",
        )
    shown = show or Quiet()
    folder = corpus_folder(recipe)
    corpus = build_corpus(recipe.data, name=recipe.name, folder=folder, progress=shown.stage)
    return xray_of(recipe, corpus, count)


def xray_of(recipe: Recipe, corpus: Corpus, count: int) -> Xray:
    """A recipe and its corpus of examples → the X-ray."""
    assert recipe.data.examples is not None
    tokenizer = corpus.tokenizer()
    table = corpus.documents("train")
    chosen = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).astype(int))
    return Xray(
        recipe.name,
        recipe.data.examples.task,
        str(corpus.report.get("template", "plain")),
        tuple(_shown(corpus, tokenizer, recipe, int(one)) for one in chosen),
        _facts(recipe, corpus, tokenizer),
    )


def _shown(corpus: Corpus, tokenizer: Tokenizer, recipe: Recipe, number: int) -> Shown:
    from wellfit.data.locate import locate

    table = corpus.documents("train")
    first, count = int(table.first_token[number]), int(table.tokens[number])
    tokens = corpus.tokens("train")[first : first + count].tolist()
    labels = corpus.labels("train")[first : first + count].tolist()
    pieces: list[Piece] = []
    if table.source_first is not None and table.source_tokens is not None:
        at, long = int(table.source_first[number]), int(table.source_tokens[number])
        source = corpus.sources("train")[at : at + long].tolist()
        pieces += [Piece(text, "source") for text in _spelled(tokenizer, source)]
    if recipe.model.head == "tokens":
        last = labels[-1:] if labels[-1] >= 0 else []
        texts = _spelled(tokenizer, [*tokens, *last])
        pieces.append(Piece(texts[0], "read"))
        pieces += [
            Piece(text, "learnt" if label != IGNORED else "read")
            for text, label in zip(texts[1:], labels, strict=False)
        ]
    else:
        pieces += [
            Piece(text, _kind(label), _note(recipe, label))
            for text, label in zip(_spelled(tokenizer, tokens), labels, strict=True)
        ]
    found = locate(corpus.folder, _address(corpus, first))
    place = found.path + (f":{found.line}" if found.line is not None else f", {found.row}")
    return Shown(str(table.id[number]), place, tuple(pieces))


def _address(corpus: Corpus, token: int) -> str:
    """A token's place in the split → `SHARD:OFFSET`."""
    for shard in corpus.shards():
        if shard["split"] == "train":
            if token < shard["tokens"]:
                return f"{shard['name']}:{token}"
            token -= shard["tokens"]
    raise AssertionError("no shard has this token")


def _kind(label: int) -> str:
    if label == IGNORED:
        return "read"
    return "place" if label == CANDIDATE else "learnt"


def _note(recipe: Recipe, label: int) -> str:
    if label < 0:
        return ""
    if recipe.model.head == "span":
        return ("begins here", "ended before")[label]
    assert recipe.data.examples is not None
    return recipe.data.examples.classes[label]


def _spelled(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    """Tokens → the text of each; a character that several make stands with the last of them."""
    names = {n: one.content for n, one in tokenizer.backend.get_added_tokens_decoder().items()}
    names[tokenizer.separator] = tokenizer.separator_text
    spellings = tokenizer.token_bytes()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [
        decoder.decode(b"", final=True) + names[token]
        if token in names
        else decoder.decode(spellings[token])
        for token in tokens
    ]


def _facts(recipe: Recipe, corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """Counts over the whole of train: what is learnt, how texts begin and end."""
    labels = np.asarray(corpus.labels("train"))
    table, tokens = corpus.documents("train"), np.asarray(corpus.tokens("train"))
    told = corpus.report.get("kept", {}).get("total", {})
    facts: dict[str, Any] = {
        "examples": len(table),
        "tokens": len(tokens),
        "learnt": int((labels >= 0).sum()),
        "share_learnt": float((labels >= 0).mean()),
        "without_anything_learnt": _without(table.first_token, labels),
        "cut": {part: told.get(f"{part}_cut", 0) for part in ("sources", "targets")},
    }
    if recipe.model.head == "tokens":
        speaker = speaker_of(corpus, tokenizer)
        ends = {tokenizer.separator, *([speaker.end] if speaker else [])}
        last = labels[np.append(table.first_token[1:], len(labels)) - 1]
        facts["ends_learnt"] = int(np.isin(last, list(ends)).sum())
        first = tokens[table.first_token]
        second = tokens[np.minimum(table.first_token + 1, len(tokens) - 1)]
        facts["begin_twice"] = int(((first == second) & (first == tokenizer.separator)).sum())
    return facts


def _without(first: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> int:
    return int((np.add.reduceat(labels >= 0, first) == 0).sum())
