"""Held-out scores against a plain computation, one document at a time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from wellfit.errors import DataError
from wellfit.evaluation.loss import choose_documents, evaluate
from wellfit.evaluation.ratio import ratio

LENGTHS = [7, 40, 1, 16, 3, 16, 90, 2, 33, 5, 64, 12]


def scores(model: Any, data: Any, **changes: Any) -> Any:
    rows, table, _ = data
    given = {"step": 3, "split": "validation", "micro_batch": 4, **changes}
    return evaluate(model, rows, table, **given)


def plainly(model: Any, data: Any) -> np.ndarray:
    """[documents, 3]: nats, right guesses and labels of each, each stretch of a row by itself."""
    _, table, stream = data
    model.eval()
    sums = np.zeros((len(table), 3))
    for number, first in enumerate(table.first_token):
        end = first + table.tokens[number]
        cuts = [first, *range((first // 16 + 1) * 16, end, 16), end]
        for start, stop in pairwise(cuts):
            labels = torch.tensor(stream[start + 1 : stop + 1])
            if not len(labels):
                continue
            inputs = torch.tensor(stream[start : start + len(labels)])[None]
            with torch.no_grad():
                logits = model.logits(model.hidden(inputs))[0]
            sums[number, 0] += functional.cross_entropy(logits, labels, reduction="sum").item()
            sums[number, 1] += int((logits.argmax(-1) == labels).sum())
            sums[number, 2] += len(labels)
    model.train()
    return sums


def test_every_number_equals_the_plain_computation(model: Any, make_documents: Any) -> None:
    """Breaks when a document's separator is counted to its neighbour, or bytes to tokens."""
    data = make_documents(LENGTHS)
    table = data[1]
    found = scores(model, data)
    nats, right, tokens = plainly(model, data).T
    assert found.tokens == tokens.sum() == sum(LENGTHS) - 1
    assert found.bytes == table.bytes.sum()
    assert found.documents == len(LENGTHS)
    assert found.loss == pytest.approx(nats.sum() / tokens.sum(), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    bits = nats.sum() / math.log(2) / table.bytes.sum()
    assert found.bits_per_byte == pytest.approx(bits, rel=1e-6)
    assert found.accuracy == right.sum() / tokens.sum()
    assert found.loss_se == pytest.approx(ratio(nats, tokens)[1], rel=1e-4)
    assert found.accuracy_se == pytest.approx(ratio(right, tokens)[1], rel=1e-4)
    assert found.bits_per_byte_se == pytest.approx(
        ratio(nats / math.log(2), table.bytes)[1], rel=1e-4
    )
    assert (found.step, found.split) == (3, "validation")
    assert found.seconds > 0


def test_domains_are_parts_of_the_whole(model: Any, make_documents: Any) -> None:
    """Breaks when a domain's loss is a mean of documents' losses."""
    data = make_documents(LENGTHS)
    found = scores(model, data)
    nats, right, tokens = plainly(model, data).T
    assert list(found.by_domain) == ["code", "prose"]
    for domain, part in found.by_domain.items():
        inside = data[1].domain == domain
        size = data[1].bytes[inside].sum()
        assert part == {
            "loss": pytest.approx(nats[inside].sum() / tokens[inside].sum(), rel=1e-6),
            "bits_per_byte": pytest.approx(nats[inside].sum() / math.log(2) / size, rel=1e-6),
            "accuracy": right[inside].sum() / tokens[inside].sum(),
            "tokens": tokens[inside].sum(),
            "bytes": size,
        }


@pytest.mark.parametrize("tokens", [1, 50, 150])
def test_a_cap_scores_whole_documents(model: Any, make_documents: Any, tokens: int) -> None:
    """Tokens, bytes and nats of the chosen ones only. Breaks when a row's other documents count."""
    data = make_documents(LENGTHS)
    found = scores(model, data, tokens=tokens)
    chosen = choose_documents(data[1].tokens, tokens)
    nats, _, counts = plainly(model, data)[chosen].T
    assert 0 < found.documents == len(chosen) < len(LENGTHS)
    assert found.tokens == counts.sum()
    assert found.bytes == data[1].bytes[chosen].sum()
    assert found.loss == pytest.approx(nats.sum() / counts.sum(), rel=1e-6)


def test_a_cap_reads_only_the_rows_it_needs(model: Any, make_documents: Any) -> None:
    """Breaks when all rows are computed and most of them thrown away."""
    data = make_documents([64] * 40)
    rows, table, _ = data
    read: list[int] = []
    counting: Any = type(
        "Counting",
        (),
        {
            "of_examples": False,
            "whole": True,
            "holding": lambda self, documents: rows.holding(documents),
            "row": lambda self, indices: (read.extend(indices), rows.row(indices))[1],
        },
    )()
    found = evaluate(model, counting, table, step=0, split="validation", micro_batch=4, tokens=600)
    assert found.documents == 10
    assert len(read) == len(set(read)) == 10 * 64 // 16


def test_chosen_documents_are_spread_evenly() -> None:
    """Any beginning of the order leaves no gap over three times the even one."""
    lengths = np.full(1000, 10)
    for tokens in (100, 370, 2000, 5000):
        chosen = choose_documents(lengths, tokens)
        assert len(chosen) == tokens // 10
        gaps = np.diff([-1, *chosen, 1000])
        assert gaps.max() <= 3 * 10_000 / tokens
    assert choose_documents(lengths, 0).tolist() == list(range(1000))
    assert choose_documents(lengths, 10_000).tolist() == list(range(1000))
    assert len(choose_documents(lengths, 9_999)) == 1000


@pytest.mark.parametrize("micro_batch", [1, 3, 100])
def test_micro_batch_changes_nothing_but_rounding(
    model: Any, make_documents: Any, micro_batch: int
) -> None:
    data = make_documents(LENGTHS)
    found, expected = scores(model, data, micro_batch=micro_batch), scores(model, data)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert (found.tokens, found.accuracy) == (expected.tokens, expected.accuracy)


def test_twice_the_same_with_dropout_off_and_the_mode_restored(
    model: Any, make_documents: Any
) -> None:
    """The model has dropout 0.4 and no key. Breaks when it stays in training mode."""
    data = make_documents(LENGTHS)
    for training in (True, False):
        model.train(training)
        first, second = scores(model, data), scores(model, data)
        assert (first.loss, first.loss_se, first.by_domain) == (
            second.loss,
            second.loss_se,
            second.by_domain,
        )
        assert model.training is training
    assert all(weight.grad is None for weight in model.parameters())


def test_the_mode_is_restored_after_a_failure(model: Any, make_documents: Any) -> None:
    """Breaks when the mode is set back only at the end of a good evaluation."""
    rows, table, _ = make_documents(LENGTHS)
    rows.stream = rows.stream + 1000  # ids outside of the vocabulary
    model.train()
    with pytest.raises(IndexError):
        evaluate(model, rows, table, step=0, split="validation", micro_batch=4)
    assert model.training


def test_a_broken_model_shows_its_nan(model: Any, make_documents: Any) -> None:
    """Breaks when NaN losses are left out of the mean."""
    with torch.no_grad():
        model.embedding.weight[5] = torch.nan
    found = scores(model, make_documents(LENGTHS))
    assert math.isnan(found.loss) and math.isnan(found.perplexity)


def test_a_huge_loss_gives_infinite_perplexity(model: Any, make_documents: Any) -> None:
    with torch.no_grad():
        model.head.weight.mul_(1e5)
    found = scores(model, make_documents(LENGTHS))
    assert found.loss > 1000 and found.perplexity == math.inf


def test_one_document_has_no_standard_error(model: Any, make_documents: Any) -> None:
    found = scores(model, make_documents([20]))
    assert found.documents == 1 and math.isnan(found.loss_se) and found.loss > 0


def test_an_empty_split_is_told(model: Any, make_documents: Any) -> None:
    with pytest.raises(DataError) as error:
        scores(model, make_documents([]))
    assert str(error.value) == (
        "split validation: there are no tokens to score\n  Give the split a larger share of the "
        "data (data.split), or more data."
    )


def test_bf16_is_the_callers_choice(model: Any, make_documents: Any) -> None:
    """Breaks when evaluation casts back to float32 on its own."""
    data = make_documents(LENGTHS)
    exact = scores(model, data)
    model.compute_dtype = torch.bfloat16
    rounded = scores(model, data)
    assert rounded.loss != exact.loss
    assert rounded.loss == pytest.approx(exact.loss, rel=0.03)
