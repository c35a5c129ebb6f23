"""Paths as a recipe names them → files of tokens, in order, with the kind of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wellfit.errors import DataError

KINDS = {
    ".bin": "bin", ".npy": "npy", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
    ".parquet": "parquet",
}  # fmt: skip
"""End of a file's name → how it is read."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file of tokens."""

    split: str
    path: Path
    kind: str


def find_inputs(split: str, named: Sequence[str]) -> list[Input]:
    """A split and its paths → its files, in the order of the paths, sorted within each.

    Raises DataError where a path is missing, holds no such file, or is of another kind.
    """
    return [Input(split, file, _kind(file)) for path in named for file in _files(path, split)]


def refuse_twice(inputs: Sequence[Input], folder: Path) -> None:
    """All files and the corpus folder → nothing; DataError for a file named twice or in there."""
    seen: dict[Path, Input] = {}
    corpus = folder.resolve()
    for one in inputs:
        real = one.path.resolve()
        if real.is_relative_to(corpus):
            raise DataError(
                "the file lies in the corpus folder, which the build fills and empties",
                where=str(one.path),
                way_out="Give the corpus a folder of its own with `data.folder`.",
            )
        other = seen.setdefault(real, one)
        if other is not one:
            raise DataError(
                f"the file is named twice, in {other.split} and in {one.split}"
                if other.split != one.split
                else f"the file is named twice in {one.split}",
                where=str(one.path),
                way_out="Name it once: what is scored must not be trained on.",
            )


def _files(named: str, split: str) -> list[Path]:
    path = Path(named).expanduser()
    where = f"data.tokens.{split} = {named}"
    if path.is_file():
        return [path]
    if path.is_dir():
        return _of_folder(path, where)
    is_glob = any(sign in named for sign in "*?[")
    if is_glob:
        pattern = path.relative_to(path.anchor).as_posix()
        found = sorted(one for one in Path(path.anchor).glob(pattern) if one.is_file())
        if found:
            return found
    raise DataError(
        "no file fits this pattern" if is_glob else "there is no such file or folder",
        where=where,
        way_out="Paths are relative to the folder that the command runs in.",
    )


def _of_folder(folder: Path, where: str) -> list[Path]:
    if (folder / "dataset_dict.json").is_file():
        inside = sorted(one.name for one in folder.iterdir() if (one / "state.json").is_file())
        raise DataError(
            "the folder holds several data sets of `save_to_disk`",
            where=where,
            way_out="Name one of them for each split, such as "
            f"{folder / (inside[0] if inside else 'train')}.",
        )
    state = folder / "state.json"
    if state.is_file():
        try:
            listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
            files = [folder / entry["filename"] for entry in listed]
        except (ValueError, KeyError, TypeError) as fault:
            raise DataError(
                f"it is no state.json of `save_to_disk` ({fault})",
                where=str(state),
                way_out="Save the data set again, or name its .arrow files themselves.",
            ) from fault
        missing = next((file for file in files if not file.is_file()), None)
        if missing is not None:
            raise DataError(
                f"state.json names {missing.name}, which is not there",
                where=str(folder),
                way_out="Copy the whole folder.",
            )
    else:
        files = sorted(one for one in folder.iterdir() if one.suffix in KINDS and one.is_file())
    if not files:
        raise DataError(
            f"the folder holds none of {', '.join(KINDS)}",
            where=where,
            way_out="Name the files themselves.",
        )
    return files


def _kind(file: Path) -> str:
    if file.suffix not in KINDS:
        raise DataError(
            f"a name that ends in {file.suffix or 'nothing'} does not tell how tokens are stored",
            where=str(file),
            way_out=f"Name it {', '.join(KINDS)}; text goes into `data.sources`.",
        )
    return KINDS[file.suffix]
