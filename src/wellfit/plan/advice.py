"""A recipe, and what is known of its corpus → what is unusual in it, before it runs.

A rule is a function of (recipe, facts) that yields advice or nothing. Usual ranges have a source;
the rates scale with the width as the dial's do (`recipe/sizes.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wellfit.plan.length import Counts, Length, length
from wellfit.recipe.rates import optimizer_rates
from wellfit.recipe.schema import Recipe
from wellfit.recipe.shapes import parameter_count


@dataclass(frozen=True, slots=True)
class Advice:
    """One unusual setting: what stands there, what is usual and why, and a change to paste."""

    setting: str
    seen: str
    usual: str
    why: str
    patch: str = ""

    def __str__(self) -> str:
        change = f"; try {self.patch}" if self.patch else ""
        return f"{self.setting} {self.seen}; usual: {self.usual} ({self.why}){change}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at beside the recipe."""

    parameters: int
    length: Length
    counts: Counts | None


def advise(recipe: Recipe, vocabulary_size: int, counts: Counts | None = None) -> list[Advice]:
    """A recipe and what is known of its corpus → every piece of advice, in the order of RULES."""
    facts = Facts(
        parameters=parameter_count(recipe.model, vocabulary_size),
        length=length(recipe, vocabulary_size, counts),
        counts=counts,
    )
    return [advice for rule in RULES.values() for advice in rule(recipe, facts)]


def learning_rate(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """Rates more than eight times away from what the optimizer and the width suggest."""
    section = recipe.train.optimizer
    if recipe.model.adapter is not None or getattr(recipe.model, "weights", None):
        return  # `fine_tuning_rate` knows these
    asked = {"kind": section.kind}
    dialled = optimizer_rates(asked, recipe.model.width, long=False)
    for path, (middle, why) in dialled.items():
        name = path.removeprefix("train.optimizer.")
        if not name.endswith("learning_rate"):
            continue
        # Eight times: small models stand much more than the rule (nanoGPT's take 1e-3 at 384).
        value, low, high = getattr(section, name), middle / 8, middle * 8
        if not low <= value <= high:
            yield Advice(
                path, f"{value:g}", f"{low:.1g} to {high:.1g}", why, f"{path}={middle:.2g}"
            )


def warmup(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """A warm-up of more than a tenth of the run, or none at all with AdamW."""
    value, steps = recipe.train.schedule.warmup, facts.length.steps
    share = value if value < 1 else (value / steps if steps else None)
    why = "too short: the first steps have unreliable moments; too long: it wastes the run"
    if share is not None and share > 0.1 and (steps is None or share * steps > 2):
        yield Advice(
            "train.schedule.warmup",
            f"{share:.0%} of the steps",
            "1 to 10 %",
            why,
            "train.schedule.warmup=0.02",
        )
    elif value == 0 and (steps is None or steps >= 100):
        yield Advice(
            "train.schedule.warmup", "none", "1 to 10 %", why, "train.schedule.warmup=0.02"
        )


def batch(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """Fewer than a hundred updates in all, or a batch larger than a pass over the data."""
    per_epoch, steps = facts.length.steps_per_epoch, facts.length.steps
    tokens = recipe.train.batch_tokens
    smaller = max(1, tokens // recipe.model.context // 4) * recipe.model.context
    patch = f"train.batch_tokens={smaller}" if smaller < tokens else ""
    if per_epoch is not None and per_epoch < 1:
        yield Advice(
            "train.batch_tokens",
            f"{tokens:,} is more than one pass over the data",
            "at least 10 steps a pass",
            "every step would see the whole corpus",
            patch,
        )
    elif (recipe.train.budget.tokens or recipe.train.budget.epochs) and steps and steps < 100:
        yield Advice(
            "train.batch_tokens",
            f"{tokens:,} leaves {steps} updates for the whole budget",
            "hundreds of updates at least",
            "below the critical batch size more updates beat larger ones, arXiv 1812.06162",
            patch,
        )


def epochs(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """More passes over the same text than repetition is worth."""
    value = facts.length.epochs or recipe.train.budget.epochs
    if value is not None and value > 16:
        yield Advice(
            "train.budget",
            f"{value:.0f} passes over the data",
            "1 to 4, at most 16",
            "up to 4 passes are nearly as good as new text, beyond 16 hardly any is gained, "
            "arXiv 2305.16264",
            "train.budget.epochs=4",
        )


def data_size(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """Far fewer tokens than parameters: a smaller model learns more from them."""
    each = facts.length.tokens_per_parameter
    counts = facts.counts
    few = counts is not None and counts.train_tokens < facts.parameters / 20
    # What was trained elsewhere brings what it learnt there.
    tuned = recipe.model.adapter is not None or getattr(recipe.model, "weights", None)
    if counts is None or each is None or not few or tuned:
        return
    yield Advice(
        "model.size",
        f"{counts.train_tokens:,} tokens for {facts.parameters:,} parameters",
        "about 20 a parameter",
        "compute-optimal training, arXiv 2203.15556; here the model can learn the text by heart",
    )


def weight_decay(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """More decay than any published recipe."""
    value = recipe.train.optimizer.weight_decay
    # Lion decays by rate times decay too, and its rates are 3 to 10 times lower.
    if value > (3.0 if recipe.train.optimizer.kind == "lion" else 0.3):
        yield Advice(
            "train.optimizer.weight_decay",
            f"{value:g}",
            "0 to 0.1, at most 0.3",
            "0.1 in GPT-3 and Llama, arXiv 2005.14165, 2302.13971",
            "train.optimizer.weight_decay=0.1",
        )


def betas(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """Moments that hardly average, or never forget within the run."""
    section, steps = recipe.train.optimizer, facts.length.steps
    for name, low, high, usual in (("beta1", 0.8, 0.98, 0.9), ("beta2", 0.9, 0.9999, 0.95)):
        # Lion's second moment averages more slowly by design (arXiv 2302.06675).
        value = getattr(section, name, None)
        if value is not None and section.kind != "lion" and not low <= value <= high:
            yield Advice(
                f"train.optimizer.{name}",
                f"{value:g}",
                f"{low:g} to {high:g}",
                "0.9 and 0.95 in GPT-3 and Llama, arXiv 2005.14165, 2302.13971",
                f"train.optimizer.{name}={usual:g}",
            )
    beta2 = getattr(section, "beta2", 0.0)
    if steps and beta2 <= 0.9999 and 1 / (1 - beta2) > max(steps, 20):
        yield Advice(
            "train.optimizer.beta2",
            f"{beta2:g} remembers {1 / (1 - beta2):,.0f} steps",
            f"fewer than the run's {steps:,}",
            "the second moment would never settle",
            "train.optimizer.beta2=0.95",
        )


def clip(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """No clipping, or a norm that clips every step or none."""
    value = recipe.train.clip_norm
    if value == 0 or not 0.1 <= value <= 10:
        yield Advice(
            "train.clip_norm",
            "is off" if value == 0 else f"{value:g}",
            "0.1 to 10",
            "one bad batch can throw a run back; 1.0 in GPT-3 and Llama, arXiv 2005.14165",
            "train.clip_norm=1",
        )


def context(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """A context many times the documents: with the document mask most of it is never used."""
    counts, tokens = facts.counts, recipe.model.context
    if counts is None or not counts.median_document_tokens or not recipe.train.document_mask:
        return
    if tokens > 16 * counts.median_document_tokens:
        fitting = 1 << max(7, (2 * counts.median_document_tokens - 1).bit_length())
        yield Advice(
            "model.context",
            f"{tokens:,} tokens, the median document has {counts.median_document_tokens:,}",
            "at most 16 times the median document",
            "tokens attend only within their own document, so the rest of a row costs without use",
            f"model.context={fitting}" if fitting < tokens else "",
        )


def evaluation_size(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """Too few held-out tokens to tell two models apart, or none."""
    counts, asked = facts.counts, recipe.evaluate.tokens
    held = counts.validation_tokens if counts else None
    share, wanted = _held_out(recipe)
    if not wanted or held == 0:
        yield Advice(
            share,
            "holds nothing out",
            "2 to 10 % of the data",
            "without held-out text over-fitting cannot be seen",
            f"{share}=0.05",
        )
        return
    scored = min(asked or (held or 10**9), held or 10**9)
    if scored < 8_192:
        yield Advice(
            "evaluate.tokens" if asked and asked <= scored else share,
            f"{scored:,} tokens are scored",
            "at least 8,192, better 65,536",
            "the standard error of so few hides what training changes",
            "evaluate.tokens=65536" if asked and asked <= scored else _more(recipe, share),
        )


def _held_out(recipe: Recipe) -> tuple[str, bool]:
    """A recipe → the setting that holds data out for validation, and whether anything is."""
    for name in ("tokens", "examples"):
        section = getattr(recipe.data, name)
        if section is not None:
            there = bool(section.validation or section.validation_share)
            return f"data.{name}.validation_share", there
    return "data.split.validation", recipe.data.split.validation > 0


def _more(recipe: Recipe, share: str) -> str:
    """The change that holds more out; none where files say how much there is."""
    section = recipe.data.tokens or recipe.data.examples
    if section is None:
        return f"{share}=0.1"
    return "" if section.validation else f"{share}={max(0.1, 2 * section.validation_share):g}"


def dropout(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """Dropout where every text is seen once, or so much of it that little is learned."""
    value, passes = recipe.model.dropout, facts.length.epochs or recipe.train.budget.epochs
    if value > 0.5:
        usual, why = "0 to 0.2", "more than half of all features are noise"
    elif value > 0 and passes is not None and passes <= 1:
        usual, why = "0 for a single pass", "one pass does not over-fit, arXiv 1909.11942"
    else:
        return
    yield Advice("model.dropout", f"{value:g}", usual, why, "model.dropout=0")


def fine_tuning_rate(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """Rates of AdamW far from those that adapters, or trained weights, are tuned with."""
    section = recipe.train.optimizer
    if section.kind not in ("adamw", "adamw_8bit"):
        return
    value, path = section.learning_rate, "train.optimizer.learning_rate"
    # Eight times to both sides, as for training from scratch.
    if recipe.model.adapter is not None and not 1e-4 / 8 <= value <= 2e-4 * 8:
        yield Advice(
            path,
            f"{value:g}",
            "1e-4 to 2e-4",
            "an adapter's; QLoRA's of 65B and of 7B, arXiv 2305.14314, table 9",
            f"{path}=0.0002",
        )
    full = recipe.model.adapter is None and getattr(recipe.model, "weights", None)
    if full and not 1e-5 / 8 <= value <= 1e-5 * 8:
        yield Advice(
            path, f"{value:g}", "about 1e-5", "more unlearns what the weights know", f"{path}=1e-5"
        )


def adapter(recipe: Recipe, facts: Facts) -> Iterator[Advice]:
    """A rank that holds little, a scale far from one, or a base that knows nothing."""
    section = recipe.model.adapter
    if section is None:
        return
    if section.rank < 8:
        yield Advice(
            "model.adapter.rank", f"{section.rank}", "at least 8", "little fits into so few "
            "directions; more cost next to nothing", "model.adapter.rank=8",
        )  # fmt: skip
    ratio = section.alpha / section.rank
    if not section.rslora and not 0.25 <= ratio <= 8:
        yield Advice(
            "model.adapter.alpha",
            f"{section.alpha:g} at rank {section.rank}",
            "1 to 2 times the rank",
            "it multiplies what the adapter adds, as the rate does",
            f"model.adapter.alpha={2 * section.rank}",
        )
    if recipe.model.module is None and not getattr(recipe.model, "weights", None):
        yield Advice(
            "model.adapter",
            "stands beside a base of random weights",
            "a trained base",
            "what is frozen must know something already",
        )


Rule = Callable[[Recipe, Facts], Iterator[Advice]]
RULES: dict[str, Rule] = {
    "learning_rate": learning_rate,
    "warmup": warmup,
    "batch": batch,
    "epochs": epochs,
    "data_size": data_size,
    "weight_decay": weight_decay,
    "betas": betas,
    "clip": clip,
    "context": context,
    "evaluation_size": evaluation_size,
    "dropout": dropout,
    "fine_tuning_rate": fine_tuning_rate,
    "adapter": adapter,
}
