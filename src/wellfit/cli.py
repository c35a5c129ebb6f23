"""The command line: its doors (`doors/`), its streams, and how it ends.

Nothing heavy is imported before a command runs; `wellfit --help` never loads torch.
Exit status: 0 all well, 1 `diagnose` found something at warning or above or `coord-check` found
what depends on the width, 2 an error that the
message explains, 128 + signal when a run was stopped or the command interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wellfit.doors import data, diagnosis, results, training, weights, writing
from wellfit.doors.terms import say
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
model_app = typer.Typer(help="What a model is.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(model_app, name="model")


def _print_version(wanted: bool) -> None:
    if wanted:
        from wellfit import __version__

        say(f"wellfit {__version__}")
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


for door in (
    training.quickstart,
    training.train,
    results.evaluate,
    results.predict,
    writing.generate,
    writing.chat,
    diagnosis.diagnose,
    results.report,
    weights.export,
    training.init,
    training.check,
    training.plan,
    training.xray,
    training.verify_resume,
    training.lr_find,
    training.coord_check,
):
    app.command()(door)
app.command("list")(data.list_kind)
recipe_app.command("show")(data.recipe_show)
model_app.command("inspect")(weights.inspect)
data_app.command("build")(data.data_build)
data_app.command("locate")(data.data_locate)


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
