"""What the doors have in common: arguments by their name, and a place to say things."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).")]
Changes = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings to change.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="best|last|STEP",
        help="Whose weights; by default the best where `train.keep_best` kept one, else the last.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def say(text: str) -> None:
    """A text on standard output, with the end of its last line."""
    if text:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


def screen() -> tuple[int, int]:
    """Columns and lines of the terminal."""
    import shutil

    size = shutil.get_terminal_size()
    return size.columns, size.lines
