"""A run folder and prompts → what a checkpoint of the run writes behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.data.corpus import Corpus
from wellfit.errors import WellfitError
from wellfit.recipe.schema import Sampling
from wellfit.run.weights import open_run

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer
    from wellfit.generation.prompts import Prompt
    from wellfit.generation.rows import Written
    from wellfit.generation.write import Ended, Piece
    from wellfit.run.prompting import Turn

TOGETHER = 32
"""Prompts that are continued at once at most: each has room for its keys in memory."""


def drawing(
    *,
    tokens: int = 100,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 0.95,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Sampling:
    """How to draw, as a user says it → the section; WellfitError names all that is wrong at once.

    >>> drawing(stop=["."]).stop
    ('.',)
    """
    limits = {
        "tokens": (1 <= tokens <= 100_000, "from 1 to 100,000"),
        "seed": (0 <= seed < 2**63, "at least 0 and below 2**63"),
        "temperature": (0 <= temperature <= 100, "from 0 to 100"),
        "top_k": (top_k >= 0, "at least 0"),
        "top_p": (0 < top_p <= 1, "above 0 and at most 1"),
        "min_p": (0 <= min_p <= 1, "from 0 to 1"),
        "repetition_penalty": (0 < repetition_penalty <= 100, "above 0 and at most 100"),
    }
    wrong = [f"{name} must be {limit}" for name, (fine, limit) in limits.items() if not fine]
    if not all(stop):
        wrong.append("stop must be a text of at least one character")
    if min_p and temperature == 0:
        wrong.append("min_p does nothing with temperature 0, which takes the likeliest anyway")
    if wrong:
        raise WellfitError("; ".join(wrong), where="generate")
    return Sampling(
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop),
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Pen:
    """A model that is ready to write: a run's checkpoint, or a folder of weights."""

    tokenizer: Tokenizer | None
    model: Written
    """Its weights made ready, or the model itself where only its own forward pass knows it."""
    context: int
    threads: int
    """CPU threads; 0 takes one a core."""
    prompt: Callable[[str], Prompt]
    """A text → what the model is given of it; ids where there is no tokenizer."""
    talk: Callable[[Sequence[Turn]], Prompt]
    """The turns of a conversation → the same."""

    @property
    def decode(self) -> Callable[[Sequence[int]], str]:
        """Ids → text, or themselves with spaces between them."""
        if self.tokenizer is None:
            return lambda ids: "".join(f" {one}" for one in ids)
        return self.tokenizer.decode

    def write(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Piece | Ended]:
        """Prompts and how to draw → pieces of their continuations; see `write_rows`."""
        from wellfit.generation.write import write_rows
        from wellfit.training.threads import threads

        with threads(self.threads):
            yield from write_rows(self.model, prompts, sampling, self.decode)


def open_pen(run: Path, which: str = "", *, rows: int = 1) -> Pen:
    """A run folder, a checkpoint and how many prompts it will write at once → it, ready to write.

    `which` is as for `choose_checkpoint`; a folder of weights has one alone. Raises as `open_run`
    does, and RunError where the model does not write text.
    """
    from wellfit.generation.prompts import continuing
    from wellfit.generation.rows import empty_cache
    from wellfit.model.decoding import decoding
    from wellfit.run.folder_text import is_weights_folder, pen_of_folder
    from wellfit.run.prompting import conversation_prompt, prompt_of, refuse_without_text

    if is_weights_folder(run):
        return pen_of_folder(run, rows)
    trained = open_run(run, which)
    refuse_without_text(trained.recipe)  # before a prompt is printed
    empty_cache(trained.model)
    recipe, corpus = trained.recipe, trained.corpus
    tokenizer = corpus.tokenizer() if corpus.has_tokenizer else None

    def prompt(text: str) -> Prompt:
        if tokenizer is None:
            return continuing(_ids_of(text, corpus), separator=corpus.separator)
        return prompt_of(recipe, corpus, tokenizer, text)

    def talk(turns: Sequence[Turn]) -> Prompt:
        assert tokenizer is not None, "a conversation needs a tokenizer"
        return conversation_prompt(recipe, corpus, tokenizer, turns)

    ready = decoding(trained.model, rows) or trained.model
    return Pen(tokenizer, ready, recipe.model.context, recipe.train.threads, prompt, talk)


def generate_from_run(
    run: Path, prompts: Sequence[str], sampling: Sampling, which: str = ""
) -> Iterator[Piece | Ended]:
    """A run folder, prompts and how to draw → pieces of their continuations, as they are known.

    `which` is as for `choose_checkpoint`. Prompts are continued `TOGETHER` at a time; what is
    written behind one does not depend on the others. Where the tokens came without a tokenizer,
    a prompt and what follows it are ids with spaces between them. Raises as `open_pen` does, and
    WellfitError for a prompt or a setting that cannot be used, before anything is drawn.
    """
    from dataclasses import replace

    pen = open_pen(run, which, rows=min(len(prompts), TOGETHER))
    if pen.tokenizer is None and sampling.stop:
        raise WellfitError(
            "the run's tokens came without a tokenizer, so there is no text to stop at",
            where="stop",
            way_out="Leave it out, or name data.tokens.tokenizer before training.",
        )
    given = [pen.prompt(text) for text in prompts]

    def pieces() -> Iterator[Piece | Ended]:
        for first in range(0, len(given), TOGETHER):
            for piece in pen.write(given[first : first + TOGETHER], sampling):
                yield replace(piece, number=first + piece.number)

    return pieces()


def prompts_of_file(path: Path) -> list[str]:
    """A file of prompts → them: one a line, or with `.jsonl` the `prompt` of each line's object.

    Empty lines are passed over. Raises WellfitError where it cannot be read or has none.
    """
    import json

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise WellfitError(f"the prompts cannot be read ({said})", where=str(path)) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            found.append(line)
            continue
        try:
            prompt = json.loads(line)["prompt"]
        except (ValueError, KeyError, TypeError):
            prompt = None
        if not isinstance(prompt, str):
            raise WellfitError(
                "the line is no JSON object with a text as `prompt`",
                where=f"{path}:{number}",
                way_out='Write it as {"prompt": "…"}, or name the file other than .jsonl and give '
                "a prompt a line.",
            )
        found.append(prompt)
    if not found:
        raise WellfitError("the file has no prompt", where=str(path))
    return found


def _ids_of(prompt: str, corpus: Corpus) -> list[int]:
    """A prompt in ids → these; WellfitError where it is none."""
    words = prompt.split()
    if not all(w.isascii() and w.isdecimal() and int(w) < corpus.vocabulary_size for w in words):
        raise WellfitError(
            "the run's tokens came without a tokenizer, so a prompt is ids from 0 to "
            f"{corpus.vocabulary_size - 1} with spaces between them",
            where="prompt",
            way_out="Write it so, or name data.tokens.tokenizer before training.",
        )
    return [int(word) for word in words]
