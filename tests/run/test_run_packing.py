"""Best-fit packing through all of wellfit: checked, trained, killed, refused, shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_guests import guest_recipe, write_tokens

from wellfit.data.build import build_corpus
from wellfit.data.packing.rows import PackedRows
from wellfit.errors import RecipeError
from wellfit.recipe.load import load_recipe, parse_recipe
from wellfit.records import Event, Saved, Step
from wellfit.run.parts import first_model, held_out_rows, training_batches
from wellfit.run.plan import built_corpus, counts_of, packings_of, plan_of_run
from wellfit.run.vocabulary import vocabulary_of
from wellfit.run.weights import open_corpus
from wellfit.training.loop import train

BEST_FIT = "data.packing=best_fit"


@pytest.fixture(scope="module")
def corpus(tiny_home: Path) -> Any:
    return open_corpus(tiny_home / "runs" / "tiny")


def recipe_of(home: Path, *changes: str, packing: str = "best_fit") -> Any:
    folder = f"data.folder={home / 'corpora' / 'tiny'}"
    both = (folder, f"data.packing={packing}", "train.proofs=off")
    return load_recipe(home / "tiny.yaml", (*both, *changes))


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_stopped_and_resumed_is_bit_for_bit_the_same(
    kind: str, tiny_home: Path, corpus: Any, tmp_path: Path
) -> None:
    """With the batches of a new process, and what a step counts is what it was taught.

    Breaks tried: the packing drawn anew in each process; places counted in place of labels; an
    epoch of the stream's rows.
    """
    recipe = recipe_of(tiny_home, f"model.kind={kind}", "train.budget.steps=12", "seed=5")

    def records(folder: Path, resume: bool = False) -> Any:
        return train(
            recipe.train,
            first_model(recipe, vocabulary_of(recipe, corpus)),
            training_batches(recipe, corpus),
            folder=folder,
            seed=recipe.seed,
            evaluate_every=100,
            sample_every=100,
            resume=resume,
        )

    whole = list(records(tmp_path / "whole"))
    for record in (running := records(tmp_path / "cut")):
        if isinstance(record, Step) and record.step == 10:
            running.close()
            break
    rest = list(records(tmp_path / "cut", resume=True))
    weights = [[r.sha256 for r in some if isinstance(r, Saved)][-1] for some in (whole, rest)]
    assert weights[0] == weights[1]
    assert [r.step for r in rest if isinstance(r, Step)] == [11, 12]
    batches = training_batches(recipe, corpus)
    for step in (r for r in whole if isinstance(r, Step)):
        labels = batches.batch(step.step).labels
        assert step.supervised_tokens == int((labels >= 0).sum())
    started = next(r for r in whole if isinstance(r, Event) and r.kind == "started")
    assert started.data["steps_per_epoch"] == PackedRows(corpus, "train", 64).full / 8


@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_packed_documents_are_as_if_alone(position: str, tiny_home: Path, corpus: Any) -> None:
    """Logits of each piece of a real row, padding beside it, equal those of the piece by itself.

    Breaks tried: segments all 0; positions that run on through the row (which rotary ones forgive:
    they are relative).
    """
    changes = ("model.context=2048", "train.batch_tokens=8192", f"model.position={position}")
    recipe = recipe_of(tiny_home, *changes)
    model = first_model(recipe, vocabulary_of(recipe, corpus))
    rows = PackedRows(corpus, "train", 2048)
    every = rows.plain(range(rows.full))
    owners = [np.unique(row) for row in every.documents]  # a row holds one piece of a document
    number = next(n for n, found in enumerate(owners) if found[0] < 0 and len(found) > 2)
    batch = rows.plain([number])
    places = torch.from_numpy(batch.positions), torch.from_numpy(batch.segments)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weights in model.named_parameters():  # the first ones hide what attention reads
            weights += 0.1 * torch.randn(weights.shape, generator=draw)
        together = model.logits(model.hidden(torch.from_numpy(batch.tokens), *places))[0]
        for owner in owners[number]:
            here = np.flatnonzero(batch.documents[0] == owner)
            alone = model.logits(model.hidden(torch.from_numpy(batch.tokens[:, here])))[0]
            torch.testing.assert_close(together[here], alone, atol=2e-5, rtol=1e-4)


def test_held_out_scores_do_not_hang_on_the_packing(tiny_home: Path, corpus: Any) -> None:
    """The same rows, every token once, whatever is trained on. Break tried: packed ones."""
    stream, packed = (
        held_out_rows(recipe_of(tiny_home, packing=name), corpus, "validation")
        for name in ("stream", "best_fit")
    )
    one, two = stream.row(range(len(stream))), packed.row(range(len(packed)))
    assert np.array_equal(one.tokens, two.tokens) and np.array_equal(one.labels, two.labels)


def test_plan_and_batches_agree(tiny_home: Path, corpus: Any) -> None:
    """Steps of an epoch, padding, and the corpus, which is not built again for another packing.

    Breaks tried: the plan counts rows of the stream, or no padding; the packing decides about the
    corpus.
    """
    recipe = recipe_of(tiny_home, "train.budget={epochs: 2}")
    batches = training_batches(recipe, corpus)
    found = built_corpus(recipe)
    assert found is not None and found.digest == corpus.digest
    planned = plan_of_run(recipe, corpus).length
    per_epoch = batches.rows_per_epoch / 8
    assert planned.steps_per_epoch == per_epoch and planned.epochs
    assert planned.steps == -(-2 * batches.rows_per_epoch // 8)
    places = batches.rows_per_epoch * 64
    padding = 1 - len(corpus.tokens("train")) / places
    assert planned.padding_share == pytest.approx(padding) and padding > 0
    assert planned.tokens_per_parameter and planned.tokens
    stream = counts_of(corpus, recipe_of(tiny_home, packing="stream"))
    assert (stream.train_rows, stream.padding_share) == (None, 0.0)


def test_a_user_sees_both_before_choosing(
    own_home: Path, inside: Callable[..., Any], corpus: Any
) -> None:
    """`check` tells rows, cut documents and padding of each; a run is trained, its page shows the
    same, and a resume with the other packing is refused.

    Breaks tried: the documents that are not cut in the line; another packing named as chosen in
    `corpus.json`; no table on the page.
    """
    done = inside(own_home, "check", "tiny.yaml", BEST_FIT, "train.proofs=off")
    assert done.status == 0, done.error
    recipe = recipe_of(own_home)
    told = packings_of(corpus, recipe)
    assert "Packing best_fit (data.packing)" in done.out
    for name, packed in told.items():
        line = next(x for x in done.out.splitlines() if re.match(rf"  {name} +[\d,]+ rows", x))
        assert f" {packed.rows:,} rows, {packed.cut:,} of {packed.documents:,} documents" in line
        assert f"{packed.padding_share:.2%} padding" in line
    assert f"{told['best_fit'].rows / 8:,.1f} steps an epoch" in done.out
    done = inside(own_home, "plan", "tiny.yaml", BEST_FIT)
    assert f"{told['best_fit'].padding_share:.2%} of the places are padding" in done.out
    changes = ("train.budget.steps=2", "train.proofs=off", "--out", "runs/packed", "--quiet")
    done = inside(own_home, "train", "tiny.yaml", BEST_FIT, *changes)
    assert done.status == 0, done.error
    written = json.loads((own_home / "runs/packed/corpus.json").read_text())["packing"]
    assert written["chosen"] == "best_fit" and written["best_fit"]["cut"] == told["best_fit"].cut
    page = re.sub(r"<[^>]+>", " ", (own_home / "runs/packed/report.html").read_text())
    seen = " ".join(page.split())
    assert "From documents to rows" in seen
    assert f"best_fit, chosen {told['best_fit'].rows:,}" in seen
    assert f"stream {told['stream'].rows:,}" in seen
    done = inside(own_home, "train", "tiny.yaml", *changes, "--resume")
    assert done.status == 2, done.out
    assert "packing was 'best_fit " in done.error and "is now 'stream'" in done.error


def test_an_encoder_without_a_mask_is_refused(tiny_home: Path) -> None:
    """It would read padding. Break tried: no rule."""
    with pytest.raises(RecipeError, match="would read the padding as text; try"):
        recipe_of(tiny_home, "model.kind=encoder", "train.document_mask=false")
    recipe_of(tiny_home, "train.document_mask=false")  # a decoder never sees what follows


def test_names_of_other_trainers_lead_here(tiny_home: Path) -> None:
    """Break tried: leave them with `train.document_mask`, which keeps documents apart."""
    for name in ("sample_packing", "packing_strategy", "train.packing"):
        with pytest.raises(RecipeError, match=r"data\.packing here"):
            load_recipe(tiny_home / "tiny.yaml", (f"{name}=true",))
    with pytest.raises(RecipeError, match=r"train\.document_mask here"):
        load_recipe(tiny_home / "tiny.yaml", ("neat_packing=true",))


def test_tokens_made_elsewhere_are_packed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every token of train is an input once. Breaks tried: the setting unread beside tokens,
    and refused there as one without effect."""
    monkeypatch.chdir(tmp_path)
    write_tokens(tmp_path)
    values = guest_recipe(Path(), {"run_guests:Recurrent": {}}, document_mask=False)
    recipe = parse_recipe(values, changes=(BEST_FIT,))
    corpus = build_corpus(recipe.data, name="tokens", folder=tmp_path / "corpus")
    batches = training_batches(recipe, corpus)
    rows = PackedRows(corpus, "train", recipe.model.context)
    assert batches.rows_per_epoch == rows.full
    seen = rows.plain(batches.rows(1)[:1])
    assert np.array_equal(batches.batch(1).tokens[:1], seen.tokens)
    whole = rows.plain(range(rows.full))
    stream = np.asarray(corpus.tokens("train"))
    real = whole.tokens[whole.documents >= 0]
    assert np.array_equal(np.bincount(real), np.bincount(stream))
