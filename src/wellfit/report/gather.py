"""A run folder, or a log → everything the page shows; what is missing is named, never guessed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wellfit.errors import RunError
from wellfit.monitor.history import History
from wellfit.records import Evaluated


@dataclass(frozen=True, slots=True)
class Material:
    """What a page is made of; None where a piece is not there."""

    folder: Path | None
    """None where there is no run folder, only a log that another trainer wrote."""
    history: History
    diagnosis: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    recipe_text: str | None = None
    evaluations: tuple[Evaluated, ...] = ()
    corpus: dict[str, Any] | None = None
    corpus_name: str = ""
    packing: dict[str, Any] | None = None
    """What each packing makes of train, and the one that was chosen."""
    missing: tuple[tuple[str, str], ...] = ()
    """(piece, why it is not shown)."""


def gather(run: Path) -> Material:
    """A run folder → its Material.

    Raises RunError where `run` is not a folder, and what `read_history` raises where the folder
    holds no run. Everything else that is absent or damaged is listed in `missing`.
    """
    from wellfit.monitor.folder import read_evaluations, read_history

    if not run.is_dir():
        raise RunError(
            "there is no such run folder" if not run.exists() else "this is not a folder",
            where=str(run),
            way_out="Give the folder that `wellfit train` wrote, such as runs/NAME.",
        )
    history = read_history(run)
    missing: list[tuple[str, str]] = []
    diagnosis = _mapping(run / "findings.json", "diagnosis", missing)
    environment = _mapping(run / "environment.json", "environment", missing)
    recipe_text = _text(run / "recipe.yaml", "recipe", missing)
    pointer = _mapping(run / "corpus.json", "corpus", missing)
    corpus, corpus_name = _corpus(run, pointer, missing)
    packing = pointer.get("packing") if pointer else None
    return Material(
        folder=run,
        history=history,
        diagnosis=diagnosis,
        environment=environment,
        recipe_text=recipe_text,
        evaluations=read_evaluations(run),
        corpus=corpus,
        corpus_name=corpus_name,
        packing=packing if isinstance(packing, dict) else None,
        missing=tuple(missing),
    )


def from_log(history: History, diagnosis: dict[str, Any]) -> Material:
    """The history of a log and the JSON of its diagnosis → the Material of a page about them."""
    return Material(None, history, diagnosis)


def from_run(run: Path, history: History, diagnosis: dict[str, Any]) -> Material:
    """A run folder, with the history and the diagnosis to show in place of the recorded ones."""
    return replace(gather(run), history=history, diagnosis=diagnosis)


def missing_reason(material: Material, piece: str) -> str:
    """Why a piece is not there, as a sentence without its full stop; empty where it is there."""
    return dict(material.missing).get(piece, "")


def _text(path: Path, piece: str, missing: list[tuple[str, str]]) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        missing.append((piece, f"{path.name} was not recorded"))
    except OSError as error:
        missing.append((piece, f"{path.name} cannot be read: {error.strerror or error}"))
    return None


def _mapping(path: Path, piece: str, missing: list[tuple[str, str]]) -> dict[str, Any] | None:
    text = _text(path, piece, missing)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        missing.append((piece, f"{path.name} is damaged: it is not JSON"))
        return None
    if not isinstance(value, dict):
        missing.append((piece, f"{path.name} is damaged: it does not hold an object"))
        return None
    return value


def _corpus(
    run: Path, pointer: dict[str, Any] | None, missing: list[tuple[str, str]]
) -> tuple[dict[str, Any] | None, str]:
    if pointer is None:
        return None, ""
    named = pointer.get("folder")
    if not isinstance(named, str) or not named:
        missing.append(("corpus", "corpus.json does not name a folder"))
        return None, ""
    # A relative path was written from the folder the training was started in; a run that was
    # moved together with its corpus is found beside itself.
    places = (Path(named), run / named)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        missing.append(("corpus", f"the corpus folder {named} is not there any more"))
        return None, Path(named).name
    return _mapping(folder / "report.json", "corpus", missing), folder.resolve().name
