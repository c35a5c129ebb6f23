"""`init` writes a recipe that works at once, however few documents there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = (
    "model.context=32",
    "model.layers=1",
    "model.width=16",
    "model.heads=2",
    "model.kv_heads=1",
    "model.hidden=32",
    "train.batch_tokens=128",
    "data.tokenizer.vocabulary_size=300",
)


@pytest.mark.parametrize(
    ("documents", "said", "splits"),
    [
        (1, "too few documents to hold out validation and test", ["train"]),
        (2, "too few documents to hold out a test split", ["train", "validation"]),
        (3, "", ["train", "validation", "test"]),
    ],
)
def test_few_documents(
    tiny_home: Path,
    tmp_path: Path,
    inside: Callable[..., Any],
    documents: int,
    said: str,
    splits: list[str],
) -> None:
    """Break: leave the split to its defaults."""
    (tmp_path / "few").mkdir()
    for path in sorted((tiny_home / "texts").iterdir())[:documents]:
        (tmp_path / "few" / path.name).write_text(path.read_text()[:6_000])
    done = inside(tmp_path, "init", "few")
    assert done.status == 0
    assert said in done.out
    done = inside(tmp_path, "check", "few.yaml", *SMALL)
    assert done.status == 0, done.error
    assert "The recipe runs." in done.out
    shown = [name for name in ("train", "validation", "test") if f"  {name} " in done.out]
    assert shown == splits


def test_a_run_that_holds_nothing_out(
    tiny_home: Path, tmp_path: Path, inside: Callable[..., Any]
) -> None:
    """It trains, is told that nothing watches it, and `evaluate` says why there is no score."""
    (tmp_path / "one.txt").write_text((next((tiny_home / "texts").iterdir())).read_text()[:9_000])
    assert inside(tmp_path, "init", "one.txt", "--out", "one.yaml").status == 0
    done = inside(tmp_path, "train", "one.yaml", *SMALL, "train.budget={steps: 3}", "--quiet")
    assert done.status == 0, done.error
    assert "no_validation" in inside(tmp_path, "diagnose", "runs/one", "--json").out
    done = inside(tmp_path, "evaluate", "runs/one")
    assert done.status == 2
    assert "test" in done.error
