"""Doors to training: from nothing, from data, from a recipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from wellfit.doors.terms import AsJson, Changes, RecipeFile, say, screen
from wellfit.errors import RunError


def quickstart(
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder; its corpus lies inside (default runs/quickstart)."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of training, without reading and reporting.")
    ] = None,
) -> None:
    """Train a language model on the text of this Python's own library, in about three minutes."""
    from wellfit.run.quickstart import quickstart as run_quickstart
    from wellfit.run.show import Terminal

    with Terminal() as show:
        outcome = run_quickstart(out, minutes, show)
    raise typer.Exit(outcome.exit_status)


def train(
    recipe: RecipeFile,
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="The run folder (default runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint.")] = False,
    at: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEP",
            help="With --resume: from this step's checkpoint; later ones are set aside.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option(help="Print nothing but the closing lines.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Tell the course as lines of JSON on standard error.")
    ] = False,
) -> None:
    """Train from a recipe: build the corpus, train, evaluate, diagnose, report."""
    from wellfit.run.load import load
    from wellfit.run.run import run
    from wellfit.run.show import Quiet, Terminal, closing_lines

    loaded = load(recipe, tuple(changes or ()))
    folder = out or Path("runs") / loaded.name
    if at is not None and not resume:
        raise RunError(
            "--at names a checkpoint to resume from",
            where="--at",
            way_out="Add --resume, or leave --at out.",
        )
    with Terminal("json" if as_json else "auto") as show:
        outcome = run(loaded, folder, resume=resume, at=at, show=Quiet() if quiet else show)
    say(closing_lines(outcome))
    raise typer.Exit(outcome.exit_status)


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file or folder of data.")],
    out: Annotated[Path | None, typer.Option(help="The recipe to write.")] = None,
) -> None:
    """Write a recipe for the data at PATH."""
    from wellfit.run.init import write_recipe

    target = out or Path(f"{path.resolve().stem or 'data'}.yaml")
    say(write_recipe(path, target))


def check(recipe: RecipeFile, changes: Changes = None) -> None:
    """Validate a recipe, build its corpus, and take two real steps in a scratch folder."""
    from wellfit.run.check import check as run_check
    from wellfit.run.show import Terminal

    with Terminal() as show:
        told = run_check(recipe, tuple(changes or ()), show)
    say(told)


def xray(
    recipe: RecipeFile,
    changes: Changes = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Examples to show.")] = 5,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model sees of its examples, and which tokens it learns."""
    from wellfit.run.show import Terminal
    from wellfit.run.xray import xray as make_xray
    from wellfit.run.xray_show import write_page, xray_text

    with Terminal() as show:
        found = make_xray(recipe, tuple(changes or ()), count=n, show=show)
    if html is not None:
        write_page(found, html)
    if as_json:
        say(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        say(xray_text(found, colour=sys.stdout.isatty()))


def verify_resume(
    recipe: RecipeFile,
    changes: Changes = None,
    steps: Annotated[int, typer.Option(min=4, help="Steps of each training.")] = 12,
    kills: Annotated[int, typer.Option(min=1, help="Kills, each at a random moment.")] = 3,
    micro_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Resume once more with this micro-batch: same up to rounding."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the moments of the kills.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train, kill at random moments, resume, and compare with an undisturbed training."""
    from wellfit.run.show import Terminal
    from wellfit.run.verify_resume import lines
    from wellfit.run.verify_resume import verify_resume as verify

    with Terminal() as show:
        found = verify(
            recipe,
            tuple(changes or ()),
            show,
            steps=steps,
            kills=kills,
            micro_batch=micro_batch,
            seed=seed,
        )
    say(found.to_json() if as_json else lines(found))
    raise typer.Exit(0 if found.exact else 1)


def lr_find(
    recipe: RecipeFile,
    changes: Changes = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps to spend (default a fifth of the run's).")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Begin at this run's newest checkpoint.")
    ] = None,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write a picture.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write lr-find.json, .png and .html.")
    ] = None,
) -> None:
    """Find a learning rate for a recipe, and say what the gradient noise means for its batch."""
    from wellfit.run.load import load
    from wellfit.run.lr_find import lr_find as run_lr_find
    from wellfit.run.lr_find_show import (
        advice_text,
        refuse_picture,
        write_all,
        write_page,
        write_picture,
    )
    from wellfit.run.show import Terminal

    refuse_picture(plot)
    with Terminal() as show:
        advice = run_lr_find(load(recipe, tuple(changes or ())), steps=steps, run=run, show=show)
    if html is not None:
        write_page(advice, html)
    if plot is not None:
        write_picture(advice, plot)
    if out is not None:
        write_all(advice, out)
    if as_json:
        say(json.dumps(advice.to_json(), indent=2, allow_nan=False))
    else:
        say(advice_text(advice, min(screen()[0], 100) if sys.stdout.isatty() else 80))


def coord_check(
    recipe: RecipeFile,
    changes: Changes = None,
    widths: Annotated[
        str,
        typer.Option(
            metavar="N,N,…", help="Widths (default a quarter, half and all of the recipe's)."
        ),
    ] = "",
    steps: Annotated[int, typer.Option(min=1, help="Steps at each width.")] = 4,
    seeds: Annotated[int, typer.Option(min=1, help="Weights that each width begins with.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Train a few steps at several widths, and say what grows or vanishes with the width."""
    from wellfit.run.coord_check import coord_check as run_coord_check
    from wellfit.run.coord_check import widths_of
    from wellfit.run.coord_check_show import coordinates_text
    from wellfit.run.load import load
    from wellfit.run.show import Terminal

    with Terminal() as show:
        found = run_coord_check(
            load(recipe, tuple(changes or ())),
            widths=widths_of(widths),
            steps=steps,
            seeds=seeds,
            show=show,
        )
    if as_json:
        say(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        say(coordinates_text(found))
    raise typer.Exit(0 if found.steady else 1)


def plan(
    recipe: RecipeFile,
    changes: Changes = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Plan for this GPU, such as H100-80GB or RTX-4090."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(metavar="MONEY", help="What the machine costs an hour.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Time a few real steps on this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a recipe needs before it runs: memory, time, money, and what to change to fit."""
    from wellfit.plan.text import plan_text
    from wellfit.run.plan import plan_file

    made = plan_file(recipe, tuple(changes or ()), gpu_name=gpu, price=price, calibrated=calibrate)
    say(json.dumps(made.to_json(), indent=2) if as_json else plan_text(made))
