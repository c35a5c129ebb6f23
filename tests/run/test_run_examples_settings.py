"""Every setting of examples does something, as those in `test_run_settings.py` do."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from example_files import Rows, answers, labelled, questions, sentence, write_rows
from run_settings import observe_corpus, observe_training
from run_settings_examples import EXAMPLES

from wellfit.data.corpus import Corpus
from wellfit.data.examples.template import NAMED
from wellfit.errors import RecipeError
from wellfit.recipe.load import parse_recipe


def write_files(folder: Path) -> None:
    draw = random.Random(1)
    for name, rows in {
        "answers": answers(40),
        "more": answers(12, 7),
        "odd": answers(12, 8),
        "labelled": labelled(60),
        "questions": questions(40),
        "talks": talks(30),
        "both": [{**one, **two} for one, two in zip(answers(40), questions(40), strict=True)],
    }.items():
        write_rows(folder / f"{name}.jsonl", [{**row, "other": sentence(draw)} for row in rows])


def talks(count: int) -> Rows:
    draw = random.Random(4)

    def talk(turns: int) -> list[dict[str, str]]:
        speakers = ("user", "assistant") * turns
        return [{"role": role, "content": sentence(draw, 1, 4)} for role in speakers]

    return [{"messages": talk(2), "talk": talk(1), "calls": [{"name": "f"}]} for _ in range(count)]


@pytest.mark.parametrize("setting", EXAMPLES)
def test_a_setting_of_examples_has_an_effect(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: do not pass the setting on."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    (tmp_path / "tools.jinja").write_text("{% if tools %}ka{% endif %}" + NAMED["chatml"][0])
    raw: dict[str, Any] = {
        "name": "x",
        "data": {
            "examples": {
                "train": ["answers.jsonl"], "validation_share": 0.2, "test_share": 0.2,
            },
            "tokenizer": {
                "vocabulary_size": 300, "new_tokens": ["<|im_start|>", "<|im_end|>"],
            },
        },
        "model": {"context": 96, "layers": 1, "width": 16, "heads": 2, "hidden": 32},
        "train": {"budget": {"steps": 2}, "batch_tokens": 192, "precision": "fp32"},
        "evaluate": {"every": 100}, "monitor": {"prompts": []},
    }  # fmt: skip

    def observed(number: int, *changes: str) -> dict[str, Any]:
        try:
            recipe = parse_recipe(raw, changes=changes)
        except RecipeError as error:
            return {"error": str(error)}
        seen = observe_corpus(recipe.data, tmp_path / f"corpus-{number}")
        if where == "weights":
            corpus = Corpus.open(tmp_path / f"corpus-{number}")
            seen |= observe_training(recipe, corpus, tmp_path / f"run-{number}")
        return seen

    both, change, where = EXAMPLES[setting]
    before, after = observed(0, *both), observed(1, *both, *change.split())
    assert "error" not in before, before
    assert after.get(where) != before.get(where), after
