"""One task of the build: a part of documents → why each should go, or that none says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wellfit.data.engine.task import Task
from wellfit.data.filter.quality import FILTERS
from wellfit.data.filter.scores import NAMES, Scored
from wellfit.data.read.parts import rows
from wellfit.errors import DataError
from wellfit.recipe.callables import resolve
from wellfit.recipe.schema import Call
from wellfit.records import Origin

Filter = Callable[[Scored], str | None]
_ORIGIN = ("path", "start", "end", "row", "member", "encoding")


def find_reasons(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Part → JSON list, for each row `[filter, reason]` of the first filter that objects, or null.

    A document without any visible character is dropped as `empty`, whatever the filters.
    """
    filters = filters_of([Call(**one["call"]) for one in parameters["filters"]])
    found: list[tuple[str, str] | None] = []
    for row in rows(task.files[0].path):
        document = _scored(row)
        found.append(_first_reason(filters, document))
    output.write_text(json.dumps(found, ensure_ascii=False), "utf-8", "backslashreplace")
    return {"documents": len(found), "dropped": sum(reason is not None for reason in found)}


def filters_of(calls: Sequence[Call]) -> list[tuple[str, Filter]]:
    """Calls of the recipe → named functions. Raises RecipeError for calls that do not resolve."""
    return [(call.name, resolve(call, FILTERS, "filters")) for call in calls]


def _first_reason(
    filters: Sequence[tuple[str, Filter]], document: Scored
) -> tuple[str, str] | None:
    if not document.text.strip():
        return "empty", "no visible character"
    for name, function in filters:
        reason: Any = None
        what = ""
        try:
            reason = function(document)
        except Exception as error:  # a user's code: anything can happen there
            what = f"{type(error).__name__}: {error}"
        if reason is not None and not isinstance(reason, str):
            what = f"it gave {reason!r}, neither a reason nor None,"
        if what:
            raise DataError(
                f"{what} on {document.origin.path} (document {document.id})",
                where=f"filter {name}",
                way_out="A filter is `function(document) -> str | None`: the reason to drop it, "
                "or None; mend it, or take it out of `data.filters`.",
            )
        if reason is not None:
            return name, reason
    return None


def _scored(row: Mapping[str, Any]) -> Scored:
    return Scored(
        row["id"],
        row["text"],
        row["source"],
        row["domain"],
        row["content_type"],
        row["language"],
        Origin(**{name: row[name] for name in _ORIGIN}),
        {name: row[f"score_{name}"] for name in NAMES},
    )
