"""Doors to what a training left: scores, text, its page."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from wellfit.doors.terms import AsJson, Checkpoint, RunFolder, say


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


def report(run: RunFolder) -> None:
    """Write a run's page: one self-contained HTML file."""
    from wellfit.report.page import write_report

    say(str(write_report(run)))
