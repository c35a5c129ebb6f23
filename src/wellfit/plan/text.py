"""A plan → lines for a person. GB are 10⁹ bytes, GiB 2³⁰; both stand where memory is compared."""

from __future__ import annotations

from wellfit.plan.ledger import KINDS, Kind, Peak
from wellfit.plan.plan import Plan

UNKNOWN = "unknown"


def plan_text(plan: Plan) -> str:
    """A plan → the whole page that `wellfit plan` prints."""
    lines = [*_head(plan), *_memory(plan), *_time(plan), *_disk(plan), *_thumb(plan)]
    if plan.changes:
        lines += _changes(plan)
    elif plan.fits is False:
        lines.append("No change within reach makes it fit: take a smaller model.size.")
    return "\n".join([*lines, *advice_lines(plan)])


def plan_lines(plan: Plan) -> list[str]:
    """A plan → the two or three lines that stand before a training."""
    step = plan.memory.step
    kinds = ", ".join(f"{kind} {size(count)}" for kind, count in _kinds(step)[:4])
    lines = [
        f"Plan: memory {_answer(plan)}",
        f"  at the fullest moment ({step.moment}): {kinds}",
    ]
    if plan.hours and plan.speed.tokens_per_second:
        lines.append(f"  {_range(plan.speed.tokens_per_second, '{:,.0f}')} tokens/s expected")
    return lines


def advice_lines(plan: Plan) -> list[str]:
    """A plan → its advice under a heading, one line each; nothing where there is none."""
    return ["Advice", *(f"  {advice}" for advice in plan.advice)] if plan.advice else []


def _answer(plan: Plan) -> str:
    there = plan.machine.memory
    answer = {True: "fits", False: "DOES NOT FIT", None: "whether it fits is not known"}[plan.fits]
    of = "" if there is None else f" of {size(there)} ({there / 2**30:.1f} GiB)"
    guide = f" (not counted: {', '.join(plan.uncounted)})" if plan.uncounted else ""
    return f"{size(plan.memory.bytes)}{of}: {answer}{guide}"


def _kinds(peak: Peak) -> list[tuple[Kind, int]]:
    """Kinds that hold bytes, the largest first."""
    held = [(kind, count) for kind, count in peak.by_kind.items() if count]
    return sorted(held, key=lambda row: -row[1])


def size(count: float) -> str:
    """Bytes → three figures and a unit.

    >>> size(13_476_831_232), size(1_500), size(12)
    ('13.5 GB', '1.50 kB', '12 B')
    """
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            value = count / scale
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
    return f"{count:.0f} B"


def span(hours: float) -> str:
    """Hours → a length of time in the unit that suits it.

    >>> span(0.005), span(0.5), span(30), span(300)
    ('18 seconds', '30 minutes', '30.0 hours', '12.5 days')
    """
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} seconds"
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 72 else f"{hours / 24:.1f} days"


def _head(plan: Plan) -> list[str]:
    parameters = UNKNOWN if plan.parameters is None else f"{plan.parameters:,}"
    return [
        f"Plan of {plan.name}: {parameters} parameters, vocabulary {plan.vocabulary_size:,} "
        f"({plan.vocabulary_origin}), on {plan.machine.name} in {plan.precision}"
    ]


def _memory(plan: Plan) -> list[str]:
    step = plan.memory.step
    rows: list[tuple[str, ...]] = [
        (kind, size(count), f"{count / step.bytes:.0%}", KINDS[kind])
        for kind, count in _kinds(step)
    ]
    lines = [f"Memory {_answer(plan)}", *_table(rows)]
    lines.append(f"  together {size(step.bytes)} at the fullest moment of a step: {step.moment}")
    others = "; ".join(f"{peak.moment} {size(peak.bytes)}" for peak in plan.memory.moments)
    lines.append(f"  other moments: {others}")
    lines.append(
        f"  evaluation {size(plan.memory.evaluation)}, samples {size(plan.memory.sampling)} "
        f"with a cache of {size(plan.memory.cache)}"
    )
    where = "beside them" if plan.machine.device == "cpu" else "in main memory"
    beside = ", ".join(f"{name} {size(count)}" for name, count in plan.memory.beside.items())
    lines.append(f"  {where}: {beside}")
    if plan.machine.device == "cuda":
        lines.append(
            f"  on the GPU beside them: context and libraries {size(plan.memory.overhead)} "
            "(allowance)"
        )
    return lines


def _time(plan: Plan) -> list[str]:
    speed, long = plan.speed, plan.length
    passes = "one pass" if long.micro_batches == 1 else f"{long.micro_batches} passes"
    lines = [
        f"Step {long.batch_tokens:,} tokens: {long.rows} rows in {passes}; "
        f"{_flops(speed.flops_per_token)} a token, "
        f"{_flops(speed.step_flops)} a step"
    ]
    if speed.tokens_per_second and speed.step_seconds:
        lines.append(
            f"  {_range(speed.tokens_per_second, '{:,.0f}')} tokens/s, "
            f"{_range(speed.step_seconds, '{:.3g}')} s a step"
        )
    lines.append(f"  speed: {speed.origin}")
    steps = UNKNOWN if long.steps is None else f"{long.steps:,}"
    plural = "step" if long.steps == 1 else "steps"
    tokens = UNKNOWN if long.tokens is None else f"{long.tokens:,}"
    lines.append(f"Run {steps} {plural}, {tokens} tokens{_passes(plan)}")
    if plan.hours:
        cost = f", {_range(plan.cost, '{:,.2f}')} at that price" if plan.cost else ""
        low, high = span(plan.hours[0]), span(plan.hours[1])
        lines.append(f"  training {low if low == high else f'{low} to {high}'}{cost}")
    else:
        lines.append(f"  time {UNKNOWN}")
    lines.append(f"First bottleneck: {plan.bottleneck.name}: {plan.bottleneck.why}")
    return lines


def _passes(plan: Plan) -> str:
    long = plan.length
    parts = []
    if long.epochs is not None and long.steps_per_epoch is not None:
        parts.append(f"{long.epochs:.2f} epochs of {long.steps_per_epoch:,.1f} updates")
    if long.padding_share:
        parts.append(f"{long.padding_share:.2%} of the places are padding")
    if long.tokens_per_parameter is not None:
        parts.append(
            f"{long.tokens_per_parameter:.3g} tokens a parameter "
            "(compute-optimal is about 20, arXiv 2203.15556)"
        )
    return "".join(f"; {part}" for part in parts)


def _disk(plan: Plan) -> list[str]:
    shards = plan.disk["shards"]
    one, several = plan.disk["checkpoint"], plan.disk["checkpoints"]
    return [
        f"Disk: a checkpoint {UNKNOWN if one is None else size(one)}, "
        f"{UNKNOWN if several is None else size(several)} while the next is written; shards "
        f"{UNKNOWN + ' until the corpus is built' if shards is None else size(shards)}"
    ]


def _thumb(plan: Plan) -> list[str]:
    if not plan.optimizers:
        return []
    optimizers: list[tuple[str, ...]] = [
        (name, size(count), what) for name, count, what in plan.optimizers
    ]
    rules = [(name, size(count)) for name, count in plan.thumb.items()]
    return [
        *(["Rules of thumb for as many parameters, without activations"] if rules else []),
        *_table(list[tuple[str, ...]](rules)),
        "State of optimizers for these tensors",
        *_table(optimizers),
    ]


def _changes(plan: Plan) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for change in plan.changes:
        slower = f"{change.slowdown:+.0%} time a token"
        cost = slower if abs(change.slowdown) >= 0.005 else "same speed"
        effect = "same result" if change.same_result else "another training"
        rows.append((" ".join(change.patch), size(change.bytes), cost, effect))
    return ["It fits with one of these (speed estimated)", *_table(rows)]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of text → aligned lines: the first and the last column to the left, others right."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(rows[0]) - 1
    lines = []
    for row in rows:
        cells = [
            cell.ljust(widths[i]) if i == 0 or i == last > 1 else cell.rjust(widths[i])
            for i, cell in enumerate(row)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _range(pair: tuple[float, float] | None, form: str) -> str:
    assert pair is not None
    low, high = form.format(pair[0]), form.format(pair[1])
    return low if low == high else f"{low} to {high}"


def _flops(count: float | None) -> str:
    if count is None:
        return f"{UNKNOWN} FLOP"
    for unit, scale in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:,.0f} FLOP"
