"""Would this recipe train? Validate it, build its corpus, plan it, take two steps on the side."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from wellfit.errors import RunError
from wellfit.recipe.schema import Budget
from wellfit.records import Event, Proof, Step
from wellfit.run.load import load
from wellfit.run.setting import corpus_folder
from wellfit.run.show import Show, corpus_lines, packing_lines, proof_lines

STEPS = 2


def check(path: Path, changes: tuple[str, ...], show: Show) -> str:
    """A recipe file → lines that say what it would train and how the first steps went.

    The corpus is built where the recipe says and stays; the steps leave nothing behind. Raises
    RecipeError, DataError or RunError where the recipe cannot run.
    """
    recipe = load(path, changes)

    from wellfit.data.build import build_corpus
    from wellfit.plan.plan import refuse_what_cannot_fit
    from wellfit.plan.text import advice_lines, plan_lines
    from wellfit.recipe.schema import target_share
    from wellfit.recipe.shapes import flops_per_token
    from wellfit.run.parts import first_model, training_batches
    from wellfit.run.plan import packings_of, patcher, plan_of_run, settled
    from wellfit.run.vocabulary import vocabulary_of
    from wellfit.training.loop import train

    corpus = build_corpus(
        recipe.data, name=recipe.name, folder=corpus_folder(recipe), progress=show.stage
    )
    recipe = settled(recipe, corpus)
    rows = recipe.train.batch_tokens // recipe.model.context
    batches = training_batches(recipe, corpus)
    made = plan_of_run(recipe, corpus, patcher(path, changes))
    warning = refuse_what_cannot_fit(made, recipe.train.memory_check)
    model = first_model(recipe, vocabulary_of(recipe, corpus))
    section = recipe.train.model_copy(update={"budget": Budget(steps=STEPS)})
    with tempfile.TemporaryDirectory() as scratch:
        records = list(
            train(
                section,
                model,
                batches,
                folder=Path(scratch),
                seed=recipe.seed,
                evaluate_every=STEPS,
                sample_every=STEPS,
            )
        )
    started = next(r for r in records if isinstance(r, Event) and r.kind == "started")
    steps = [record for record in records if isinstance(record, Step)]
    proofs = proof_lines([record for record in records if isinstance(record, Proof)])
    refused = [r for r in records if isinstance(r, Event) and r.kind == "failed"]
    if refused and not steps:
        show.line(proofs)
        raise RunError(refused[-1].text, where=str(path))
    entries = vocabulary_of(recipe, corpus)
    outputs, guessed = recipe.model.outputs(entries), ""
    asked = "a token" if recipe.model.head == "tokens" else "an answer"
    if recipe.model.head != "span":
        guessed = (
            f"; guessing blindly among {outputs:,} {recipe.model.head} costs "
            f"{math.log(outputs):.3f}"
        )
    count = started.data["parameters"]
    about = f"Model {recipe.model.weights or recipe.model.size}: {count:,} parameters"
    if recipe.model.adapter is not None:
        module = recipe.model.module
        named = recipe.model.weights if module is None else module.name
        about = f"Adapter: {count:,} trained parameters beside the frozen base"
        about += f" of {named}" if named else ""
    elif not recipe.model.foreign:
        flops = flops_per_token(recipe.model, entries, target_share=target_share(recipe))
        about += f", {flops / 1e6:,.1f} MFLOP a token"
    else:
        module = recipe.model.module
        named = recipe.model.weights if module is None else module.name
        about = f"Model {named}: {count:,} parameters, its arithmetic unknown"
    lines = [
        corpus_lines(corpus),
        about,
        f"Step: {rows} rows of {recipe.model.context} tokens in micro-batches of "
        f"{recipe.train.micro_batch}; {batches.rows_per_epoch / rows:,.1f} steps an epoch",
        *(f"Weights: {one}" for one in getattr(model, "told", ())),
        packing_lines(packings_of(corpus, recipe), recipe.data.packing),
        *plan_lines(made),
        *([warning] if warning else []),
        *advice_lines(made),
        f"Device: {started.data['device']}, {started.data['precision']} "
        f"({started.data['precision_reason']})",
        f"First loss {steps[0].loss:.3f} nats {asked}{guessed}",
        f"Second step: {steps[-1].seconds:.2f} s, loss {steps[-1].loss:.3f}, "
        f"gradient norm {steps[-1].grad_norm:.3g}",
    ]
    if proofs:
        lines.append(proofs)
    budget = recipe.train.budget
    if budget.steps:
        lines.append(
            f"{budget.steps:,} steps at that speed: {_span(budget.steps * steps[-1].seconds)}"
        )
    lines.append("The recipe runs.")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    """Seconds → words.

    >>> _span(90), _span(7200)
    ('1.5 minutes', '2.0 hours')
    """
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"
