"""Examples from file to answer: trained, scored, asked, resumed; and wrong use refused."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from example_files import TASKS, WORDS, Rows, corpus_of, recipe_of, sentence
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import wellfit
from wellfit.data.corpus import Corpus
from wellfit.data.examples.rows import ExampleRows
from wellfit.errors import DataError, RunError
from wellfit.evaluation.loss import evaluate
from wellfit.recipe.schema import Recipe
from wellfit.records import IGNORED
from wellfit.run.parts import first_model, guessing, held_out_rows
from wellfit.run.run import run
from wellfit.run.vocabulary import vocabulary_of
from wellfit.training.step import Objective, accumulate


def reversing(count: int) -> Rows:
    """A text of a few words; the answer has them the other way round."""
    draw = random.Random(1)
    rows = [[draw.choice(WORDS[:8]) for _ in range(3)] for _ in range(count)]
    return [{"prompt": " ".join(r), "completion": " ".join(r[::-1])} for r in rows]


def finding(count: int) -> Rows:
    """The word behind `key` answers; where there is none, nothing does."""
    draw, rows = random.Random(2), []
    for number in range(count):
        words = sentence(draw, 4, 9).split(" ")
        place = draw.randrange(len(words))
        answer: dict[str, Any] = {"text": [], "answer_start": []}
        if number % 4:
            words.insert(place, "key")
            start = len(" ".join(words[: place + 1])) + 1
            answer = {"text": [words[place + 1]], "answer_start": [start]}
        rows.append({"question": "who", "context": " ".join(words), "answers": answer})
    return rows


def telling(count: int) -> Rows:
    """One word decides the class."""
    draw, rows = random.Random(3), []
    for _ in range(count):
        name = draw.choice(["bad", "fine", "good"])
        words = sentence(draw, 3, 9).split(" ")
        words.insert(draw.randrange(len(words)), f"so{name}")
        rows.append({"text": " ".join(words), "label": name})
    return rows


LEARNT: dict[str, tuple[Rows, int, dict[str, Any]]] = {
    "answer": (reversing(700), 180, {"train__batch_tokens": 512}),
    "apart": (reversing(700), 180, {"train__batch_tokens": 512}),
    "classification": (telling(300), 60, {"train__class_weights": "balanced"}),
    "span": (finding(500), 130, {}),
}


@pytest.fixture(scope="module", params=LEARNT)
def learnt(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Recipe, Path]:
    """A run of each task on examples that a tiny model can learn."""
    task: str = request.param
    rows, steps, more = LEARNT[task]
    folder = tmp_path_factory.mktemp(task)
    recipe = recipe_of(
        folder, task, rows, train__budget__steps=steps, data__examples__test_share=0.1,
        model__width=64, model__hidden=128, model__init="zero_projections",
        **{"train__batch_tokens": 1024, **more},
    )  # fmt: skip
    outcome = run(recipe, folder / "run")
    assert outcome.history.status == "finished"
    return task, recipe, folder / "run"


def test_a_task_is_learnt(learnt: tuple[str, Recipe, Path]) -> None:
    """At least 99 % of the labels of examples that it has never seen. Breaks when labels are those
    of the next example of the row, and when examples of a row see each other (the proofs then
    refuse it)."""
    _, _, folder = learnt
    scores = wellfit.evaluate(folder)
    assert scores.accuracy >= 0.99 and scores.bits_per_byte is None
    assert scores.exact is not None and scores.exact >= 0.95


def test_it_answers_new_examples(learnt: tuple[str, Recipe, Path]) -> None:
    """Answers end by themselves; spans are words of the context, with their place, and nothing
    where nothing answers. Breaks when the end is never learnt, and when the prompt is read without
    what stands before the target in training."""
    task, _, folder = learnt
    if task in ("answer", "apart"):
        new = reversing(720)[700:]
        said = [wellfit.generate(folder, row["prompt"], tokens=60, temperature=0) for row in new]
        right = sum(text == row["completion"] for text, row in zip(said, new, strict=True))
        assert right >= 19
        return
    rows = (telling if task == "classification" else finding)(530)[-20:]
    told = wellfit.predict(folder, rows)
    if task == "classification":
        assert [one.answer for one in told] == [row["label"] for row in rows]
        assert all(one.classes and sum(one.classes.values()) == pytest.approx(1) for one in told)
        return
    wanted = [(row["answers"]["text"] or [None])[0] for row in rows]
    assert sum(one.answer == text for one, text in zip(told, wanted, strict=True)) >= 19
    for one, row in zip(told, rows, strict=True):
        assert one.answer is None or row["context"][one.start : one.end] == one.answer


def test_a_class_may_be_asked_of_a_decoder(tmp_path: Path) -> None:
    """Break: let the head read the first place, which sees nothing there."""
    recipe = recipe_of(
        tmp_path, "classification", telling(300), train__budget__steps=60, model__kind="decoder",
        model__width=64, model__hidden=128, model__init="zero_projections",
        train__batch_tokens=1024,
    )  # fmt: skip
    run(recipe, tmp_path / "run")
    assert wellfit.evaluate(tmp_path / "run", "validation").accuracy >= 0.99


@pytest.mark.parametrize("task", TASKS)
def test_a_packed_batch_is_its_examples_one_by_one(tmp_path: Path, task: str) -> None:
    """The gradient of a packed batch, cut into micro-batches, is the sum of those of single
    examples by torch's own cross-entropy, over the labels of all; and so are the scores of an
    evaluation. Breaks when examples of a row see each other, when padding is scored, when a span's
    places to choose from go beyond its text, and when each micro-batch is averaged by itself."""
    recipe = recipe_of(tmp_path, task)
    corpus = corpus_of(recipe)
    model = first_model(recipe, vocabulary_of(recipe, corpus))
    packed = ExampleRows(corpus, "train", 64, "best_fit")
    batch = packed.plain(range(min(6, packed.full)))
    objective, device = Objective(), torch.device("cpu")
    loss, count = accumulate(model, batch, objective, micro_batch=4, device=device, key=(0, 1))
    parameters = dict(model.named_parameters())
    found = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    for parameter in parameters.values():
        parameter.grad = None
    alone = ExampleRows(corpus, "train", 64, "padded")
    members = sorted({one for one in batch.documents.ravel().tolist() if one >= 0})
    losses = [_plain_loss(model, alone, one, recipe.model.head) for one in members]
    total = torch.stack(losses).sum() / count
    total.backward()
    assert float(loss) == pytest.approx(float(total.detach()), rel=1e-5)
    assert count == int((batch.labels >= 0).sum()) and len(members) > 10
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        largest = float(parameter.grad.abs().max())
        assert torch.allclose(found[name], parameter.grad, atol=1e-5 * max(largest, 1e-3)), name
    scores = evaluate(
        model, held_out_rows(recipe, corpus, "train"), corpus.documents("train"),
        step=0, split="train", micro_batch=4, guess=guessing(recipe),
    )  # fmt: skip
    with torch.no_grad():
        every = sum(_plain_loss(model, alone, one, recipe.model.head) for one in range(alone.full))
    assert scores.loss * scores.tokens == pytest.approx(float(every), rel=1e-5)
    assert scores.documents == alone.full and len(scores.by_domain) == (
        3 if task == "classification" else 1
    )


def _plain_loss(model: Any, rows: ExampleRows, number: int, head: str) -> torch.Tensor:
    """One example, without padding, by torch's cross-entropy: the sum over its labels."""
    batch = rows.plain([number])
    real = torch.from_numpy(batch.documents[0] >= 0)
    labels = torch.from_numpy(batch.labels[0])[real]
    more = {}
    if batch.source is not None:
        inside = batch.source.segments[0] == 0
        more["source"] = torch.from_numpy(batch.source.tokens[:, inside]), None, None
    logits = model.logits(model.hidden(torch.from_numpy(batch.tokens)[:, real], **more))[0]
    if head != "span":
        return cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    first = int((labels != IGNORED).nonzero()[0])
    places = [int((labels == kind).nonzero()[0]) - first for kind in (0, 1)]
    return cross_entropy(logits[first:].T, torch.tensor(places), reduction="sum")


def test_balanced_classes_have_torchs_gradient(tmp_path: Path) -> None:
    """Weighted cross-entropy of torch, whose weights make classes even; reported is the plain
    loss. Breaks when the reported loss is weighted, or weights meet other rows."""
    rows = telling(90)[:60] + [row for row in telling(400) if row["label"] == "bad"][:60]
    recipe = recipe_of(tmp_path, "classification", rows, train__class_weights="balanced")
    corpus = corpus_of(recipe)
    model = first_model(recipe, vocabulary_of(recipe, corpus))
    weighed = ExampleRows(corpus, "train", 64, "best_fit", balanced=True)
    batch = weighed.plain(range(weighed.full))
    loss, count = accumulate(
        model, batch, Objective(), micro_batch=3, device=torch.device("cpu"), key=(0, 1)
    )
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    labels = torch.from_numpy(batch.labels)
    counts = torch.bincount(labels[labels >= 0], minlength=3)
    model.zero_grad()  # type: ignore[attr-defined]
    places = torch.from_numpy(batch.positions), torch.from_numpy(batch.segments)
    logits = model.logits(model.hidden(torch.from_numpy(batch.tokens), *places))
    asked = labels >= 0
    cross_entropy(logits[asked], labels[asked], weight=count / (3 * counts)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(found[name], parameter.grad, atol=1e-6), name
    plain = cross_entropy(logits[asked], labels[asked]).detach()
    assert float(loss) == pytest.approx(float(plain))


@pytest.mark.parametrize("task", TASKS)
def test_it_resumes_bit_for_bit(tmp_path: Path, task: str) -> None:
    """With dropout and an average of the weights. Break: leave the data plan out of a resume."""
    more = {"model__dropout": 0.2, "train__ema_decay": 0.9, "train__checkpoint_every": 2}
    recipe = recipe_of(tmp_path, task, train__budget__steps=5, **more)
    run(recipe, tmp_path / "whole")
    run(recipe.model_copy(), tmp_path / "parts")
    torn = tmp_path / "parts" / "checkpoints" / "step-000005"
    for file in torn.iterdir():
        file.unlink()
    torn.rmdir()
    run(recipe, tmp_path / "parts", resume=True, at=4)
    one, other = (
        load_file(tmp_path / name / "checkpoints" / "step-000005" / "model.safetensors")
        for name in ("whole", "parts")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_does_not_fit_is_refused(learnt: tuple[str, Recipe, Path]) -> None:
    """Each message. Break: let the row through."""
    task, _, folder = learnt
    if task in ("answer", "apart"):
        with pytest.raises(RunError, match="the model writes text; it names no classes"):
            wellfit.predict(folder, [{"text": "a"}])
        return
    with pytest.raises(RunError, match="Ask it with `wellfit predict RUN`"):
        wellfit.generate(folder, "kara")
    with pytest.raises(DataError, match="no column is known to hold the"):
        wellfit.predict(folder, [{"odd": "a"}])
    long = {"text": "kara " * 99, "question": "who", "context": "kara " * 99}
    with pytest.raises(DataError, match="tokens, and the model reads 64"):
        wellfit.predict(folder, [long])


def test_the_command_predicts(
    learnt: tuple[str, Recipe, Path], wellfit_command: str, tmp_path: Path
) -> None:
    """One row on the command line, a file as JSON, and neither. Break: print the number of the
    class."""
    task, _, folder = learnt
    if task != "classification":
        pytest.skip("one task is enough for the door")

    def ask(*given: object) -> subprocess.CompletedProcess[str]:
        words = [wellfit_command, "predict", str(folder), *map(str, given)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    said = ask("--given", "text=kara sogood mi")
    assert said.returncode == 0 and said.stdout.startswith("good ")
    file = tmp_path / "rows.csv"
    file.write_text('text,other\n"kara, sobad",1\nsofine mi,2\n')
    said = ask("--in", file, "--json")
    told = [json.loads(line) for line in said.stdout.splitlines()]
    assert [one["answer"] for one in told] == ["bad", "fine"]
    for wrong, reason in {
        (): "there is nothing to answer",
        ("--in", file, "--given", "text=a"): "--in and --given both give rows",
        ("--given", "text"): "'text' is no COLUMN=TEXT",
        ("--given", "text=a", "--given", "text=b"): "text is given twice",
    }.items():
        said = ask(*wrong)
        assert said.returncode == 2 and reason in said.stderr


def test_the_corpus_says_what_it_is(tmp_path: Path) -> None:
    """Break: leave the classes out."""
    from wellfit.run.show import corpus_lines

    rows = [*telling(40), *telling(3), {"text": "kara " * 99, "label": "bad"}]
    corpus = corpus_of(recipe_of(tmp_path, "classification", rows))
    text = corpus_lines(Corpus.open(corpus.folder))
    assert "3 left out: the same example stands before" in text
    assert "1 left out: longer than data.examples.longest" in text
    assert "bad " in text and "fine " in text and "%" in text
