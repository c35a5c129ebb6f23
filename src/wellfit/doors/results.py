"""Doors to what a training left: scores, its page."""

from __future__ import annotations

import json
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
