"""A source of the recipe → its files in stable order, and what was passed over and why."""

from __future__ import annotations

import difflib
import glob
import os
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wellfit.data.read.ignore import Rule, ignored, rules_of
from wellfit.data.read.names import SKIPPED_FOLDERS, format_of, machine_made
from wellfit.errors import DataError
from wellfit.recipe.schema import Source

STANDARD_LIBRARY = "python-stdlib"
_TEST_FOLDERS = {"test", "tests", "idle_test"}
_TOPICS = "pydoc_data/topics.py"


@dataclass(frozen=True, slots=True)
class Input:
    """One file of a source and how it is read."""

    path: Path
    relative: str
    """To the root of the source, with forward slashes."""
    format: str
    """A key of READERS."""
    domain: str
    """Domain that the source decides; empty leaves it to the reader."""


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a source."""

    root: Path
    inputs: tuple[Input, ...]
    passed_over: dict[str, int]
    """Reason → files and folders that are no part of the source."""


def find(source: Source) -> Found:
    """A source → its files, in the order of their relative paths.

    Hidden files and folders (names with a leading dot, so those of version control too) and what
    an ignore file names are passed over; so are corpora, vendored and generated code. Symbolic
    links are followed, each folder once. Raises DataError where the path does not exist.
    """
    passed: Counter[str] = Counter()
    if source.path == STANDARD_LIBRARY:
        root = Path(sysconfig.get_paths()["stdlib"])
        paths = sorted(_standard_library(root))
        inputs = [_library_input(root, relative, source) for relative in paths]
        return Found(root, tuple(inputs), {})
    path = Path(source.path).expanduser()
    if path.is_file():
        root, files = path.parent, [path.name]
    elif path.is_dir():
        root, files = path, list(_walk(path, "", [], passed))
    else:
        root, files = _expand(source.path, path, passed)
    inputs = []
    for relative in sorted(set(files)):
        if not relative.isprintable() and _unencodable(relative):
            passed["name that is not UTF-8"] += 1
            continue
        alone = path.is_file()
        format_ = _format(relative, source, alone=alone)
        made = machine_made(relative) if format_ == "code" and not alone else ""
        if made or not format_:
            passed[made or f"unknown kind of file ({_ending(relative)})"] += 1
        else:
            inputs.append(Input(root / relative, relative, format_, source.domain))
    return Found(root.absolute(), tuple(inputs), dict(sorted(passed.items())))


def _format(relative: str, source: Source, *, alone: bool) -> str:
    if source.format != "auto":
        return source.format
    return format_of(relative) or ("text" if alone else "")


def _walk(folder: Path, relative: str, above: list[Rule], passed: Counter[str]) -> Iterator[str]:
    """Folder → relative paths of its files, in no order; `above` are rules from further up."""
    waiting = [(folder, relative, above, frozenset[tuple[int, int]]())]
    while waiting:
        folder, relative, rules, way = waiting.pop()
        try:
            status = folder.stat()
            entries = list(os.scandir(folder))
        except OSError as error:
            raise DataError(
                f"the folder cannot be read ({error.strerror})",
                where=str(folder),
                way_out="Mend its rights, or leave it out.",
            ) from error
        identity = (status.st_dev, status.st_ino)
        if identity in way:
            passed["link to a folder above"] += 1
            continue
        rules = rules + rules_of(folder, relative)
        for entry in entries:
            path = f"{relative}/{entry.name}" if relative else entry.name
            kind = _kind(entry)
            if entry.name.startswith("."):
                passed["hidden"] += 1
            elif kind == "folder" and entry.name in SKIPPED_FOLDERS:
                passed[SKIPPED_FOLDERS[entry.name]] += 1
            elif ignored(rules, path, folder=kind == "folder"):
                passed["ignored"] += 1
            elif kind == "folder" and _is_corpus(folder / entry.name):
                passed["a corpus"] += 1
            elif kind == "folder":
                waiting.append((folder / entry.name, path, rules, way | {identity}))
            elif kind == "file":
                yield path
            else:
                passed[kind] += 1


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return (
            "folder" if entry.is_dir() else "file" if entry.is_file() else "neither file nor folder"
        )
    except OSError:
        return "link that leads in a circle"


def _is_corpus(folder: Path) -> bool:
    """Whether a build writes, or has written, into this folder: what it wrote is no source."""
    return (folder / "tasks" / "lock").is_file() or all(
        (folder / name).is_file() for name in ("shards.json", "tokenizer.json")
    )


def _expand(pattern: str, path: Path, passed: Counter[str]) -> tuple[Path, list[str]]:
    """Glob → its fixed folder and the files that match; folders that match are walked."""
    if not glob.has_magic(pattern):
        raise _missing(path)
    fixed = Path(*_before_magic(path.parts))
    files: list[str] = []
    for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 (absolute patterns)
        found = Path(match)
        relative = found.relative_to(fixed).as_posix()
        folders = [fixed / one for one in Path(relative).parents if one.name]
        if any(map(_is_corpus, [found, *folders])):
            passed["a corpus"] += found.is_dir()
            continue
        if found.is_dir():
            # With `**`, glob names the folders as well as the files in them.
            if "**" not in pattern:
                files += _walk(found, relative, rules_of(fixed, ""), passed)
        elif found.is_file():
            files.append(relative)
    if not files:
        raise DataError(
            "no file matches",
            where=pattern,
            way_out=f"The pattern begins in {fixed.absolute()}"
            + ("." if fixed.is_dir() else ", which does not exist."),
        )
    return fixed, files


def _before_magic(parts: tuple[str, ...]) -> tuple[str, ...]:
    for place, part in enumerate(parts):
        if glob.has_magic(part):
            return parts[:place]
    return parts


def _missing(path: Path) -> DataError:
    """A path that is not there → an error that names the nearest one that is."""
    parent = path.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    wanted = path.absolute().relative_to(parent).parts[0]
    near = difflib.get_close_matches(
        wanted, sorted(entry.name for entry in parent.iterdir()), 1, 0.5
    )
    hint = f"Nearest: {parent / near[0]}." if near else f"The nearest folder is {parent}."
    return DataError("there is no such file or folder", where=str(path), way_out=hint)


def _unencodable(relative: str) -> bool:
    try:
        relative.encode()
    except UnicodeEncodeError:
        return True
    return False


def _ending(relative: str) -> str:
    return Path(relative).suffix.lower() or "no ending"


def _standard_library(root: Path) -> Iterator[str]:
    """Folder of the standard library → its code and documentation, tests left out."""
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _TEST_FOLDERS
            and name not in SKIPPED_FOLDERS
            and not name.startswith(("config-", "."))
        )
        for name in files:
            # _sysconfigdata* is written by the interpreter's build and differs between machines.
            if format_of(name) in ("text", "markdown") or (
                name.endswith(".py") and not name.startswith("_sysconfigdata")
            ):
                yield (here / name).as_posix()


def _library_input(root: Path, relative: str, source: Source) -> Input:
    if relative == _TOPICS:
        return Input(root / relative, relative, "topics", source.domain or "documentation")
    format_ = format_of(relative)
    domain = source.domain or ("code" if format_ == "code" else "documentation")
    return Input(root / relative, relative, format_, domain)
