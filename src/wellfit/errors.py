"""What can go wrong for a user, as one small tree.

    WellfitError            anything a user can mend; the command line prints it and exits with 2
    ├── RecipeError         the recipe: every fault at once
    ├── DataError           documents, corpora, shards
    ├── RunError            run folders, locks, resuming
    ├── CheckpointError     checkpoints: damaged, missing, no room to write
    └── LogError            a training log that cannot be read

A message says where, what, and the way out. Programming mistakes of our own are plain asserts.
"""

from __future__ import annotations


class WellfitError(Exception):
    """A fault that the user can mend: `where: what. way_out`, each part a plain sentence."""

    def __init__(self, what: str, *, where: str = "", way_out: str = "") -> None:
        self.what = what
        self.where = where
        self.way_out = way_out
        head = f"{where}: {what}" if where else what
        super().__init__(f"{head}\n  {way_out}" if way_out else head)


class RecipeError(WellfitError):
    """The recipe is wrong; `faults` holds one line for each fault found."""

    def __init__(self, faults: list[str], *, where: str = "") -> None:
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{count} in the recipe\n  " + "\n  ".join(faults), where=where)


class DataError(WellfitError):
    """Documents, a corpus or a shard cannot be used."""


class RunError(WellfitError):
    """A run folder cannot be opened, is in use, or does not fit the recipe."""


class CheckpointError(WellfitError):
    """A checkpoint is damaged or missing, or cannot be written."""


class LogError(WellfitError):
    """A training log cannot be read."""
