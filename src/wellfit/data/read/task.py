"""One task of the build: ranges of files → a part of cleaned, scored documents."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wellfit.data.clean.language import natural_language
from wellfit.data.clean.unicode import CLEANERS
from wellfit.data.edits import edits
from wellfit.data.engine.task import Task
from wellfit.data.filter.scores import NAMES, score
from wellfit.data.read.formats import READERS
from wellfit.data.read.parts import PartWriter
from wellfit.errors import DataError
from wellfit.recipe.callables import resolve
from wellfit.recipe.schema import Call, Source
from wellfit.records import Document, Rejected

Clean = Callable[[Document], str]


def read_part(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Ranges of files → one Parquet part: read, cleaned, scored; the summary counts and lists.

    `parameters["clean"]` lists the cleaners as `{call: {name, arguments}, version}`. Raises
    DataError where a user's cleaner fails.
    """
    cleaners = cleaners_of([Call(**one["call"]) for one in parameters["clean"]])
    counts: Counter[str] = Counter()
    rejected: list[dict[str, Any]] = []
    writer = PartWriter(output, NAMES)
    for file, entry in zip(task.files, task.data["entries"], strict=True):
        relative, format_, domain, start, end, row = entry
        source = Source(
            path=task.data["source"],
            format="auto",
            domain=domain,
            text_field=task.data["text_field"],
        )
        for found in READERS[format_].read(file.path, relative, source, start, end, row):
            if isinstance(found, Rejected):
                rejected.append(asdict(found))
                continue
            counts["documents"] += 1
            counts["read_characters"] += len(found.text)
            cleaned = found
            for name, cleaner in cleaners:
                cleaned = replace(cleaned, text=_cleaned(name, cleaner, cleaned))
            if cleaned.text != found.text:
                counts["changed_by_cleaning"] += 1
            if cleaned.content_type != "code" and cleaned.language == "und":
                cleaned = replace(cleaned, language=natural_language(cleaned.text))
            raw = cleaned.text.encode()
            counts["bytes"] += len(raw)
            writer.add(
                cleaned,
                sha256=hashlib.sha256(raw).hexdigest(),
                size=len(raw),
                edits=edits(found.text, cleaned.text),
                scores=score(cleaned.text),
            )
    writer.close()
    return {**counts, "source": task.data["source"], "rejected": rejected}


def cleaners_of(calls: Sequence[Call]) -> list[tuple[str, Clean]]:
    """Calls of the recipe → named functions from a document to its new text.

    A cleaner takes the text; one that has a second parameter without a default, named
    `content_type`, is given that too. Raises RecipeError for calls that do not resolve.
    """
    return [(call.name, _of_document(resolve(call, CLEANERS, "clean"))) for call in calls]


def _of_document(function: Callable[..., str]) -> Clean:
    try:
        wanted = inspect.signature(function).parameters.get("content_type")
    except (TypeError, ValueError):  # written in C, without a signature
        wanted = None
    if wanted is not None and wanted.default is wanted.empty:
        return lambda document: function(document.text, document.content_type)
    return lambda document: function(document.text)


def _cleaned(name: str, cleaner: Clean, document: Document) -> str:
    """Run a cleaner; what goes wrong in it is told with the document it went wrong on."""
    where = f"cleaner {name}"
    what = ""
    text: Any = None
    try:
        text = cleaner(document)
    except Exception as error:  # a user's code: anything can happen there
        what = f"{type(error).__name__}: {error}"
    if not what and not isinstance(text, str):
        what = f"it gave a {type(text).__name__}, not text,"
    if not what:
        try:
            text.encode()
            return str(text)
        except UnicodeEncodeError:
            what = "it gave half a surrogate pair, which is no text,"
    place = document.origin
    raise DataError(
        f"{what} on {place.path} at byte {place.start}"
        + (f" (row {place.row})" if place.row is not None else ""),
        where=where,
        way_out="A cleaner is `function(text) -> str`; mend it, or take it out of `data.clean`.",
    )
