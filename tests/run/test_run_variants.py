"""An encoder and an encoder-decoder through all of wellfit: trained, killed, scored, asked."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_kills import DROPOUT, command, digest, disturbed, finish

from wellfit.evaluation.loss import evaluate
from wellfit.recipe.load import load_recipe
from wellfit.records import Event, Sampled
from wellfit.run.parts import first_model, held_out_rows, training_batches
from wellfit.run.probes import sampler
from wellfit.run.vocabulary import marks_of, vocabulary_of
from wellfit.run.weights import open_corpus, open_run
from wellfit.training.loop import train

KINDS = ("encoder", "encoder_decoder")


@pytest.fixture(scope="module")
def homes(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind → the folder of a finished run, made by the command line's own function."""
    from wellfit.run.run import run

    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("variants") / kind
        changes = (f"model.kind={kind}", f"data.folder={tiny_home / 'corpora' / 'tiny'}")
        recipe = load_recipe(tiny_home / "tiny.yaml", changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tiny_home)
            run(recipe, folder)
        found[kind] = folder
    return found


def records(run: Path, name: str) -> list[dict[str, Any]]:
    text = (run / "records" / f"{name}-0.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_trained_and_its_page_says_what_is_known(
    kind: str, homes: dict[str, Path], inside: Callable[..., Any]
) -> None:
    """Breaks tried: bits a byte from the nats of a few tokens; a speed in FLOPs from the labels."""
    run = homes[kind]
    steps, scores = records(run, "steps"), records(run, "evaluations")
    assert len(steps) == 24 and steps[-1]["loss"] < steps[0]["loss"] - 0.5
    assert all(score["bits_per_byte"] is None for score in scores)
    assert next(iter(scores[-1]["by_domain"].values()))["bits_per_byte"] is None
    assert 0 < scores[-1]["accuracy"] < 1 and "mfu" not in steps[-1]
    assert not [one for one in records(run, "proofs") if one["state"] == "failed"]
    page = (run / "report.html").read_text()
    assert "hidden from it" in page and "of the next tokens" not in page
    done = inside(run.parent, "evaluate", str(run))
    assert done.status == 0, done.error
    assert "bits per byte  unknown: only hidden tokens are predicted" in done.out


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_a_plain_pass_over_the_same_rows(
    kind: str, homes: dict[str, Path]
) -> None:
    """Mean nats and share of right guesses of all labels, and the same with another cut.

    Break tried: draw what is hidden anew at each evaluation.
    """
    trained = open_run(homes[kind])
    rows = held_out_rows(trained.recipe, trained.corpus, "validation")
    again = held_out_rows(trained.recipe, trained.corpus, "validation")
    assert all(
        np.array_equal(getattr(rows.row([0, 1]), name), getattr(again.row([0, 1]), name))
        for name in ("tokens", "labels")
    )
    documents = trained.corpus.documents("validation")
    scores = [
        evaluate(trained.model, rows, documents, step=0, split="validation", micro_batch=size)
        for size in (4, 7)
    ]
    batch = rows.row(range(len(rows)))
    more: dict[str, Any] = {}
    if (read := batch.source) is not None:
        arrays = (read.tokens, read.positions, read.segments)
        more["source"] = tuple(torch.from_numpy(array) for array in arrays)
    places = (torch.from_numpy(batch.positions), torch.from_numpy(batch.segments))
    with torch.no_grad():
        hidden = trained.model.hidden(torch.from_numpy(batch.tokens), *places, **more)
        logits = trained.model.logits(hidden).flatten(0, 1)
    labels = torch.from_numpy(batch.labels).flatten()
    loss = float(torch.nn.functional.cross_entropy(logits.double(), labels))
    right = float((logits.argmax(-1) == labels)[labels >= 0].double().mean())
    for score in scores:
        assert score.loss == pytest.approx(loss, rel=1e-5)
        assert score.accuracy == pytest.approx(right, abs=1e-9)
        assert score.tokens == int((labels >= 0).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_is_bit_for_bit_the_same(
    kind: str, tiny_home: Path, homes: dict[str, Path], tmp_path: Path
) -> None:
    """With the batches of a new process. Break tried: draw from a generator that runs on."""
    corpus = open_corpus(tiny_home / "runs" / "tiny")
    recipe = load_recipe(tiny_home / "tiny.yaml", (f"model.kind={kind}", "train.proofs=off"))

    def steps(resume: bool) -> Any:
        return train(
            recipe.train,
            first_model(recipe, vocabulary_of(recipe, corpus)),
            training_batches(recipe, corpus),
            folder=tmp_path,
            seed=recipe.seed,
            evaluate_every=100,
            sample_every=100,
            resume=resume,
        )

    begun = steps(resume=False)
    for record in begun:
        if getattr(record, "step", 0) == 11:
            break
    begun.close()
    assert list(steps(resume=True))
    assert digest(tmp_path) == digest(homes[kind])


@pytest.mark.slow  # four starts of the command
def test_killed_and_resumed_is_bit_for_bit_the_same(tiny_home: Path, tmp_path: Path) -> None:
    """With dropout, by the real command. Break tried: number the visits from the resume on."""
    changes = ("model.kind=encoder_decoder", *DROPOUT)
    plain = tmp_path / "plain"
    finish(tiny_home, command(plain, tmp_path / "corpus", *changes))
    disturbed(tiny_home, tmp_path / "run", ["saved"], random.Random(1), *changes)
    assert digest(tmp_path / "run") == digest(plain)


def test_an_encoder_is_not_asked_to_write(
    homes: dict[str, Path], inside: Callable[..., Any]
) -> None:
    """Breaks tried: print the prompt before the refusal; an event for each prompt."""
    run = homes["encoder"]
    events = [one for one in records(run, "events") if one["kind"] == "no_sample"]
    assert [one["step"] for one in events] == [12, 24]
    assert "an encoder does not write text" in events[0]["text"]
    done = inside(run.parent, "generate", str(run), "--prompt", "def ")
    assert done.status != 0 and done.out == ""
    assert "this model does not write text: an encoder reads both sides" in done.error
    assert "model.kind=decoder" in done.error


def test_an_encoder_decoder_goes_on_behind_its_first_sentinel(homes: dict[str, Path]) -> None:
    """Greedy and without a cache, by plain passes; text ends before a sentinel or the separator.

    Breaks tried: leave the sentinel out of the source; begin the target with the separator alone.
    """
    trained = open_run(homes["encoder_decoder"])
    model, recipe = trained.model, trained.recipe
    tokenizer, found = trained.corpus.tokenizer(), marks_of(trained.recipe, trained.corpus)
    with torch.no_grad():  # a few steps teach it to stop at once: let it write
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        model.head.weight[[tokenizer.separator, *found.sentinels]] = 0.0
    greedy = recipe.monitor.sampling.model_copy(update={"temperature": 0.0, "tokens": 6})
    monitor = recipe.monitor.model_copy(update={"sampling": greedy, "prompts": ("import", "")})
    recipe = recipe.model_copy(update={"monitor": monitor})
    said = list(sampler(model, trained.corpus, recipe)(3))
    for prompt, sample in zip(("import", ""), said, strict=True):
        assert isinstance(sample, Sampled) and sample.prompt == prompt
        source = [tokenizer.separator, *tokenizer.encode(prompt), found.sentinels[0]]
        target = [tokenizer.separator, found.sentinels[0]]
        first = None
        for _ in range(6):
            with torch.no_grad():
                read = (torch.tensor([source]), None, None)
                logits = model.logits(model.hidden(torch.tensor([target]), source=read))[0, -1]
            first = logits if first is None else first
            target.append(int(logits.argmax()))
            if target[-1] in (tokenizer.separator, *found.sentinels):
                target.pop()
                break
        assert len(target) > 2, "it wrote something"
        assert sample.text == tokenizer.decode(target[2:])
        assert first is not None
        assert sample.predictions[0][1] == pytest.approx(float(first.softmax(-1).max()), rel=1e-4)
    assert not [one for one in said if isinstance(one, Event)]


def test_another_kind_of_model_is_not_resumed(
    homes: dict[str, Path], tiny_home: Path, inside: Callable[..., Any]
) -> None:
    run = homes["encoder"]
    corpus = f"data.folder={tiny_home / 'corpora' / 'tiny'}"
    done = inside(tiny_home, "train", "tiny.yaml", corpus, "--out", str(run), "--resume")
    assert done.status != 0
    assert "model.kind was encoder and is decoder" in done.error


@pytest.mark.parametrize("kind", KINDS)
def test_check_plan_and_calibration_know_the_kind(
    kind: str, tiny_home: Path, inside: Callable[..., Any], tmp_path: Path
) -> None:
    """Breaks tried: plan with the vocabulary of the corpus alone; calibrate on plain batches."""
    entries = {"encoder": 401, "encoder_decoder": 500}[kind]
    change = (f"model.kind={kind}", "model.context=32", f"data.folder={tmp_path / 'none'}")
    done = inside(tiny_home, "plan", "tiny.yaml", *change, "--calibrate", "--json")
    assert done.status == 0, done.error
    told = json.loads(done.out)
    assert told["vocabulary_size"] == entries and told["fits"] is None
    assert "model.kind" in told["uncounted"]
    done = inside(
        tiny_home, "check", "tiny.yaml", f"model.kind={kind}",
        f"data.folder={tiny_home / 'corpora' / 'tiny'}",
    )  # fmt: skip
    assert done.status == 0, done.error
    assert f"guessing blindly among {entries:,} tokens" in done.out
    assert "The recipe runs." in done.out
