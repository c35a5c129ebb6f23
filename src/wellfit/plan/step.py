"""One optimizer step on the ledger: micro-batches forward and backward, then the update.

Follows `training/step.py` and `model/transformer.py`; axes: see `layout.py`.
"""

from __future__ import annotations

from dataclasses import replace

from wellfit.plan import block as blocks
from wellfit.plan.layout import Layout
from wellfit.plan.ledger import Ledger
from wellfit.plan.optimizers import PLAYS, state_bytes
from wellfit.recipe.schema import Optimizer
from wellfit.recipe.shapes import shape_table


def play_step(at: Layout, optimizer: Optimizer, rows: int) -> Ledger:
    """A layout, an optimizer and the rows of a step → the ledger after the step has been played."""
    ledger = Ledger()
    table = shape_table(at.model, at.vocabulary)
    ledger.hold("weights", "weights", 4 * sum(shape.parameters for shape in table))
    ledger.hold("optimizer", "optimizer", state_bytes(optimizer, table))
    parts = [min(at.rows, rows - first) for first in range(0, rows, at.rows)]
    # From the second micro-batch on nothing new happens, except that the last may be smaller.
    parts = parts[:2] if len(parts) > 1 and parts[1] == at.rows else parts
    for number, part in enumerate(parts):
        play_micro_batch(ledger, replace(at, rows=part), number)
    ledger.drop("hidden", "losses")
    ledger.at("update")
    PLAYS[optimizer.kind](ledger, table, promotes=at.device == "cpu", native=at.native)
    return ledger


def play_micro_batch(ledger: Ledger, at: Layout, number: int) -> None:
    """Forward, loss and backward of micro-batch `number`; gradients stay, the rest goes.

    `hidden` and `losses` stay as well until the next micro-batch has its own, since the loop's
    names still hold them.
    """
    fresh = number == 0
    features = at.tokens * at.width * at.bytes
    ledger.at("forward")
    if at.device != "cpu":  # a CPU shares the arrays of the batch
        ledger.hold("batch", "batch", at.tokens * 8 * (4 if at.masked else 2))
    _mask(ledger, at)
    _embed(ledger, at, features)
    x = "x"
    for layer in range(at.model.layers):
        x = _forward(ledger, at, f"{layer}", x)
    blocks.norm_forward(ledger, at, "final", x)
    if at.model.norm == "layernorm":
        ledger.keep(x, "final.x", "activations")
    else:
        ledger.drop(x)
    if at.mask_bytes and at.whole_scores:  # a tiling kernel keeps it for its backward
        ledger.drop("mask")
    if at.model.position == "rotary" and at.casts:
        ledger.drop("wide cosine", "wide sine")
    if not fresh:
        ledger.drop("hidden")
    ledger.keep("final.out", "hidden", "activations")
    loss_forward(ledger, at, fresh)
    ledger.at("backward of the loss")
    grad = _loss_backward(ledger, at, fresh)
    ledger.at("backward")
    blocks.norm_backward(ledger, at, "final", grad, fresh=fresh)
    grad = "final.grad"
    for layer in reversed(range(at.model.layers)):
        if at.recompute == "full":
            _again(ledger, at, f"{layer}")
        grad = blocks.backward(ledger, at, f"{layer}", grad, fresh=fresh)
    if at.mask_bytes and not at.whole_scores:
        ledger.drop("mask")
    if at.model.position == "rotary":
        ledger.drop("cosine", "sine")
    _embed_backward(ledger, at, grad, fresh)
    if at.device != "cpu":
        ledger.drop("batch")


def _forward(ledger: Ledger, at: Layout, block: str, x: str) -> str:
    """A block whose activations stay, or of which the input alone does."""
    if at.recompute != "full":
        return blocks.forward(ledger, at, block, x)
    ledger.keep(x, f"input of {block}", "activations")
    ledger.hold("x again", "temporaries", 0)
    out = blocks.forward(ledger, at, block, "x again")
    ledger.keep(out, f"out of {block}", "temporaries")
    ledger.drop(*[name for name in ledger.held if name.startswith(f"{block}.")])
    return f"out of {block}"


def _again(ledger: Ledger, at: Layout, block: str) -> None:
    """The block is computed again from its input; what comes out of it is not needed."""
    ledger.hold("x again", "temporaries", 0)
    ledger.drop(blocks.forward(ledger, at, block, "x again"))
    ledger.drop(f"input of {block}")


def _mask(ledger: Ledger, at: Layout) -> None:
    if not at.mask_bytes:
        return
    flags = at.mask_bytes // at.bytes
    ledger.hold("visible", "temporaries", flags)
    ledger.touch("temporaries", flags)
    ledger.hold("hidden places", "temporaries", flags)
    ledger.hold("mask", "mask", at.mask_bytes)
    ledger.drop("visible", "hidden places")


def _embed(ledger: Ledger, at: Layout, features: int) -> None:
    wide = at.tokens * at.width * 4
    ledger.hold("embedded", "temporaries", wide)
    # Without documents in a row all rows share their positions.
    placed = at.tokens if at.masked else at.context
    if at.model.position == "learned":
        ledger.hold("places", "temporaries", placed * at.width * 4)
        ledger.hold("sum", "temporaries", wide)
        ledger.drop("embedded", "places")
        ledger.keep("sum", "embedded", "temporaries")
    else:
        angles = placed * at.model.features_per_head // 2
        for part in ("cosine", "sine"):
            ledger.hold(part, "activations", angles * at.bytes)
            if at.casts:  # the float32 ones are local names until the forward pass returns
                ledger.hold(f"wide {part}", "temporaries", angles * 4)
    if at.casts:
        ledger.hold("x", "temporaries", features)
        ledger.drop("embedded")
    else:
        ledger.keep("embedded", "x", "temporaries")
    if at.model.dropout:
        ledger.hold("kept", "activations", features)
        ledger.hold("dropped out", "temporaries", features)
        ledger.drop("x")
        ledger.keep("dropped out", "x", "temporaries")


def _embed_backward(ledger: Ledger, at: Layout, grad: str, fresh: bool) -> None:
    if at.model.dropout:
        ledger.hold("undropped", "temporaries", at.tokens * at.width * at.bytes)
        ledger.drop(grad, "kept")
        grad = "undropped"
    if at.casts:
        ledger.hold("wide grad", "temporaries", at.tokens * at.width * 4)
        ledger.drop(grad)
        grad = "wide grad"
    table = at.vocabulary * at.width * 4
    if at.model.position == "learned":
        _gradient(ledger, "positions.grad", at.context * at.width * 4, fresh)
    # A tied one is added to that of the head, which waited for it.
    _gradient(ledger, "embedding.grad", table, fresh and not at.model.tie_embeddings)
    ledger.drop(grad)
    if at.model.tie_embeddings and not fresh:
        ledger.drop("new head.grad")


def _gradient(ledger: Ledger, name: str, size: int, stays: bool) -> None:
    if stays:
        ledger.hold(name, "gradients", size)
    else:
        ledger.touch("gradients", size)


def loss_forward(ledger: Ledger, at: Layout, fresh: bool, trains: bool = True) -> None:
    """Chunk by chunk: logits, then their log-softmax in float32, and on a CPU both gradients.

    The features are held by the caller; `losses` stay, and for the backward pass the head's cast
    and the gradients.
    """
    ledger.at("forward of the loss")
    at_once = trains and at.device == "cpu"
    if at.casts:
        ledger.hold("head.cast", "casts", at.vocabulary * at.width * at.bytes)
    if at.model.width_ratio != 1:
        ledger.hold("output features", "activations", at.tokens * at.width * at.bytes)
    ledger.hold("new losses", "activations", at.tokens * 4)
    if at_once:
        ledger.hold("hidden.grad", "temporaries", at.tokens * at.width * at.bytes)
        ledger.hold("new head.grad", "gradients", at.vocabulary * at.width * 4)
    for rows in at.chunks:
        _chunk(ledger, at, rows, pulls=at_once)
        if at_once:
            ledger.touch("temporaries", rows * at.width * at.bytes)
            _head_gradient(ledger, at)
            ledger.drop("pull")
    if not fresh:
        ledger.drop("losses")
    ledger.keep("new losses", "losses", "activations")


def _chunk(ledger: Ledger, at: Layout, rows: int, *, pulls: bool) -> None:
    """A chunk's logits, and with `pulls` what is left of them: the losses' gradient by them."""
    numbers = rows * at.vocabulary
    ledger.hold("logits", "logits", numbers * at.bytes)
    if at.casts:
        ledger.hold("wide logits", "logits", numbers * 4)
        ledger.drop("logits")
        ledger.keep("wide logits", "logits", "logits")
    if pulls and at.model.logit_soft_cap:
        ledger.hold("bend", "logits", numbers * 4)
        ledger.touch("logits", numbers * 4)
    ledger.hold("likely", "logits", numbers * 4)
    ledger.drop("logits")
    if pulls and at.casts:
        ledger.hold("pull", "logits", numbers * at.bytes)
    elif pulls:
        ledger.keep("likely", "pull", "logits")
    if pulls and at.model.logit_soft_cap:
        ledger.drop("bend")
    if at.casts or not pulls:
        ledger.drop("likely")


def _head_gradient(ledger: Ledger, at: Layout) -> None:
    """A chunk's part of the head's gradient, before it is added."""
    ledger.hold("part", "temporaries", at.vocabulary * at.width * at.bytes)
    if at.promotes:
        ledger.touch("temporaries", at.vocabulary * at.width * 4)
    ledger.drop("part")


def _loss_backward(ledger: Ledger, at: Layout, fresh: bool) -> str:
    """The gradients, scaled where they stand, or made of the logits once more; → the features'."""
    if at.device == "cpu":
        ledger.touch("temporaries", at.tokens * (1 + 4))
    else:
        _loss_again(ledger, at)
    if at.casts:
        ledger.drop("head.cast")
    if fresh:
        ledger.keep("new head.grad", "head.grad", "gradients")
    elif not at.model.tie_embeddings:  # a tied one waits for the embedding's own gradient
        ledger.drop("new head.grad")
    if at.model.width_ratio == 1:
        return "hidden.grad"
    ledger.drop("output features")
    ledger.hold("features.grad", "temporaries", at.tokens * at.width * at.bytes)
    ledger.drop("hidden.grad")
    return "features.grad"


def _loss_again(ledger: Ledger, at: Layout) -> None:
    features = at.tokens * at.width
    ledger.hold("factor", "temporaries", at.tokens * 4)
    _scale(ledger, at, features)
    ledger.hold("scaled", "temporaries", features * at.bytes)
    ledger.hold("hidden.grad", "temporaries", features * at.bytes)
    ledger.hold("new head.grad", "gradients", at.vocabulary * at.width * 4)
    for rows in at.chunks:
        _chunk(ledger, at, rows, pulls=True)
        ledger.hold("part", "temporaries", rows * at.width * at.bytes)
        _scale(ledger, at, rows * at.width)
        ledger.drop("part")
        _head_gradient(ledger, at)
        ledger.drop("pull")
    ledger.drop("scaled", "factor")


def _scale(ledger: Ledger, at: Layout, numbers: int) -> None:
    """Numbers of the arithmetic times float32 ones give float32."""
    if at.promotes:
        ledger.hold("promoted", "temporaries", numbers * 4)
    ledger.touch("temporaries", numbers * 4)
    if at.promotes:
        ledger.drop("promoted")
