"""What the loop's probes say of a real run, against a plain forward pass of the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wellfit.recipe.schema import Monitor, Sampling
from wellfit.records import Event, Sampled
from wellfit.run.probes import sampler
from wellfit.run.weights import open_run


def test_samples_are_the_model_s_own_guesses(tiny_home: Path) -> None:
    """Probabilities are those of torch's softmax over uncached logits, and greedy follows them.

    Break: take the five last entries of the sorted probabilities, or leave out the separator.
    """
    trained = open_run(tiny_home / "runs" / "tiny")
    greedy = Monitor(prompts=("import", "The"), sampling=Sampling(tokens=4, temperature=0))
    recipe = trained.recipe.model_copy(update={"monitor": greedy})
    tokenizer = trained.corpus.tokenizer()
    said = list(sampler(trained.model, trained.corpus, recipe)(7))
    assert [sample.prompt for sample in said if isinstance(sample, Sampled)] == ["import", "The"]
    for sample in said:
        assert isinstance(sample, Sampled) and sample.step == 7
        ids = [tokenizer.separator, *tokenizer.encode(sample.prompt)]
        with torch.no_grad():
            logits = trained.model.logits(trained.model.hidden(torch.tensor([ids])))[0, -1]
        shares = torch.softmax(logits.double(), -1)
        best = torch.argsort(shares, descending=True)[:5]
        assert [p for _, p in sample.predictions] == pytest.approx(shares[best].tolist(), abs=1e-5)
        likeliest = tokenizer.token_bytes()[int(best[0])].decode(errors="replace")
        assert sample.predictions[0][0] == likeliest
        assert sample.text.startswith(likeliest) or int(best[0]) == tokenizer.separator


def test_weights_that_are_not_finite_give_an_event_and_no_text(tiny_home: Path) -> None:
    """A planted NaN: the training goes on, and the records say why there is no sample.

    Break: do not catch the RunError in `sampler`.
    """
    trained = open_run(tiny_home / "runs" / "tiny")
    with torch.no_grad():
        trained.model.final_norm.weight[0] = torch.nan
    said = list(sampler(trained.model, trained.corpus, trained.recipe)(3))
    assert {(record.kind, record.step) for record in said if isinstance(record, Event)} == {
        ("no_sample", 3)
    }
    assert len(said) == len(trained.recipe.monitor.prompts)
