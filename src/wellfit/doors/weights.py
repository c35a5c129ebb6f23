"""Doors to weights: a run written for others, and a model looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from wellfit.doors.terms import AsJson, Changes, Checkpoint, RunFolder, say


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")],
    checkpoint: Checkpoint = "",
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"], typer.Option(help="How its numbers are written.")
    ] = "fp32",
    shard_megabytes: Annotated[
        int, typer.Option(min=1, help="Most megabytes of one file of weights.")
    ] = 5000,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="The adapter alone, as PEFT reads it.")
    ] = False,
) -> None:
    """Write a run's model in the layout of Hugging Face, with a model card."""
    from wellfit.run.export import export as run_export
    from wellfit.run.export import export_lines

    made = run_export(
        run,
        out,
        checkpoint=checkpoint,
        dtype=dtype,
        shard_bytes=shard_megabytes * 1_000_000,
        adapter=adapter,
    )
    say(export_lines(made))


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="RECIPE|RUN|FOLDER", help="A recipe, a run, or weights.")
    ],
    changes: Changes = None,
    every: Annotated[bool, typer.Option("--all", help="Every block, not the first alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a model's modules, shapes, parameters, and the names that adapters go by."""
    from wellfit.run.inspect import inspect_model, inspect_text

    found = inspect_model(path, tuple(changes or ()))
    say(json.dumps(found.to_json(), indent=2) if as_json else inspect_text(found, every=every))
