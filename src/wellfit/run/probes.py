"""What the loop calls inside a step: held-out scores and samples. It knows neither of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wellfit.data.corpus import Corpus
from wellfit.errors import RunError
from wellfit.evaluation.loss import evaluate
from wellfit.generation.generate import next_logits
from wellfit.generation.write import Ended, write_rows
from wellfit.model.protocol import LanguageModel
from wellfit.recipe.schema import Recipe
from wellfit.records import Event, Record, Sampled
from wellfit.run.parts import guessing, held_out_rows
from wellfit.run.prompting import prompt_of
from wellfit.run.vocabulary import marks_of

BEST = 5


def evaluator(
    model: LanguageModel, corpus: Corpus, recipe: Recipe
) -> Callable[[int], Iterator[Record]] | None:
    """A probe that scores the validation split; None where the recipe holds nothing out for it."""
    if "validation" not in corpus.splits:
        return None
    rows = held_out_rows(recipe, corpus, "validation")
    documents = corpus.documents("validation")

    def probe(step: int) -> Iterator[Record]:
        yield evaluate(
            model,
            rows,
            documents,
            step=step,
            split="validation",
            micro_batch=recipe.train.micro_batch,
            tokens=recipe.evaluate.tokens,
            guess=guessing(recipe),
        )

    return probe


def sampler(
    model: LanguageModel, corpus: Corpus, recipe: Recipe
) -> Callable[[int], Iterator[Record]]:
    """A probe that continues the recipe's prompts and gives the likeliest next tokens of each.

    Without a tokenizer it says once that there are no samples, and why.
    """
    if not corpus.has_tokenizer:
        return _silent(recipe)
    tokenizer = corpus.tokenizer()
    spellings = tokenizer.token_bytes()
    marks = marks_of(recipe, corpus)

    def spelled(token: int) -> str:
        if mark := marks.spelling(token):
            return mark
        if token == tokenizer.separator:
            return tokenizer.separator_text
        return spellings[token].decode(errors="replace")

    def sampled(step: int, prompt: str) -> Sampled:
        given = prompt_of(recipe, corpus, tokenizer, prompt)
        logits = next_logits(model, given.ids, given.source)
        probable = logits.softmax(-1).topk(min(BEST, len(logits)))
        pieces = write_rows(model, [given], recipe.monitor.sampling, tokenizer.decode)
        (text,) = (piece.text for piece in pieces if isinstance(piece, Ended))
        guesses = zip(*probable, strict=True)
        return Sampled(
            step,
            prompt,
            text,
            tuple((spelled(int(token)), float(share)) for share, token in guesses),
        )

    def probe(step: int) -> Iterator[Record]:
        silent = recipe.model.kind == "encoder" or recipe.model.head != "tokens"
        if silent and recipe.monitor.prompts:
            what = "an encoder" if recipe.model.kind == "encoder" else "a model of classes"
            text = f"{what} does not write text, so there are no samples of it"
            yield Event(step, "no_sample", text)
            return
        for prompt in recipe.monitor.prompts:
            try:
                yield sampled(step, prompt)
            except RunError as error:
                # Logits that are not finite cannot be drawn from; the training itself goes on.
                yield Event(step, "no_sample", str(error), {"prompt": prompt})

    return probe


def _silent(recipe: Recipe) -> Callable[[int], Iterator[Record]]:
    told = not recipe.monitor.prompts

    def probe(step: int) -> Iterator[Record]:
        nonlocal told
        if not told:
            told = True
            text = (
                "the tokens came without a tokenizer, so prompts cannot be read and nothing can be "
                "shown; name it as data.tokens.tokenizer"
            )
            yield Event(step, "no_sample", text, {"prompts": list(recipe.monitor.prompts)})

    return probe
