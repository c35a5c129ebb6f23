"""The doors: read the arguments, import the room, call it, print what came out.

Nothing heavy is imported before a command runs; `wellfit --help` never loads torch.
Exit status: 0 all well, 1 `diagnose` found something at warning or above, 2 an error that the
message explains, 128 + signal when a run was stopped or the command interrupted.
"""

from __future__ import annotations

import io
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wellfit.errors import WellfitError

app = typer.Typer(
    help="Trains language models and tells the truth about the training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Documents to shards.", no_args_is_help=True, rich_markup_mode=None)
recipe_app = typer.Typer(help="What a run is.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(recipe_app, name="recipe")

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).")]
Changes = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings to change.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _print(text: str) -> None:
    if text:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


def _print_version(wanted: bool) -> None:
    if wanted:
        from wellfit import __version__

        _print(f"wellfit {__version__}")
        raise typer.Exit


@app.callback()
def wellfit(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Trains language models and tells the truth about the training."""


@app.command()
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


@app.command()
def train(
    recipe: RecipeFile,
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="The run folder (default runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but the closing lines.")] = False,
) -> None:
    """Train from a recipe: build the corpus, train, evaluate, diagnose, report."""
    from wellfit.run.load import load
    from wellfit.run.run import run
    from wellfit.run.show import Quiet, Terminal, closing_lines

    loaded = load(recipe, tuple(changes or ()))
    folder = out or Path("runs") / loaded.name
    with Terminal() as show:
        outcome = run(loaded, folder, resume=resume, show=Quiet() if quiet else show)
    _print(closing_lines(outcome))
    raise typer.Exit(outcome.exit_status)


@app.command()
def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="Held-out split: validation or test.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Score the newest checkpoint of a run on the whole of a held-out split."""
    from dataclasses import asdict

    from wellfit.run.show import evaluation_lines
    from wellfit.run.weights import evaluate_run

    scores = evaluate_run(run, split)
    _print(json.dumps(asdict(scores), indent=2) if as_json else evaluation_lines(scores))


@app.command()
def generate(
    run: RunFolder,
    prompt: Annotated[str, typer.Option(help="Text to continue.")],
    tokens: Annotated[int, typer.Option(min=1, help="New tokens.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same text.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="Sharpness; 0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the k best; 0 takes all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the smallest set with this mass.")] = 0.95,
) -> None:
    """Continue a prompt with the newest checkpoint of a run."""
    from wellfit.run.weights import generate_from_run

    # In a locale without UTF-8 Python hands over bytes it could not decode as lone surrogates.
    prompt = os.fsencode(prompt).decode("utf-8", "replace") if not prompt.isascii() else prompt
    pieces = generate_from_run(
        run, prompt, tokens=tokens, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p
    )
    _print_stream(prompt, pieces)


def _print_stream(prompt: str, pieces: object) -> None:
    sys.stdout.write(prompt)
    for piece in pieces:  # type: ignore[attr-defined]
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


class Task(StrEnum):
    """What a training is for, where its log does not tell."""

    language = "language"
    classification = "classification"
    preference = "preference"
    reinforcement = "reinforcement"


@app.command()
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
            follow_log(paths[0], given, _print_now, screen=_screen if live else None, colour=live)
        )
    found = opinion.examine(paths, given)
    if sarif == "-":
        _print(opinion.as_sarif(found, __version__))
    elif as_json:
        _print(opinion.as_json(found))
    else:
        _print(opinion.as_text(found, colour=live, width=min(_screen()[0], 100) if live else 80))
    if sarif not in (None, "-"):
        opinion.write_sarif(found, Path(sarif), __version__)
    for page in opinion.write_pages(found, html) if html else ():
        sys.stderr.write(f"wellfit: wrote {page}\n")
    for _, error in found.unreadable:
        sys.stderr.write(f"wellfit: {error}\n")
    raise typer.Exit(found.exit_status)


def _print_now(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _screen() -> tuple[int, int]:
    """Columns and lines of the terminal."""
    import shutil

    size = shutil.get_terminal_size()
    return size.columns, size.lines


@app.command()
def report(run: RunFolder) -> None:
    """Write a run's page: one self-contained HTML file."""
    from wellfit.report.page import write_report

    _print(str(write_report(run)))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file or folder of data.")],
    out: Annotated[Path | None, typer.Option(help="The recipe to write.")] = None,
) -> None:
    """Write a recipe for the data at PATH."""
    from wellfit.run.init import write_recipe

    target = out or Path(f"{path.resolve().stem or 'data'}.yaml")
    _print(write_recipe(path, target))


@app.command()
def check(recipe: RecipeFile, changes: Changes = None) -> None:
    """Validate a recipe, build its corpus, and take two real steps in a scratch folder."""
    from wellfit.run.check import check as run_check
    from wellfit.run.show import Terminal

    with Terminal() as show:
        told = run_check(recipe, tuple(changes or ()), show)
    _print(told)


@app.command()
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
    _print(json.dumps(made.to_json(), indent=2) if as_json else plan_text(made))


@app.command(name="list")
def list_kind(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to list; `kinds` lists these.")],
) -> None:
    """List what a recipe can name, such as filters; `wellfit list kinds` lists the kinds."""
    from wellfit.run.catalogue import listing

    _print(listing(kind))


@recipe_app.command("show")
def recipe_show(recipe: RecipeFile, changes: Changes = None) -> None:
    """Print the resolved recipe, every value with where it came from."""
    from wellfit.recipe.show import recipe_text
    from wellfit.run.load import load

    _print(recipe_text(load(recipe, tuple(changes or ()))))


@data_app.command("build")
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
    _print(corpus_lines(corpus))


@data_app.command("locate")
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
        _print(json.dumps(fields, indent=2, ensure_ascii=False))
    else:
        _print(place_lines(found))


def main() -> None:
    """The command `wellfit`: runs a door; our errors become a message and exit status 2."""
    _settle_streams()
    try:
        try:
            app()
        finally:
            # What is still in the buffer meets a full disk here rather than after the last line.
            sys.stdout.flush()
    except WellfitError as error:
        sys.stderr.write(f"wellfit: {error}\n")
        sys.exit(2)
    except SystemExit as ended:
        # Typer has caught these two already, and ends without a word.
        if _began_with(ended, KeyboardInterrupt):
            sys.stderr.write("wellfit: interrupted\n")
        if _began_with(ended, BrokenPipeError):
            _forget_output()
            sys.exit(141)
        raise
    except BrokenPipeError:
        # The reader of our output (such as `head`) left; that is not our fault to report.
        _forget_output()
        sys.exit(141)
    except OSError as error:
        # Whatever no room has explained; most often the output itself cannot be written.
        _forget_output()
        where = error.filename or "the output"
        sys.stderr.write(
            f"wellfit: {where}: {error.strerror or error}\n"
            "  Make room there or mend its permissions, then run the command again.\n"
        )
        sys.exit(2)


def _began_with(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an error, or one that it was raised while handling, is of this kind."""
    return error is not None and (
        isinstance(error, kind) or _began_with(error.__cause__ or error.__context__, kind)
    )


def _settle_streams() -> None:
    """Make every text printable: streams may be closed, and their encoding may know few signs."""
    if sys.stdout is None:  # `>&-` in a shell
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (to our end)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (to our end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """Send what is still to be flushed nowhere, so that Python's own exit does not fail on it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
