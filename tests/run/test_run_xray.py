"""The X-ray shows what the batches hold: which tokens are learnt, where they come from."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from example_files import TASKS, Rows, corpus_of, recipe_of, sentence

from wellfit.data.corpus import Corpus
from wellfit.errors import RunError
from wellfit.recipe.show import recipe_text
from wellfit.run.xray import Xray, xray, xray_of
from wellfit.run.xray_show import xray_page, xray_text


def taken(tmp_path: Path, task: str, count: int = 60, **changes: Any) -> tuple[Xray, Corpus]:
    recipe = recipe_of(tmp_path, task, **changes)
    corpus = corpus_of(recipe)
    return xray_of(recipe, corpus, count), corpus


def test_learnt_text_is_the_target_and_its_end(tmp_path: Path) -> None:
    """Of every example, in letters of one to three bytes, with the line it stands in. Breaks when
    a label colours its own place instead of the next."""
    found, corpus = taken(tmp_path, "answer")
    rows = [json.loads(line) for line in (tmp_path / "examples.jsonl").read_text().splitlines()]
    end = corpus.tokenizer().separator_text
    assert len(found.examples) == len(corpus.documents("train"))
    for one in found.examples:
        row = rows[int(one.place.rpartition(":")[2]) - 1]
        learnt = "".join(piece.text for piece in one.pieces if piece.kind == "learnt")
        read = "".join(piece.text for piece in one.pieces if piece.kind == "read")
        assert learnt == row["completion"] + end and read == f"{end}{row['prompt']}\n"
    assert found.facts["ends_learnt"] == found.facts["examples"]
    assert found.facts["begin_twice"] == found.facts["without_anything_learnt"] == 0


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"answer"}))
def test_other_tasks_show_what_is_asked(tmp_path: Path, task: str) -> None:
    """Break: show the tokens alone."""
    found, _ = taken(tmp_path, task)
    rows = [json.loads(line) for line in (tmp_path / "examples.jsonl").read_text().splitlines()]
    for one in found.examples:
        row = rows[int(one.place.rpartition(":")[2]) - 1]
        kinds = {piece.kind for piece in one.pieces}
        notes = [piece.note for piece in one.pieces if piece.note]
        if task == "apart":
            source = "".join(piece.text for piece in one.pieces if piece.kind == "source")
            assert source.endswith(row["prompt"] + "\n") and kinds == {"source", "read", "learnt"}
        elif task == "classification":
            assert notes == [row["label"]] and one.pieces[-1].kind == "learnt"
        else:
            assert notes == ["begins here", "ended before"] and "place" in kinds


def test_counts_are_those_of_the_whole_split(tmp_path: Path) -> None:
    """Two examples shown, all of them counted, cut ones too. Break: count what is shown."""
    found, corpus = taken(tmp_path, "answer", 2, data__examples__target_max_len=3)
    assert len(found.examples) == 2
    facts = found.facts
    assert facts["examples"] == len(corpus.documents("train")) > 40
    assert facts["cut"]["targets"] > 30 and facts["ends_learnt"] < 20
    text = xray_text(found, colour=False)
    assert f"{facts['ends_learnt']} learn where an answer ends" in text and "were cut" in text
    assert "⟦" in text and "\033" not in text
    assert "\033[30;42m" in xray_text(found, colour=True)


def test_texts_cannot_become_the_page(tmp_path: Path) -> None:
    """Break: leave a piece unescaped."""
    rows: Rows = [
        {"prompt": "<script>alert(1)</script> ka", "completion": "<b>mi</b>\x1b[31m"},
        *[{"prompt": sentence(random.Random(n)), "completion": "mi"} for n in range(30)],
    ]  # fmt: skip
    recipe = recipe_of(tmp_path, "answer", rows, data__examples__validation_share=0.0)
    found = xray_of(recipe, corpus_of(recipe), 60)
    page = xray_page(found)
    assert "<script" not in page and "<b>" not in page
    assert 'class="learnt"' in page and page.startswith("<!doctype html>")
    assert "\x1b[31m" not in xray_text(found, colour=True)


def test_the_command(tmp_path: Path, wellfit_command: str) -> None:
    """Text, JSON and a page; a recipe of plain text is refused."""
    recipe = recipe_of(tmp_path, "classification")
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_text(recipe))
    page = tmp_path / "page.html"

    def ask(*words: object) -> subprocess.CompletedProcess[str]:
        command = [wellfit_command, "xray", str(file), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    said = ask("--n", 3, "--html", page)
    assert said.returncode == 0 and said.stdout.count("── ") == 3
    assert "3 examples" not in said.stdout.splitlines()[0] and page.is_file()
    assert len(json.loads(ask("--n", 2, "--json").stdout)["examples"]) == 2
    plain = tmp_path / "plain.yaml"
    plain.write_text(
        "name: x\ndata: {sources: [{path: a}]}\nmodel: {}\ntrain: {budget: {steps: 1}}"
    )
    with pytest.raises(RunError, match="the recipe learns from plain text"):
        xray(plain)
