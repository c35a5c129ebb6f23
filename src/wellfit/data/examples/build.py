"""The recipe's `data.examples` in, a corpus out: the same folder that documents become.

    files ─▶ rows ─▶ examples ─▶ splits ─▶ tokens with labels ─▶ shards

Examples are held in memory while they are built, their texts and tokens both.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wellfit.data import publish, report
from wellfit.data.corpus import Corpus
from wellfit.data.engine.engine import Progress
from wellfit.data.engine.lock import held
from wellfit.data.engine.task import file_digest, no_room
from wellfit.data.engine.version import code_version
from wellfit.data.examples.chat import Chat, Speaker
from wellfit.data.examples.encode import Encoded, encode
from wellfit.data.examples.files import BadRowError, find_files, read_rows
from wellfit.data.examples.shapes import Example, domain_of, example_of, given
from wellfit.data.examples.split import sides
from wellfit.data.examples.template import NAMED, Template, template_of
from wellfit.data.tokens import shards, tokenizer
from wellfit.errors import DataError
from wellfit.recipe.schema import Data, Examples
from wellfit.records import Rejected

BLOCK = 2048
"""Examples that are encoded at a time, on all cores."""
UNKNOWN_BYTES = -1


@dataclass(frozen=True, slots=True)
class _Read:
    """An example with its place."""

    number: int
    """Of its file, among all of them."""
    file: str
    position: str
    example: Example
    domain: str

    @property
    def id(self) -> str:
        return f"{self.number}:{self.position}"

    @property
    def given(self) -> str:
        return given(self.example)


def build_examples(
    data: Data, format_version: int, *, name: str, folder: Path, progress: Progress | None = None
) -> Corpus:
    """A data section with `examples`, and a folder → the corpus there, rebuilt where files changed.

    `progress(stage, done, total)` counts examples. Raises DataError where a file is missing or
    damaged, more rows are rejected than `data.max_rejected_share` allows, or a wanted split would
    be empty. What stood in the folder before stands until the new corpus is whole.
    """
    section = data.examples
    assert section is not None
    publish.refuse_unknown_version(folder, format_version)
    files = {one: find_files(one, getattr(section, one), folder) for one in shards.SPLITS}
    _refuse_twice(files)
    with held(folder / "tasks"):
        manifest = _manifest(data, format_version, name, files)
        standing = publish.standing(folder, manifest["key"])
        if standing is not None:
            return standing
        by_split, rejected = _read_all(section, files)
        _refuse_rejects(data, folder, by_split, rejected)
        dropped: Counter[str] = Counter()
        by_split = _settled(section, by_split, dropped)
        ready, text = _tokenizer(data, by_split["train"])
        speaker = _speaker(data, ready)
        counts = _Counts(section)
        scratch = folder / "tasks" / "examples"
        written = shards.write(
            scratch,
            _documents(section, by_split, ready, speaker, counts, rejected, progress),
            vocabulary_size=ready.vocabulary_size,
            separator=ready.separator,
            tokenizer_sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        dropped["longer than data.examples.longest"] = counts.too_long
        _refuse_rejects(data, folder, by_split, rejected)
        _refuse_empty(section, files, counts, dropped)
        try:
            _publish(folder, scratch, text, speaker)
        except OSError as fault:
            raise no_room(fault, folder) from fault
        corpus = Corpus.open(folder)
        content = {
            "format_version": report.FORMAT_VERSION,
            "name": name,
            "digest": corpus.digest,
            "task": section.task,
            **({"template": speaker.template.name} if speaker else {}),
            **counts.told(),
            "dropped": {why: {"documents": count} for why, count in dropped.items() if count},
            "rejected": report.rejected_counts(rejected),
            "contradictory": _contradictory(by_split["train"]),
            "shards": report.shards_of(written),
        }
        publish.write_json(folder / "report.json", content)
        publish.write_json(folder / "manifest.json", {**manifest, "digest": corpus.digest})
    return corpus


def _refuse_twice(files: dict[str, list[Path]]) -> None:
    seen: dict[Path, str] = {}
    for split, found in files.items():
        for file in found:
            other = seen.setdefault(file.resolve(), split)
            if other != split:
                raise DataError(
                    f"the file is named in {other} and in {split}",
                    where=str(file),
                    way_out="Name it once: what is scored must not be trained on.",
                )


def _manifest(
    data: Data, format_version: int, name: str, files: dict[str, list[Path]]
) -> dict[str, Any]:
    """Everything that decides the corpus, and `key`, its digest."""
    listed = [(split, file) for split, found in files.items() for file in found]
    own = data.tokenizer.file
    content = {
        "format_version": format_version,
        "name": name,
        "inputs": [
            {
                "source": split,
                "path": file.as_posix(),
                "bytes": file.stat().st_size,
                "sha256": file_digest(file),
            }
            for split, file in listed
        ],
        "parameters": data.of_corpus(),
        "code": code_version([build_examples]),
        "tokenizer_sha256": file_digest(Path(own).expanduser()) if own else "",
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    roots = {file.as_posix(): str(file.resolve()) for _, file in listed}
    return {**content, "roots": roots, "key": key}


def _read_all(
    section: Examples, files: dict[str, list[Path]]
) -> tuple[dict[str, list[_Read]], list[Rejected]]:
    found: dict[str, list[_Read]] = {split: [] for split in files}
    rejected: list[Rejected] = []
    number = 0
    for split, listed in files.items():
        for file in listed:
            for position, row in read_rows(file):
                try:
                    if isinstance(row, BadRowError):
                        raise row
                    example = example_of(row, section)
                except BadRowError as fault:
                    rejected.append(Rejected(split, file.as_posix(), position, str(fault)))
                    continue
                domain = domain_of(example, row, section)
                one = _Read(number, file.as_posix(), position, example, domain)
                found[split].append(one)
            number += 1
    return found, rejected


def _refuse_rejects(
    data: Data, folder: Path, by_split: dict[str, list[_Read]], rejected: list[Rejected]
) -> None:
    """Write `rejected.jsonl`; DataError where more rows were rejected than the recipe allows."""
    listing = folder / "rejected.jsonl"
    publish.write_rejected(listing, rejected)
    # Some are found to be none only when they are encoded, and are known as examples as well.
    known = {(one.file, one.position) for split in by_split.values() for one in split}
    rows = len(known | {(one.path, one.position) for one in rejected})
    if not rejected or len(rejected) <= data.max_rejected_share * rows:
        return
    first = rejected[0]
    raise DataError(
        f"{len(rejected):,} of {rows:,} rows are no examples, more than data.max_rejected_share "
        f"{data.max_rejected_share:g}; the first is {first.position}: {first.reason}",
        where=first.path,
        way_out=f"All of them stand in {listing}.",
    )


def _settled(
    section: Examples, by_split: dict[str, list[_Read]], dropped: Counter[str]
) -> dict[str, list[_Read]]:
    """Examples as read → each once, nothing of what is scored in train, the shares cut off."""
    shares = {
        split: share
        for split in ("validation", "test")
        if (share := getattr(section, f"{split}_share"))
    }
    found = {split: _without_repeats(one, dropped) for split, one in by_split.items()}
    found["validation"] = _without(found["validation"], found["test"], "test", dropped)
    scored = [*found["validation"], *found["test"]]
    train = _without(found.pop("train"), scored, "validation or test", dropped)
    if shares:
        chosen = sides([one.given for one in train], [one.domain for one in train], shares)
        for side, one in zip(chosen, train, strict=True):
            if side != "train":
                found[side].append(one)
        train = [one for side, one in zip(chosen, train, strict=True) if side == "train"]
    return {"train": train, **found}


def _without(
    examples: list[_Read], others: list[_Read], where: str, dropped: Counter[str]
) -> list[_Read]:
    """Examples → those that show nothing that the others show too."""
    shown = {one.given for one in others}
    kept = [one for one in examples if one.given not in shown]
    dropped[f"stands in {where} too"] += len(examples) - len(kept)
    return kept


def _without_repeats(examples: list[_Read], dropped: Counter[str]) -> list[_Read]:
    seen: set[Example] = set()
    kept = []
    for one in examples:
        if one.example not in seen:
            seen.add(one.example)
            kept.append(one)
    dropped["the same example stands before"] += len(examples) - len(kept)
    return kept


def _tokenizer(data: Data, train: Iterable[_Read]) -> tuple[tokenizer.Tokenizer, str]:
    """The data section and the train examples → the tokenizer, and it as JSON."""
    if data.tokenizer.file:
        own = Path(data.tokenizer.file).expanduser()
        ready = tokenizer.load(own, data.tokenizer.separator, data.tokenizer.new_tokens)
    else:
        texts = (text for one in train for text in _words(one.example))
        assert data.examples is not None
        marks = NAMED.get(data.examples.template, ("", ()))[1]
        new = tuple(dict.fromkeys([*marks, *data.tokenizer.new_tokens]))
        ready = tokenizer.train(texts, data.tokenizer.vocabulary_size, new)
    return ready, ready.json()


def speaker_of(corpus: Corpus, ready: tokenizer.Tokenizer) -> Speaker | None:
    """A corpus and its tokenizer → how its conversations became tokens; None for plain text.

    The corpus keeps the template, wherever it was taken from.
    """
    file = corpus.folder / publish.TEMPLATE
    return (
        Speaker(Template(**json.loads(file.read_text("utf-8"))), ready) if file.is_file() else None
    )


def _speaker(data: Data, ready: tokenizer.Tokenizer) -> Speaker | None:
    """The same of a data section.

    Raises DataError where the template does not exist, or does not fit the tokenizer.
    """
    section = data.examples
    if section is None or section.task != "answer" or section.apart:
        return None
    template = template_of(section.template, data.tokenizer.file)
    if template is None:
        return None
    cut = [name for name in ("source_max_len", "target_max_len") if getattr(section, name)]
    if cut:
        raise DataError(
            f"{' and '.join(cut)} would cut into the template {template.name}",
            where=f"data.examples.{cut[0]}",
            way_out="Leave it out: conversations longer than data.examples.longest are left out "
            "whole; or set data.examples.template: plain.",
        )
    return Speaker(template, ready)


def _words(example: Example) -> Iterator[str]:
    if isinstance(example, Chat):
        yield from (one["content"] for one in example.turns)
    for name in ("source", "target", "text", "pair", "question", "context"):
        if text := getattr(example, name, None):
            yield text


class _Counts:
    """What the report tells, as it is counted."""

    def __init__(self, section: Examples) -> None:
        self.section = section
        self.by_split: dict[str, Counter[str]] = defaultdict(Counter)
        self.by_domain: dict[str, Counter[str]] = defaultdict(Counter)
        self.too_long = 0

    def add(self, split: str, domain: str, encoded: Encoded) -> None:
        supervised = sum(label >= 0 for label in encoded.labels)
        tokens = len(encoded.tokens) + len(encoded.source)
        told = {"documents": 1, "tokens": tokens, "supervised_tokens": supervised}
        self.by_split[split].update(told)
        for part in encoded.cut:
            self.by_split[split][f"{part}s_cut"] += 1
        self.by_domain[domain].update({**told, f"documents_{split}": 1})

    def told(self) -> dict[str, Any]:
        total: Counter[str] = Counter()
        for counts in self.by_split.values():
            total.update(counts)
        order = self.section.classes or sorted(self.by_domain)
        return {
            "documents": total["documents"],
            "kept": {"total": dict(total)},
            "by_split": {split: dict(counts) for split, counts in self.by_split.items()},
            "by_domain": {name: dict(self.by_domain[name]) for name in order},
        }


def _documents(
    section: Examples,
    by_split: dict[str, list[_Read]],
    ready: tokenizer.Tokenizer,
    speaker: Speaker | None,
    counts: _Counts,
    rejected: list[Rejected],
    progress: Progress | None,
) -> Iterator[shards.TokenDocument]:
    """Examples by split → tokens and labels for the shards; too long ones are left out."""
    total, done = sum(map(len, by_split.values())), 0
    for split, examples in by_split.items():
        for at in range(0, len(examples), BLOCK):
            part = examples[at : at + BLOCK]
            made = encode([one.example for one in part], ready, section, speaker)
            for one, encoded in zip(part, made, strict=True):
                if isinstance(encoded, BadRowError):
                    rejected.append(Rejected(split, one.file, one.position, str(encoded)))
                    continue
                if encoded.places > section.longest:
                    counts.too_long += 1
                    continue
                counts.add(split, one.domain, encoded)
                yield shards.TokenDocument(
                    one.id,
                    split,
                    one.domain,
                    UNKNOWN_BYTES,
                    encoded.tokens,
                    encoded.labels,
                    encoded.source if section.apart else None,
                )
            done += len(part)
            if progress:
                progress("examples", done, total)


def _refuse_empty(
    section: Examples,
    files: dict[str, list[Path]],
    counts: _Counts,
    dropped: Counter[str],
) -> None:
    for split in shards.SPLITS:
        share = getattr(section, f"{split}_share", 0.0)
        if counts.by_split[split]["documents"] or not (files[split] or share):
            continue
        gone = "; ".join(f"{count:,} left out: {why}" for why, count in dropped.items() if count)
        raise DataError(
            f"{split} has no example" + (f" ({gone})" if gone else ""),
            where=f"data.examples.{split}{'_share' if share else ''}",
            way_out="Name other files, raise the share, or data.examples.longest.",
        )


def _contradictory(train: list[_Read]) -> int:
    """How many things that train examples show have several answers."""
    answers: dict[str, set[Example]] = defaultdict(set)
    for one in train:
        answers[one.given].add(one.example)
    return sum(len(found) > 1 for found in answers.values())


def _publish(folder: Path, scratch: Path, tokenizer_json: str, speaker: Speaker | None) -> None:
    """The finished shards → the corpus folder; what another build left there goes."""
    publish.take_down(folder)
    for stale in ("shards", "documents", "packing"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    for stale in ("decisions.parquet", "pairs.parquet"):
        (folder / stale).unlink(missing_ok=True)
    publish.write_text(folder / "tokenizer.json", tokenizer_json)
    if speaker is not None:
        publish.write_json(folder / publish.TEMPLATE, asdict(speaker.template))
    (scratch / "shards").rename(folder / "shards")
    (scratch / "shards.json").rename(folder / "shards.json")
