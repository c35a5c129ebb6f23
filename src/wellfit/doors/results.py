"""Doors to what a training left: scores, text, its page."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wellfit.doors.terms import AsJson, Checkpoint, RunFolder, say
from wellfit.errors import RunError


def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="Held-out split: validation or test.")] = "test",
    checkpoint: Checkpoint = "",
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint of a run on the whole of a held-out split."""
    from dataclasses import asdict

    from wellfit.run.show import evaluation_lines
    from wellfit.run.weights import evaluate_run

    scores = evaluate_run(run, split, checkpoint)
    say(json.dumps(asdict(scores), indent=2) if as_json else evaluation_lines(scores))


def generate(
    run: RunFolder,
    prompt: Annotated[str, typer.Option(help="Text to continue.")],
    tokens: Annotated[int, typer.Option(min=1, help="New tokens.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same text.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="Sharpness; 0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the k best; 0 takes all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the smallest set with this mass.")] = 0.95,
    checkpoint: Checkpoint = "",
) -> None:
    """Continue a prompt with a checkpoint of a run."""
    from wellfit.run.weights import generate_from_run

    # In a locale without UTF-8 Python hands over bytes it could not decode as lone surrogates.
    prompt = os.fsencode(prompt).decode("utf-8", "replace") if not prompt.isascii() else prompt
    pieces = generate_from_run(
        run,
        prompt,
        tokens=tokens,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        which=checkpoint,
    )
    print_stream(prompt, pieces)


def print_stream(prompt: str, pieces: object) -> None:
    sys.stdout.write(prompt)
    for piece in pieces:  # type: ignore[attr-defined]
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def predict(
    run: RunFolder,
    file: Annotated[
        Path | None, typer.Option("--in", metavar="FILE", help="Rows to answer: .jsonl, .csv, …")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=TEXT", help="One row, column by column: --given text=…"),
    ] = None,
    checkpoint: Checkpoint = "",
    as_json: AsJson = False,
) -> None:
    """Ask a model that names classes, or points at answers."""
    from wellfit.run.predict import predict_rows, rows_of_file
    from wellfit.run.predict_show import prediction_line, row_given

    if (file is None) == (not given):
        raise RunError(
            "there is nothing to answer" if file is None else "--in and --given both give rows",
            where="predict",
            way_out="Give `--in FILE`, or one row as `--given text=…`.",
        )
    rows = rows_of_file(file) if file is not None else iter([("--given", row_given(given or []))])
    for prediction in predict_rows(run, rows, checkpoint):
        line = json.dumps(prediction.to_json(), ensure_ascii=False)
        say(line if as_json else prediction_line(prediction))


def report(run: RunFolder) -> None:
    """Write a run's page: one self-contained HTML file."""
    from wellfit.report.page import write_report

    say(str(write_report(run)))
