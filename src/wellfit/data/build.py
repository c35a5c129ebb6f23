"""The recipe's data section in, a corpus out: the whole way from files to shards.

    files ─▶ documents (cleaned, scored) ─▶ pairs ─▶ decisions ─▶ tokenizer ─▶ tokens ─▶ shards

Every arrow is a stage of tasks with markers, so a build that was killed goes on where it stopped,
and a changed threshold repeats only the decisions and what follows from them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.data import encode, publish, report
from wellfit.data.corpus import Corpus
from wellfit.data.decide import COLUMNS, Decided, decide, pairs_of_documents
from wellfit.data.engine.engine import Engine, Progress
from wellfit.data.engine.lock import held
from wellfit.data.engine.task import File, Result, Task, file_digest
from wellfit.data.engine.version import code_version
from wellfit.data.examples.build import build_examples
from wellfit.data.filter.scores import NAMES
from wellfit.data.filter.task import filters_of, find_reasons
from wellfit.data.leakage import ngrams_of
from wellfit.data.pairs import find_pairs
from wellfit.data.pretokenized.build import build_tokens
from wellfit.data.read.parts import columns, rows
from wellfit.data.read.plan import Inspected, inspect_all, tasks_of
from wellfit.data.read.task import cleaners_of, read_part
from wellfit.data.read.walk import Found, find
from wellfit.data.tokens import shards, tokenizer
from wellfit.errors import DataError
from wellfit.recipe.callables import resolve, version_of
from wellfit.recipe.schema import Call, Data
from wellfit.records import Rejected

FORMAT_VERSION = 1
"""Of `manifest.json`."""

_LEAST_PAIR = 0.5
"""Verified pairs of at least this similarity are stored, whatever the thresholds."""


def build_corpus(
    data: Data, *, name: str, folder: Path, progress: Progress | None = None
) -> Corpus:
    """Data section and folder → the corpus there, rebuilt only where something changed.

    `progress(stage, done, total)` is called in this thread. The bytes of the corpus do not depend
    on `data.workers`. Raises RecipeError for a cleaner or filter that does not resolve, and
    DataError where a source is missing or gives nothing, too many records cannot be read, a
    wanted split would be empty, the disk is full, a worker was killed, or another build is
    writing the same folder. What was finished before is kept.
    """
    if data.tokens is not None:
        return build_tokens(data, FORMAT_VERSION, name=name, folder=folder, progress=progress)
    if data.examples is not None:
        return build_examples(data, FORMAT_VERSION, name=name, folder=folder, progress=progress)
    publish.refuse_unknown_version(folder, FORMAT_VERSION)
    calls = _calls(data)
    paths = [source.path for source in data.sources]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise DataError(
            "the same source is named twice",
            where=twice,
            way_out="Name it once in `data.sources`.",
        )
    found = {source.path: find(source) for source in data.sources}
    publish.refuse_sources_inside(folder, found)
    with held(folder / "tasks"), Engine(folder / "tasks", data.workers, progress) as engine:
        reading = _read(engine, data, found, calls, progress)
        _refuse_rejects(data, folder, reading)
        corpus = _from_documents(engine, data, name, folder, found, calls, reading, progress)
        engine.sweep()
    return corpus


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the sources gave."""

    files: list[tuple[str, Inspected]]
    """Source and file."""
    parts: list[Result]
    rejected: list[Rejected]


Calls = Mapping[str, list[dict[str, Any]]]
"""`clean` and `filters` → name, arguments and version of each function."""


def _calls(data: Data) -> Calls:
    """Cleaners and filters of the recipe, resolved before anything runs."""
    from wellfit.data.clean.unicode import CLEANERS
    from wellfit.data.filter.quality import FILTERS

    cleaners_of(data.clean)
    filters_of(data.filters)

    def listed(calls: Sequence[Call], builtins: Any, kind: str) -> list[dict[str, Any]]:
        return [
            {"call": call.model_dump(), "version": version_of(resolve(call, builtins, kind))}
            for call in calls
        ]

    return {
        "clean": listed(data.clean, CLEANERS, "clean"),
        "filters": listed(data.filters, FILTERS, "filters"),
    }


def _read(
    engine: Engine,
    data: Data,
    found: Mapping[str, Found],
    calls: Calls,
    progress: Progress | None,
) -> _Reading:
    """Sources → parts of cleaned, scored documents; each part is one task."""
    inputs = [(source, one) for source in data.sources for one in found[source.path].inputs]

    def tell(done: int) -> None:
        if progress:
            progress("files", done, len(inputs))

    inspected = inspect_all([one for _, one in inputs], engine.workers, tell)
    files: list[tuple[str, Inspected]] = []
    tasks: list[Task] = []
    rejected: list[Rejected] = []
    for source in data.sources:
        mine = [
            file
            for (owner, _), file in zip(inputs, inspected, strict=True)
            if owner is source and not file.minified
        ]
        files += [(source.path, file) for file in mine]
        new, bad = tasks_of(source, mine)
        tasks += new
        rejected += bad
        minified = sum(
            file.minified
            for (owner, _), file in zip(inputs, inspected, strict=True)
            if owner is source
        )
        if minified:
            passed = found[source.path].passed_over
            passed["minified"] = passed.get("minified", 0) + minified
    parts = engine.map("documents", read_part, tasks, {"clean": calls["clean"]}, suffix=".parquet")
    for part in parts:
        rejected += [Rejected(**record) for record in part.summary["rejected"]]
    return _Reading(files, parts, rejected)


def _refuse_rejects(data: Data, folder: Path, reading: _Reading) -> None:
    """Write `rejected.jsonl`; DataError where too much, or all of a source, could not be read."""
    listing = folder / "rejected.jsonl"
    publish.write_rejected(listing, reading.rejected)
    documents = sum(part.summary.get("documents", 0) for part in reading.parts)
    records = documents + len(reading.rejected)
    kinds = Counter(report.kind_of(record.reason) for record in reading.rejected)
    reasons = "; ".join(f"{count} × {kind}" for kind, count in kinds.most_common(3))
    if documents and len(reading.rejected) > data.max_rejected_share * records:
        first = reading.rejected[0]
        share = len(reading.rejected) / records
        raise DataError(
            f"{len(reading.rejected)} of {records} records ({share:.1%}) cannot be read, more than "
            f"data.max_rejected_share {data.max_rejected_share:g}: {reasons}; the first is "
            f"{first.path}, {first.position}",
            where=first.source,
            way_out=f"All of them stand in {listing}. Mend them, or raise data.max_rejected_share.",
        )
    gave = {
        document
        for part in reading.parts
        if part.summary.get("documents")
        for document in [part.summary["source"]]
    }
    for source in data.sources:
        if source.path not in gave:
            mine = [record for record in reading.rejected if record.source == source.path]
            raise DataError(
                "the source gives no document"
                + (f": {len(mine)} records rejected ({reasons})" if mine else ""),
                where=source.path,
                way_out=f"See {listing}."
                if mine
                else "It holds no file that can be read; set the source's `format`, or name "
                "another path.",
            )


def _from_documents(
    engine: Engine,
    data: Data,
    name: str,
    folder: Path,
    found: Mapping[str, Found],
    calls: Calls,
    reading: _Reading,
    progress: Progress | None,
) -> Corpus:
    """Parts of documents → decisions, tokenizer, tokens, shards, and the report."""
    parts = [part.file for part in reading.parts]
    documents = _documents(parts)
    reasons = _reasons(engine, parts, calls)
    counted = report.counts_of_reading(
        found, reading.rejected, [part.summary for part in reading.parts]
    )
    if all(reasons):
        raise _nothing_left(folder, reasons)
    similarity: dict[tuple[int, int], float] = {}
    held_out = data.split.validation + data.split.test > 0
    if data.duplicates.near or held_out:
        similarity = find_pairs(engine, parts, data.duplicates.shingle_words, counted["bytes"])
    least = min(_LEAST_PAIR, data.duplicates.threshold, data.split.family_threshold)
    pairs = pairs_of_documents(documents, similarity, least)
    ngrams = ngrams_of(engine, parts if held_out else ())
    decided = decide(documents, reasons, pairs, ngrams, data)
    split = {one: d.split for one, d in decided.decisions.items() if d.keep}
    kept = [document for document in documents if document["id"] in split]
    train = {one["id"]: one["bytes"] for one in kept if split[one["id"]] == "train"}
    made = encode.make_tokenizer(engine, parts, train, data.tokenizer)
    tokens = encode.encode_parts(engine, parts, made, split, data.tokenizer.separator)
    manifest = _manifest(data, name, found, calls, reading, decided, made)
    standing = _standing(folder, manifest["key"])
    if standing is not None:
        return standing
    publish.take_down(folder)
    publish.place_parts(folder, parts)
    publish.place(made.path, folder / "tokenizer.json")
    publish.write_decisions(folder / "decisions.parquet", decided.decisions)
    publish.write_pairs(folder / "pairs.parquet", pairs)
    ready = tokenizer.load(made.path, data.tokenizer.separator)
    written = shards.write(
        folder,
        encode.token_documents(kept, encode.tokens_of(tokens), split),
        vocabulary_size=ready.vocabulary_size,
        separator=ready.separator,
        tokenizer_sha256=made.sha256,
    )
    corpus = Corpus.open(folder)
    lengths = {
        one: int(count)
        for side in corpus.splits
        for one, count in zip(
            corpus.documents(side).id.tolist(), corpus.documents(side).tokens, strict=True
        )
    }
    content = {
        "format_version": report.FORMAT_VERSION,
        "name": name,
        "digest": corpus.digest,
        **counted,
        **report.counts_of_decisions(documents, decided),
        **report.counts_of_splits(documents, decided, lengths),
        "duplicate_samples": _duplicate_samples(parts, documents, decided),
        "leakage": report.leakage_of(decided.held_out),
        "scores": report.score_quantiles(_scores(parts)),
        "shards": report.shards_of(written),
    }
    publish.write_json(folder / "report.json", content)
    publish.write_json(folder / "manifest.json", {**manifest, "digest": corpus.digest})
    if progress:
        progress("shards", len(written), len(written))
    return corpus


def _documents(parts: Sequence[File]) -> list[dict[str, Any]]:
    """Parts → what decisions need of each document, in stable order. DataError for a twin id."""
    documents: list[dict[str, Any]] = []
    for part in parts:
        table = columns(part.path, list(COLUMNS))
        documents += [
            dict(zip(COLUMNS, row, strict=True)) for row in zip(*table.values(), strict=True)
        ]
    seen: dict[str, dict[str, Any]] = {}
    for document in documents:
        other = seen.setdefault(document["id"], document)
        if other is not document:
            raise DataError(
                f"{document['path']} and {other['path']} were given the same document id",
                where=document["source"],
                way_out="Rename one of the two files: ids are hashes of paths.",
            )
    return documents


def _reasons(engine: Engine, parts: Sequence[File], calls: Calls) -> list[tuple[str, str] | None]:
    tasks = [Task(part.path.name, (part,)) for part in parts]
    results = engine.map(
        "filters", find_reasons, tasks, {"filters": calls["filters"]}, suffix=".json"
    )
    return [
        tuple(reason) if reason else None
        for result in results
        for reason in json.loads(result.file.path.read_bytes())
    ]


def _nothing_left(folder: Path, reasons: Sequence[tuple[str, str] | None]) -> DataError:
    counts = Counter(reason[0] for reason in reasons if reason)
    listed = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    return DataError(
        f"no document is left: {len(reasons)} were read, and all were dropped ({listed})",
        where=str(folder),
        way_out="Loosen `data.filters`, or add other sources.",
    )


def _manifest(
    data: Data,
    name: str,
    found: Mapping[str, Found],
    calls: Calls,
    reading: _Reading,
    decided: Decided,
    made: File,
) -> dict[str, Any]:
    """Everything that decides the corpus, and `key`, its digest."""
    decisions = [[one, d.stage, d.reason, d.split] for one, d in decided.decisions.items()]
    content = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "inputs": [
            {
                "source": source,
                "path": file.input.relative,
                "format": file.input.format,
                "bytes": file.bytes,
                "sha256": file.sha256,
            }
            for source, file in reading.files
        ],
        "parameters": data.of_corpus(),
        "functions": calls,
        "code": code_version([build_corpus]),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
        "roots": {source: str(one.root) for source, one in found.items()},
        "parts": [part.file.sha256 for part in reading.parts],
        "tokenizer_sha256": made.sha256,
    }
    text = json.dumps([content, decisions], sort_keys=True)
    return {**content, "key": hashlib.sha256(text.encode()).hexdigest()}


def _standing(folder: Path, key: str) -> Corpus | None:
    """Corpus folder and key → the corpus that stands there, if it is that one and undamaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["key"] != key:
            return None
        parts = sorted((folder / "documents").glob("part-*.parquet"))
        if [file_digest(part) for part in parts] != manifest["parts"]:
            return None
        if not all((folder / name).is_file() for name in ("report.json", "decisions.parquet")):
            return None
        corpus = Corpus.open(folder)
        corpus.verify()
    except (OSError, ValueError, KeyError, DataError):
        return None
    return corpus


def _duplicate_samples(
    parts: Sequence[File], documents: Sequence[Mapping[str, Any]], decided: Decided
) -> list[dict[str, Any]]:
    """Parts → the report's samples of dropped pairs, with the beginnings of their texts."""
    wanted = {
        one for pair, decision in report.sampled_pairs(decided) for one in (pair, decision.other)
    }
    shown = {
        row["id"]: row["text"]
        for part in parts
        if wanted & {*columns(part.path, ["id"])["id"]}
        for row in rows(part.path, names=["id", "text"])
        if row["id"] in wanted
    }
    return report.pair_samples(documents, decided, shown)


def _scores(parts: Sequence[File]) -> dict[str, list[float]]:
    gathered: dict[str, list[float]] = {name: [] for name in NAMES}
    for part in parts:
        table = columns(part.path, [f"score_{name}" for name in NAMES])
        for name in NAMES:
            gathered[name] += table[f"score_{name}"]
    return gathered
