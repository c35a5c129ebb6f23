"""Finished results → the corpus folder; what stands there is whole, or no corpus at all.

`shards.json` and `manifest.json` go first and come last, so a corpus whose build was killed while
its files changed is refused instead of being half old, half new.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.data.decide import Decision, Pair
from wellfit.data.engine.task import File, no_room, sync
from wellfit.data.read.walk import Found
from wellfit.errors import DataError
from wellfit.records import Rejected

if TYPE_CHECKING:
    from wellfit.data.corpus import Corpus

TEMPLATE = "template.json"
"""The chat template that a corpus of conversations was written with."""


def standing(folder: Path, key: str) -> Corpus | None:
    """Corpus folder and key → the corpus that stands there, if it is that one and undamaged."""
    from wellfit.data.corpus import Corpus

    try:
        if json.loads((folder / "manifest.json").read_bytes())["key"] != key:
            return None
        corpus = Corpus.open(folder)
        corpus.verify()
    except (OSError, ValueError, KeyError, DataError):
        return None
    return corpus if (folder / "report.json").is_file() else None


def take_down(corpus: Path) -> None:
    """Corpus folder → no corpus any more, until `manifest.json` stands again."""
    for name in ("manifest.json", "shards.json", TEMPLATE):
        (corpus / name).unlink(missing_ok=True)


def place_parts(corpus: Path, parts: Sequence[File]) -> None:
    """Parts in order → `documents/part-*.parquet`, without copying where the disk can link."""
    folder = corpus / "documents"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("part-*.parquet"):
        stale.unlink()
    for number, part in enumerate(parts):
        place(part.path, folder / f"part-{number:05d}.parquet")


def place(source: Path, target: Path) -> None:
    """File → the same under another name: a hard link, or a copy where there are none."""
    try:
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            shutil.copyfile(source, target)
        sync(target)
    except OSError as error:
        raise no_room(error, target.parent) from error


def write_decisions(path: Path, decisions: Mapping[str, Decision]) -> None:
    """Decisions by id → `decisions.parquet`."""
    _write_table(
        path,
        {
            "id": list(decisions),
            "keep": [decision.keep for decision in decisions.values()],
            "stage": [decision.stage for decision in decisions.values()],
            "reason": [decision.reason for decision in decisions.values()],
            "split": [decision.split for decision in decisions.values()],
        },
        {"id": "string", "keep": "bool", "stage": "string", "reason": "string", "split": "string"},
    )


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Verified pairs → `pairs.parquet`: `one` stands before `two`."""
    _write_table(
        path,
        {
            "one": [pair[0] for pair in pairs],
            "two": [pair[1] for pair in pairs],
            "similarity": [pair[2] for pair in pairs],
        },
        {"one": "string", "two": "string", "similarity": "double"},
    )


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Rejected records → `rejected.jsonl`, one a line."""
    lines = (json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in rejected)
    write_text(path, "".join(lines))


def write_json(path: Path, content: Any) -> None:
    """JSON values → a file that a person can read."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Text → file, synced, then renamed into place. Raises DataError where there is no room."""
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        # File names may hold bytes that are no UTF-8; they are shown escaped.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
        sync(unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise no_room(error, path.parent) from error


def _write_table(path: Path, values: dict[str, Any], kinds: dict[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"string": pa.string(), "bool": pa.bool_(), "double": pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        pq.write_table(pa.table(values, schema=schema), unfinished)
        sync(unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise no_room(error, path.parent) from error


def refuse_unknown_version(corpus: Path, known: int) -> None:
    """Corpus folder → nothing; DataError where another wellfit's corpus would be overwritten."""
    try:
        version = json.loads((corpus / "manifest.json").read_bytes())["format_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if version != known:
        raise DataError(
            f"the corpus has format_version {version}; this wellfit writes {known}",
            where=str(corpus),
            way_out="Name another folder with `data.folder`, or remove this one.",
        )


def refuse_sources_inside(folder: Path, found: Mapping[str, Found]) -> None:
    """Corpus folder and sources → nothing; DataError where one of them lies in that folder."""
    corpus = folder.resolve()
    for source, one in found.items():
        root = one.root.resolve()
        alone = Path(source).expanduser().is_file()
        if root.is_relative_to(corpus) and not (alone and root == corpus):
            raise DataError(
                "the source lies in the corpus folder, which the build fills and empties",
                where=source,
                way_out="Give the corpus a folder of its own with `data.folder`, such as "
                f"{folder / 'corpus'}.",
            )
