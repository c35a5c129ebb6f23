"""Doors to what a run's model writes: behind prompts, and in a conversation."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wellfit.doors.terms import Checkpoint, RunFolder, say

if TYPE_CHECKING:
    from wellfit.generation.write import Ended, Piece
    from wellfit.run.chat import Chat

Tokens = Annotated[int, typer.Option(help="New tokens at most.")]
Seed = Annotated[int, typer.Option(help="Same seed, same text.")]
Temperature = Annotated[float, typer.Option(help="Sharpness; 0 is greedy.")]
TopK = Annotated[int, typer.Option(help="Draw from the k best; 0 takes all.")]
TopP = Annotated[float, typer.Option(help="Draw from the smallest set with this mass.")]
MinP = Annotated[float, typer.Option(help="Leave out what is less than this times the likeliest.")]
Penalty = Annotated[
    float,
    typer.Option("--repetition-penalty", help="Makes tokens that stood less likely; 1 does not."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="A text to end at, which is not printed. May be given several times."),
]


def generate(
    run: RunFolder,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Text to continue. May be given several times.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file of prompts: one a line, or JSON Lines with `prompt` (.jsonl)."),
    ] = None,
    tokens: Tokens = 100,
    seed: Seed = 0,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    stop: Stop = None,
    checkpoint: Checkpoint = "",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print a JSON line a prompt: its text, tokens, end, seconds."),
    ] = False,
) -> None:
    """Continue prompts with a checkpoint of a run."""
    from wellfit.errors import WellfitError
    from wellfit.run.writing import drawing, generate_from_run, prompts_of_file

    sampling = drawing(
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=[_typed(one) for one in stop or ()],
        seed=seed,
    )
    texts = [_typed(one) for one in prompt or ()]
    if prompts is not None:
        texts += prompts_of_file(prompts)
    if not texts:
        raise WellfitError("there is no prompt; give --prompt or --prompts", where="generate")
    pieces = generate_from_run(run, texts, sampling, checkpoint)
    if as_json:
        for one in _in_order(pieces):
            row = {
                "prompt": texts[one.number], "text": one.text, "tokens": one.tokens,
                "ended_by": one.reason, "seconds": round(one.seconds, 3),
            }  # fmt: skip
            say(json.dumps(row, ensure_ascii=False))
    elif len(texts) == 1:
        _print_stream(texts[0], pieces)
    else:
        for one in _in_order(pieces):
            gap = "\n" if one.number else ""
            say(f"{gap}{texts[one.number]}{one.text}\n")


def chat(
    run: RunFolder,
    tokens: Annotated[int, typer.Option(help="New tokens of an answer at most.")] = 200,
    seed: Seed = 0,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    stop: Stop = None,
    checkpoint: Checkpoint = "",
) -> None:
    """Talk with a checkpoint of a run: /reset forgets, /exit or Ctrl-D ends, Ctrl-C stops it."""
    from wellfit.run.chat import Chat
    from wellfit.run.writing import drawing, open_pen

    sampling = drawing(
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=[_typed(one) for one in stop or ()],
        seed=seed,
    )
    talk = Chat(open_pen(run, checkpoint), sampling)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        say("/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer.")
    while (line := _next_line(at_terminal)) is not None:
        words = line.strip()
        if words == "/exit":
            return
        if words == "/reset":
            talk.reset()
            say("(the conversation is forgotten)")
        elif words.startswith("/") and words[1:].isalpha():
            say(f"({words} is no command; there are /reset and /exit)")
        elif words:
            _print_answer(talk, line)


def _next_line(at_terminal: bool) -> str | None:
    """What the person types next, without the end of the line; None at the end of the input."""
    if not at_terminal:
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401 (its import lets `input` edit lines)
    while True:
        try:
            return input("> ")
        except KeyboardInterrupt:
            say("")  # Ctrl-C leaves the line that was being typed
        except EOFError:
            say("")
            return None


def _print_answer(talk: Chat, line: str) -> None:
    told = talk.forgotten
    with closing(talk.answer(line)) as pieces:  # type: ignore[type-var]
        try:
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
        except KeyboardInterrupt:
            pass  # ends the answer only
    sys.stdout.write("\n")
    if talk.forgotten and not told:
        sys.stdout.write("(the context is full: the oldest turns are left out from now on)\n")
    sys.stdout.flush()


def _print_stream(prompt: str, pieces: Iterable[Piece | Ended]) -> None:
    from wellfit.generation.write import Piece

    sys.stdout.write(prompt)
    for piece in pieces:
        if isinstance(piece, Piece):
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    sys.stdout.write("\n")


def _in_order(pieces: Iterable[Piece | Ended]) -> Iterator[Ended]:
    """Pieces of all prompts → the end of each, in the order of the prompts."""
    from wellfit.generation.write import Ended

    waiting: dict[int, Ended] = {}
    number = 0
    for piece in pieces:
        if isinstance(piece, Ended):
            waiting[piece.number] = piece
        while number in waiting:
            yield waiting.pop(number)
            number += 1


def _typed(text: str) -> str:
    """In a locale without UTF-8 Python hands over bytes it could not decode as lone surrogates."""
    return text if text.isascii() else os.fsencode(text).decode("utf-8", "replace")
