"""Doors to recipes and corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wellfit.doors.terms import AsJson, Changes, RecipeFile, say


def list_kind(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to list; `kinds` lists these.")],
) -> None:
    """List what a recipe can name, such as filters; `wellfit list kinds` lists the kinds."""
    from wellfit.run.catalogue import listing

    say(listing(kind))


def recipe_show(recipe: RecipeFile, changes: Changes = None) -> None:
    """Print the resolved recipe, every value with where it came from, and the rate over the run."""
    from wellfit.recipe.show import recipe_text
    from wellfit.run.load import load
    from wellfit.training.rate_plot import rate_plot

    loaded = load(recipe, tuple(changes or ()))
    say(recipe_text(loaded, rate_plot(loaded.train)))


def data_build(
    recipe: RecipeFile,
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="The corpus folder.")] = None,
) -> None:
    """Build the corpus of a recipe."""
    from wellfit.data.build import build_corpus
    from wellfit.run.load import load
    from wellfit.run.show import Terminal, corpus_lines

    loaded = load(recipe, tuple(changes or ()))
    folder = out or Path(loaded.data.folder or Path("corpora") / loaded.name)
    with Terminal() as show:
        corpus = build_corpus(loaded.data, name=loaded.name, folder=folder, progress=show.stage)
    say(corpus_lines(corpus))


def data_locate(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="A corpus or run folder.")],
    place: Annotated[str, typer.Argument(metavar="SHARD:OFFSET", help="Such as train-00000:1234.")],
    as_json: AsJson = False,
) -> None:
    """Show the file, the bytes and the text behind a token."""
    from dataclasses import asdict

    from wellfit.data.locate import locate
    from wellfit.run.show import place_lines

    found = locate(corpus, place)
    if as_json:
        fields = asdict(found) | {"text": found.text.decode(errors="replace")}
        say(json.dumps(fields, indent=2, ensure_ascii=False))
    else:
        say(place_lines(found))
