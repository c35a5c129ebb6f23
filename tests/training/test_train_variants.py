"""An encoder learns what a causal model cannot, and an encoder-decoder what its source says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from train_parts import section

from wellfit.data.batches import Batch
from wellfit.data.corrupt.denoised import denoising
from wellfit.data.corrupt.marks import marks
from wellfit.data.corrupt.masked import masking
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model, Muon, Objective
from wellfit.records import IGNORED
from wellfit.training.optimizers import build
from wellfit.training.stepper import Stepper

SIZE, FIRST = 21, 17
"""Entries of the text: a separator, 16 words that come by chance, 4 that the next word decides."""
CONTEXT, ROWS = 16, 64
CPU = torch.device("cpu")


def pairs(seed: int, rows: int = ROWS) -> Batch:
    """Rows of pairs (a, b): b is one of 16 words by chance, and a = 17 + b mod 4 stands before it.

    From the left nothing is known of an a; from its right neighbour everything.
    """
    draw = np.random.RandomState(seed)
    b = 1 + draw.randint(0, 16, (rows, CONTEXT // 2))
    tokens = np.stack([FIRST + b % 4, b], axis=2).reshape(rows, CONTEXT)
    columns = np.tile(np.arange(CONTEXT), (rows, 1))
    zeros = np.zeros_like(tokens)
    return Batch(tokens, tokens.copy(), columns, zeros, zeros)


def trained(kind: str, batches: list[Batch], vocabulary: int) -> Transformer:
    shape = Model(
        kind=kind, context=CONTEXT, layers=1, width=32, heads=2, kv_heads=2, hidden=64,
        activation="gelu", position="learned",
    )  # fmt: skip
    model = Transformer(shape, vocabulary)
    initialise(model, 0)
    parameters = dict(model.named_parameters())
    made = build(Muon(matrix_learning_rate=0.02, learning_rate=0.02), parameters, model.roles())
    stepper = Stepper(
        section(micro_batch=ROWS),
        model,
        made,
        list(parameters.values()),
        precision="fp32",
        device=CPU,
        seed=0,
    )
    for step, batch in enumerate(batches, 1):
        made.set_share(min(1.0, 2 - 2 * step / len(batches)))
        stepper.take(step, batch)
    model.train(False)
    return model


def test_an_encoder_learns_from_the_right_what_a_causal_model_cannot() -> None:
    """Masked words that the next one decides: 99 % right, and a quarter from the left alone.

    Breaks tried: labels one place early; keep the causal mask in the encoder.
    """
    found = marks("encoder", {}, SIZE, 0)
    hide = masking(Objective(), found, ("rule",))
    batches = [hide(pairs(n), np.arange(ROWS) + ROWS * n) for n in range(200)]
    plain = pairs(10_000, rows=256)
    asked = hide(plain, np.arange(256) + 10**9)
    hidden = (asked.tokens == found.mask) & (asked.labels >= FIRST)
    hidden[:, :-1] &= asked.tokens[:, 1:] == plain.tokens[:, 1:]  # the one that decides is seen
    hidden[:, -1] = False
    assert hidden.sum() > 100
    right = {}
    for kind, count in (("encoder", 200), ("decoder", 100)):
        model = trained(kind, batches[:count], found.vocabulary_size)
        with torch.no_grad():
            logits = model.logits(model.hidden(torch.from_numpy(asked.tokens)))
        guesses = logits.argmax(-1).numpy()
        right[kind] = float((guesses == asked.labels)[hidden].mean())
    assert right["encoder"] >= 0.99
    assert right["decoder"] <= 0.4


def test_an_encoder_decoder_writes_what_its_source_decides() -> None:
    """Of a span it knows the words that the source still decides; without the source nothing.

    Breaks tried: leave the source out of the step; swap the sources of two rows.
    """
    found = marks("encoder_decoder", {}, SIZE, 0)
    # Single words leave, so that the one that decides an a is always there.
    hide = denoising(Objective(span_length=1.0), found, ("rule",))
    batches = [hide(pairs(n), np.arange(ROWS) + ROWS * n) for n in range(200)]
    asked = hide(pairs(10_000, rows=256), np.arange(256) + 10**9)
    model = trained("encoder_decoder", batches, found.vocabulary_size)
    source = asked.source
    assert source is not None

    def right(order: np.ndarray) -> float:
        arrays = (source.tokens[order], source.positions[order], source.segments[order])
        read = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        places = (torch.from_numpy(asked.positions), torch.from_numpy(asked.segments))
        with torch.no_grad():
            tokens = torch.from_numpy(asked.tokens)
            logits = model.logits(model.hidden(tokens, *places, source=read))
        told = (asked.labels >= FIRST) & (asked.labels < SIZE)
        return float((logits.argmax(-1).numpy() == asked.labels)[told].mean())

    rows = np.arange(256)
    assert right(rows) >= 0.97
    assert right(np.roll(rows, 1)) <= 0.45


def test_a_batch_without_a_source_is_not_what_an_encoder_decoder_trains_on() -> None:
    """Rather an error than a decoder that reads nothing. Break tried: read zeros instead."""
    found = marks("encoder_decoder", {}, SIZE, 0)
    whole = denoising(Objective(), found, ("rule",))(pairs(0), np.arange(ROWS))
    assert (whole.labels != IGNORED).any()
    try:
        trained("encoder_decoder", [replace(whole, source=None)], found.vocabulary_size)
    except AssertionError as error:
        assert "no source to read" in str(error)
    else:
        raise AssertionError("it trained")
