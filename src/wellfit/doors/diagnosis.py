"""The door to a second opinion on anybody's training."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wellfit.doors.terms import AsJson, say, screen


class Task(StrEnum):
    """What a training is for, where its log does not tell."""

    language = "language"
    classification = "classification"
    preference = "preference"
    reinforcement = "reinforcement"


def diagnose(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Logs, folders that hold one, run folders; - is standard input."
        ),
    ],
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page; for several runs, a folder of pages."),
    ] = None,
    sarif: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write SARIF 2.1.0; - prints it instead of the text."),
    ] = None,
    vocab: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Size of the vocabulary.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="E", help="Planned passes over the data.")
    ] = None,
    task: Annotated[Task | None, typer.Option(help="What is trained.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Watch a growing log until Ctrl-C.")
    ] = False,
) -> None:
    """Say what is going wrong in a training, why, and what to change."""
    from wellfit import __version__
    from wellfit.diagnosis import Given
    from wellfit.run import opinion

    opinion.refuse(paths, as_json=as_json, html=html, sarif=sarif, epochs=epochs, follow=follow)
    given = Given(vocab, epochs, None if task is None else task.value)
    live = sys.stdout.isatty()
    if follow:
        from wellfit.run.follow import follow as follow_log

        raise typer.Exit(
            follow_log(paths[0], given, print_now, screen=screen if live else None, colour=live)
        )
    found = opinion.examine(paths, given)
    if sarif == "-":
        say(opinion.as_sarif(found, __version__))
    elif as_json:
        say(opinion.as_json(found))
    else:
        say(opinion.as_text(found, colour=live, width=min(screen()[0], 100) if live else 80))
    if sarif not in (None, "-"):
        opinion.write_sarif(found, Path(sarif), __version__)
    for page in opinion.write_pages(found, html) if html else ():
        sys.stderr.write(f"wellfit: wrote {page}\n")
    for _, error in found.unreadable:
        sys.stderr.write(f"wellfit: {error}\n")
    raise typer.Exit(found.exit_status)


def print_now(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
