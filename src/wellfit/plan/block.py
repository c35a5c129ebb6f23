"""One block of the transformer on the ledger: what its forward pass keeps, its backward frees.

Every function follows the lines of `model/` in their order, with the lifetimes of Python's local
names and of what autograd saves; a test counts a real step's allocations beside it. Axes: see
`layout.py`.
"""

from __future__ import annotations

from wellfit.plan.layout import Layout
from wellfit.plan.ledger import Ledger
from wellfit.recipe.model_section import GATED


def forward(ledger: Ledger, at: Layout, block: str, x: str) -> str:
    """The block's input by name → its output by name; saved tensors stay, named `block.…`."""
    features = at.tokens * at.width * at.bytes
    norm_forward(ledger, at, f"{block}.n1", x)
    attention_forward(ledger, at, f"{block}.attention", f"{block}.n1.out")
    middle = f"{block}.middle"
    _residual_forward(ledger, at, f"{block}.d1", f"{block}.attention.output.out", middle, features)
    norm_forward(ledger, at, f"{block}.n2", middle)
    feedforward_forward(ledger, at, f"{block}.feedforward")
    out = f"{block}.out"
    _residual_forward(ledger, at, f"{block}.d2", f"{block}.feedforward.down.out", out, features)
    if at.model.norm == "rmsnorm":
        ledger.drop(x, middle)
    else:
        ledger.keep(x, f"{block}.n1.x", "activations")
        ledger.keep(middle, f"{block}.n2.x", "activations")
    return out


def backward(ledger: Ledger, at: Layout, block: str, grad: str, *, fresh: bool) -> str:
    """The gradient of the block's output by name → that of its input; saved tensors go.

    `fresh`: no gradient is held yet, so those made here stay; otherwise they are added in place.
    """
    for number, part in ((2, feedforward_backward), (1, attention_backward)):
        inside = grad
        if at.model.dropout:
            inside = f"{block}.d{number}.grad"
            ledger.hold(inside, "temporaries", at.tokens * at.width * at.bytes)
            ledger.drop(f"{block}.d{number}.kept")
        name = f"{block}.{'feedforward' if number == 2 else 'attention'}"
        # Without dropout the gradient is the residual's own, so it is still needed afterwards.
        part(ledger, at, name, inside, bool(at.model.dropout), fresh, f"{block}.n{number}.out")
        norm_backward(ledger, at, f"{block}.n{number}", f"{name}.grad", fresh=fresh)
        # The residual's gradient and that of the branch are added into a new tensor.
        total = f"{block}.grad{number}"
        ledger.hold(total, "temporaries", at.tokens * at.width * at.bytes)
        ledger.drop(grad, f"{block}.n{number}.grad")
        grad = total
    return grad


# ── norms ──────────────────────────────────────────────────────────────────────────────────


def norm_forward(
    ledger: Ledger, at: Layout, name: str, x: str, heads: int = 0, size: int = 0
) -> None:
    """Features by name → `name.out`; RMSNorm keeps its unit features, LayerNorm its input.

    With `heads` it is the RMSNorm of queries or keys, over each head of `size` numbers in all.
    """
    assert x in ledger.held
    size = size or at.tokens * at.width
    width = at.model.features_per_head if heads else at.width
    if not heads and at.model.norm == "layernorm":
        biased = 2 if at.model.bias else 1
        if at.casts:
            ledger.hold(f"{name}.cast", "casts", biased * width * at.bytes)
        ledger.hold(f"{name}.statistics", "activations", 2 * at.tokens * 4)
    else:
        if at.casts:
            ledger.hold(f"{name}.cast", "casts", width * at.bytes)
        ledger.hold(f"{name}.statistics", "activations", at.tokens * (heads or 1) * at.bytes)
        ledger.touch("temporaries", 2 * at.tokens * (heads or 1) * 4)
        ledger.hold(f"{name}.unit", "activations", size * at.bytes)
    ledger.hold(f"{name}.out", "activations", size * at.bytes)


def norm_backward(
    ledger: Ledger, at: Layout, name: str, grad: str, *, fresh: bool, heads: int = 0, size: int = 0
) -> None:
    """The gradient of `name.out` by name → `name.grad`; what the forward pass kept goes."""
    size = size or at.tokens * at.width
    width = at.model.features_per_head if heads else at.width
    layernorm = not heads and at.model.norm == "layernorm"
    if not layernorm:
        ledger.hold(f"{name}.product", "temporaries", size * at.bytes)
        ledger.hold(f"{name}.scaled", "temporaries", size * at.bytes)
    ledger.hold(f"{name}.grad", "temporaries", size * at.bytes)
    if not layernorm:
        ledger.drop(f"{name}.product", f"{name}.scaled", f"{name}.unit")
    else:
        ledger.drop(f"{name}.x")
    ledger.drop(grad, f"{name}.statistics")
    biased = 2 if layernorm and at.model.bias else 1
    if at.casts:
        ledger.drop(f"{name}.cast")
    if fresh:
        ledger.hold(f"{name}.weight.grad", "gradients", biased * width * 4)


# ── linear layers ──────────────────────────────────────────────────────────────────────────


def linear_forward(ledger: Ledger, at: Layout, name: str, fan_in: int, fan_out: int) -> None:
    """A linear layer → `name.out`, and its weights in the arithmetic, kept for the backward."""
    if at.casts:
        biases = fan_out if at.model.bias else 0
        ledger.hold(f"{name}.cast", "casts", (fan_in * fan_out + biases) * at.bytes)
    ledger.hold(f"{name}.out", "temporaries", at.tokens * fan_out * at.bytes)


def linear_backward(
    ledger: Ledger,
    at: Layout,
    name: str,
    fan_in: int,
    fan_out: int,
    result: str,
    spent: tuple[str, ...],
    fresh: bool,
) -> None:
    """A linear layer's gradients: that of its input by the name `result`; `spent` then go."""
    numbers = fan_in * fan_out + (fan_out if at.model.bias else 0)
    ledger.hold(f"{name}.raw", "temporaries", numbers * at.bytes)
    ledger.hold(result, "temporaries", at.tokens * fan_in * at.bytes)
    ledger.drop(*spent)
    if at.casts:
        ledger.drop(f"{name}.cast")
        ledger.hold(f"{name}.wide", "temporaries", numbers * 4)
        ledger.drop(f"{name}.raw")
        ledger.keep(f"{name}.wide", f"{name}.raw", "temporaries")
    if fresh:
        ledger.keep(f"{name}.raw", f"{name}.weight.grad", "gradients")
    else:
        ledger.drop(f"{name}.raw")


def _residual_forward(
    ledger: Ledger, at: Layout, dropout: str, branch: str, out: str, features: int
) -> None:
    if at.model.dropout:
        ledger.hold(f"{dropout}.kept", "activations", features)
        ledger.hold(f"{dropout}.out", "temporaries", features)
        ledger.drop(branch)
        branch = f"{dropout}.out"
    ledger.hold(out, "temporaries", features)
    ledger.drop(branch)


# ── attention ──────────────────────────────────────────────────────────────────────────────


def attention_forward(ledger: Ledger, at: Layout, name: str, x: str) -> None:
    """Normalised features → `name.output.out`; queries, keys, values and weights are kept."""
    assert x in ledger.held
    query, keys, heads = at.tokens * at.width, at.tokens * at.keys, at.model.heads
    for part, fan_out in (("query", at.width), ("key", at.keys), ("value", at.keys)):
        linear_forward(ledger, at, f"{name}.{part}", at.width, fan_out)
    made = {"query": f"{name}.query.out", "key": f"{name}.key.out"}
    sizes = {"query": (query, heads), "key": (keys, at.model.kv_heads)}
    if at.model.qk_norm:
        for part, (size, count) in sizes.items():
            norm_forward(ledger, at, f"{name}.{part}_norm", made[part], count, size)
            ledger.keep(f"{name}.{part}_norm.out", f"{name}.{part}_norm.temporary", "temporaries")
        ledger.drop(*made.values())
        made = {part: f"{name}.{part}_norm.temporary" for part in made}
    if at.model.position == "rotary":
        for part, (size, _) in sizes.items():
            ledger.hold(f"{name}.{part}.kept", "activations", size * at.bytes)
        ledger.drop(*made.values())
        made = {}
    else:
        for part, (size, _) in sizes.items():
            if _copied(at, part):
                ledger.hold(f"{name}.{part}.kept", "activations", size * at.bytes)
            else:
                ledger.keep(made.pop(part), f"{name}.{part}.kept", "activations")
    if at.score_blocks:
        if _copied(at, "value"):
            ledger.hold(f"{name}.value.kept", "activations", keys * at.bytes)
            made["value"] = f"{name}.value.out"
        else:
            ledger.keep(f"{name}.value.out", f"{name}.value.kept", "activations")
        ledger.hold(f"{name}.joined", "activations", query * at.bytes)
        _scores_forward(ledger, at, name)
    elif at.whole_scores:
        scores = at.rows * heads * at.context * at.context * at.bytes
        ledger.hold(f"{name}.scores", "temporaries", scores)
        ledger.hold(f"{name}.weights", "activations", scores)
        if _copied(at, "value"):
            ledger.hold(f"{name}.value.kept", "activations", keys * at.bytes)
            made["value"] = f"{name}.value.out"
        else:
            ledger.keep(f"{name}.value.out", f"{name}.value.kept", "activations")
        ledger.hold(f"{name}.read", "temporaries", query * at.bytes)
        ledger.drop(f"{name}.scores")
        if heads > 1:
            ledger.hold(f"{name}.joined", "activations", query * at.bytes)
            made["read"] = f"{name}.read"
        else:
            ledger.keep(f"{name}.read", f"{name}.joined", "activations")
    else:
        ledger.keep(f"{name}.value.out", f"{name}.value.kept", "activations")
        ledger.hold(f"{name}.joined", "activations", query * at.bytes)
        if _joined_by_copy(at):
            ledger.hold(f"{name}.tiled", "activations", query * at.bytes)
        ledger.hold(f"{name}.sums", "activations", at.tokens * heads * 4)
    linear_forward(ledger, at, f"{name}.output", at.width, at.width)
    ledger.drop(*made.values())


def attention_backward(
    ledger: Ledger, at: Layout, name: str, grad: str, own: bool, fresh: bool, x: str
) -> None:
    """The gradient of the output by name → `name.grad`, that of the normalised input `x`."""
    query, keys, heads = at.tokens * at.width, at.tokens * at.keys, at.model.heads
    joined = (f"{name}.joined",) if at.whole_scores or _joined_by_copy(at) else ()
    spent = (*joined, *((grad,) if own else ()))
    linear_backward(ledger, at, f"{name}.output", at.width, at.width, f"{name}.read", spent, fresh)
    grads = {"query": query, "key": keys, "value": keys}
    if at.score_blocks:
        copied = at.rows > 1 and at.model.kv_heads > 1
        if copied:
            ledger.hold(f"{name}.laid out", "temporaries", query * at.bytes)
        for part, size in grads.items():
            ledger.hold(f"{name}.{part}.grad", "temporaries", size * at.bytes)
        _scores_backward(ledger, at, name)
        if copied:
            ledger.drop(f"{name}.laid out")
        ledger.drop(f"{name}.read", f"{name}.value.kept")
    elif at.whole_scores:
        scores = at.rows * heads * at.context * at.context * at.bytes
        ledger.touch("temporaries", query * at.bytes)
        ledger.hold(f"{name}.value.grad", "temporaries", keys * at.bytes)
        ledger.hold(f"{name}.weights.grad", "temporaries", scores)
        ledger.drop(f"{name}.read", f"{name}.value.kept")
        ledger.hold(f"{name}.scores.grad", "temporaries", scores)
        ledger.drop(f"{name}.weights", f"{name}.weights.grad")
        # The mask was added in place, so autograd copies the gradient, twice for a moment.
        ledger.hold(f"{name}.copy", "temporaries", scores)
        ledger.touch("temporaries", scores)
        ledger.drop(f"{name}.scores.grad")
        for part in ("query", "key"):
            ledger.hold(f"{name}.{part}.grad", "temporaries", grads[part] * at.bytes)
            ledger.touch("temporaries", grads[part] * at.bytes)
        ledger.drop(f"{name}.copy")
    else:
        for part, size in grads.items():
            ledger.hold(f"{name}.{part}.grad", "temporaries", size * at.bytes)
        output = f"{name}.tiled" if _joined_by_copy(at) else f"{name}.joined"
        ledger.drop(f"{name}.read", output, f"{name}.sums", f"{name}.value.kept")
    ledger.drop(f"{name}.query.kept", f"{name}.key.kept")
    for part in ("key", "query"):
        if at.model.position == "rotary":
            ledger.touch("temporaries", grads[part] * at.bytes)
    if at.model.qk_norm:
        for part, count in (("key", at.model.kv_heads), ("query", heads)):
            norm_backward(
                ledger,
                at,
                f"{name}.{part}_norm",
                f"{name}.{part}.grad",
                fresh=fresh,
                heads=count,
                size=grads[part],
            )
            ledger.keep(f"{name}.{part}_norm.grad", f"{name}.{part}.grad", "temporaries")
    total = ""
    for part in ("value", "key", "query"):
        fan_out = at.width if part == "query" else at.keys
        spent = (f"{name}.{part}.grad", *((x,) if part == "query" else ()))
        result = f"{name}.{part}.back"
        linear_backward(ledger, at, f"{name}.{part}", at.width, fan_out, result, spent, fresh)
        total = _add(ledger, total, result, f"{name}.{part}.sum", at.tokens * at.width * at.bytes)
    ledger.keep(total, f"{name}.grad", "temporaries")


def _copied(at: Layout, part: str) -> bool:
    """Whether laying heads that stand token by token out as matrices needs a copy."""
    if not at.whole_scores:
        return False
    if at.score_blocks:
        return at.model.kv_heads > 1 and at.rows > 1
    if part == "query":
        return at.model.heads > 1 and (at.rows > 1 or at.model.heads > at.model.kv_heads)
    return at.model.kv_heads > 1 and at.rows > 1


def _scores_forward(ledger: Ledger, at: Layout, name: str) -> None:
    """Blocks of queries, as `model/scores.py` has them; their weights are kept."""
    old: list[str] = []
    for number, (queries, seen) in enumerate(at.score_blocks):
        scores = at.rows * at.model.heads * queries * seen * at.bytes
        read = at.rows * queries * at.width * at.bytes
        new = []
        # Queries that share a key head are laid out as rows of one matrix.
        for part, size in (("part", read if at.grouped else 0), ("scores", scores)):
            ledger.hold(f"{name}.{part}{number}", "temporaries", size)
            if old:
                ledger.drop(old.pop(0))
            new.append(f"{name}.{part}{number}")
        ledger.hold(f"{name}.weights{number}", "activations", scores)
        ledger.hold(f"{name}.got{number}", "temporaries", read)
        if old:
            ledger.drop(old.pop(0))
        old = [*new, f"{name}.got{number}"]
    ledger.drop(*old)


def _scores_backward(ledger: Ledger, at: Layout, name: str) -> None:
    old: list[str] = []
    for number, (queries, seen) in enumerate(at.score_blocks):
        scores = at.rows * at.model.heads * queries * seen * at.bytes
        read = at.rows * queries * at.width * at.bytes
        new = []
        laid = read if at.grouped else 0
        for part, size in (("part", laid), ("got", laid), ("slope", scores)):
            ledger.hold(f"{name}.back {part}{number}", "temporaries", size)
            if old:
                ledger.drop(old.pop(0))
            new.append(f"{name}.back {part}{number}")
        ledger.touch("temporaries", scores)
        ledger.hold(f"{name}.back found{number}", "temporaries", read)
        if old:
            ledger.drop(old.pop(0))
        old = [*new, f"{name}.back found{number}"]
    ledger.drop(*old, *(f"{name}.weights{n}" for n in range(len(at.score_blocks))))


def _joined_by_copy(at: Layout) -> bool:
    """Whether joining the heads copies a tiling kernel's output, which has its queries' layout."""
    return at.model.position == "rotary" and at.model.heads > 1


def _add(ledger: Ledger, total: str, more: str, name: str, size: int) -> str:
    """Two gradients of one tensor are added into a new one."""
    if not total:
        return more
    ledger.hold(name, "temporaries", size)
    ledger.drop(total, more)
    return name


# ── feed-forward ───────────────────────────────────────────────────────────────────────────


def feedforward_forward(ledger: Ledger, at: Layout, name: str) -> None:
    """Normalised features → `name.down.out`; what the non-linearity saves is kept."""
    inner = at.tokens * at.hidden * at.bytes
    linear_forward(ledger, at, f"{name}.up", at.width, at.hidden)
    if at.model.activation in GATED:
        linear_forward(ledger, at, f"{name}.gate", at.width, at.hidden)
        ledger.keep(f"{name}.gate.out", f"{name}.gate.kept", "activations")
        if not _made_again(at):
            ledger.hold(f"{name}.active", "activations", inner)
    if at.model.activation == "relu2":
        ledger.hold(f"{name}.positive", "activations", inner)
    else:
        ledger.keep(f"{name}.up.out", f"{name}.up.kept", "activations")
    ledger.hold(f"{name}.inner", "temporaries" if _made_again(at) else "activations", inner)
    linear_forward(ledger, at, f"{name}.down", at.hidden, at.width)
    if _made_again(at):
        ledger.drop(f"{name}.inner")
    if at.model.activation == "relu2":
        ledger.drop(f"{name}.up.out")  # a local name of the function until it returns


def _made_again(at: Layout) -> bool:
    """Whether the backward pass makes the inner features again (see `model/inner.py`)."""
    return at.model.activation in ("swiglu", "relu2") and not at.model.bias


def feedforward_backward(
    ledger: Ledger, at: Layout, name: str, grad: str, own: bool, fresh: bool, x: str
) -> None:
    """The gradient of the output by name → `name.grad`, that of the normalised input `x`."""
    inner, gated = at.tokens * at.hidden * at.bytes, at.model.activation in GATED
    spent = (f"{name}.inner", *((grad,) if own else ()))
    if _made_again(at):
        if gated:
            ledger.hold(f"{name}.active", "temporaries", inner)
        ledger.hold(f"{name}.inner", "temporaries", inner)
    linear_backward(
        ledger, at, f"{name}.down", at.hidden, at.width, f"{name}.inner.grad", spent, fresh
    )
    total = ""
    if gated and _made_again(at):  # in place, but for the gate's
        ledger.keep(f"{name}.active", f"{name}.up.grad", "temporaries")
        ledger.hold(f"{name}.gate.grad", "temporaries", inner)
        ledger.drop(f"{name}.inner.grad", f"{name}.up.kept", f"{name}.gate.kept")
    elif gated:
        ledger.hold(f"{name}.active.grad", "temporaries", inner)
        ledger.hold(f"{name}.up.grad", "temporaries", inner)
        ledger.drop(f"{name}.inner.grad", f"{name}.active", f"{name}.up.kept")
        ledger.hold(f"{name}.gate.grad", "temporaries", inner)
        ledger.drop(f"{name}.active.grad", f"{name}.gate.kept")
    elif _made_again(at):
        ledger.keep(f"{name}.inner.grad", f"{name}.up.grad", "temporaries")
        ledger.drop(f"{name}.positive")
    else:
        kept = f"{name}.positive" if at.model.activation == "relu2" else f"{name}.up.kept"
        ledger.hold(f"{name}.up.grad", "temporaries", inner)
        ledger.drop(f"{name}.inner.grad", kept)
    if gated:
        total = f"{name}.gate.back"
        spent = (f"{name}.gate.grad",)
        linear_backward(ledger, at, f"{name}.gate", at.width, at.hidden, total, spent, fresh)
    result = f"{name}.up.back"
    spent = (f"{name}.up.grad", x)
    linear_backward(ledger, at, f"{name}.up", at.width, at.hidden, result, spent, fresh)
    total = _add(ledger, total, result, f"{name}.sum", at.tokens * at.width * at.bytes)
    ledger.keep(total, f"{name}.grad", "temporaries")
