"""A corpus of examples: what is held out, what is left out, what is refused."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_files import Rows, answers, corpus_of, labelled, recipe_of, sentence, write_rows

from wellfit.data.corpus import Corpus
from wellfit.data.examples.split import sides
from wellfit.errors import DataError


def texts_of(corpus: Corpus, split: str) -> list[str]:
    if split not in corpus.splits:
        return []
    table, tokens = corpus.documents(split), np.asarray(corpus.tokens(split))
    decode = corpus.tokenizer().decode
    return [
        decode(tokens[first : first + count].tolist())
        for first, count in zip(table.first_token, table.tokens, strict=True)
    ]


def test_shares_are_of_each_class_and_equal_sources_stay_together(tmp_path: Path) -> None:
    """600 rows, 90 % of one class, a third of the texts standing two or three times, some of them
    under another class. Breaks when all classes are shuffled together (a rare one is then missed
    by more than one example), and when rows are held out one by one."""
    rows = labelled(500, classes=["fine"]) + labelled(40, 1, ["bad"]) + labelled(20, 2, ["good"])
    rows += [{**row, "label": "bad"} for row in rows[:20]] + rows[:20]
    recipe = recipe_of(tmp_path, "classification", rows, data__examples__test_share=0.1)
    corpus = corpus_of(recipe)
    told = corpus.report
    seen = {split: Counter(corpus.documents(split).domain.tolist()) for split in corpus.splits}
    assert sum(map(len, map(list, seen.values()))) == 9
    for name in ("good", "bad"):
        total = sum(one[name] for one in seen.values())
        assert abs(seen["validation"][name] - 0.2 * total) <= 21
    assert seen["validation"]["good"] == 4 and seen["test"]["good"] == 2
    groups = [set(texts_of(corpus, split)) for split in corpus.splits]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert told["dropped"]["the same example stands before"]["documents"] == 20
    assert told["by_domain"].keys() == {"bad", "fine", "good"}


def test_sides_do_not_depend_on_the_order() -> None:
    """Break: take the first of each class."""
    given, strata = [f"t{n}" for n in range(50)], ["a", "b"] * 25
    shares = {"validation": 0.2, "test": 0.2}
    one = dict(zip(given, sides(given, strata, shares), strict=True))
    other = dict(zip(given[::-1], sides(given[::-1], strata[::-1], shares), strict=True))
    assert one == other
    counts = Counter((one[text], side) for text, side in zip(given, strata, strict=True))
    assert counts["validation", "a"] == counts["test", "b"] == 5


def test_what_is_scored_is_not_trained_on(tmp_path: Path) -> None:
    """The file of the test repeats ten sources of train, five with another target. Breaks when
    only whole examples are compared."""
    rows = answers(60)
    again = [{**row, "completion": "mi" if n < 5 else row["completion"]} for n, row in
             enumerate(rows[:10])]  # fmt: skip
    test = write_rows(tmp_path / "test.jsonl", again + answers(5, 9))
    corpus = corpus_of(recipe_of(tmp_path, "answer", rows, data__examples__test=[str(test)]))
    assert corpus.report["dropped"]["stands in validation or test too"]["documents"] == 10
    assert len(corpus.documents("test")) == 15
    assert not set(texts_of(corpus, "validation")) & set(texts_of(corpus, "test"))
    count = len(corpus.documents("train")) + len(corpus.documents("validation"))
    assert count == 50


def test_contradictions_and_cuts_are_counted(tmp_path: Path) -> None:
    """Break: count examples instead of questions."""
    rows = answers(40)
    rows += [{**row, "completion": "lora"} for row in rows[:6]]
    recipe = recipe_of(
        tmp_path, "answer", rows, data__examples__validation_share=0.0,
        data__examples__source_max_len=4, data__examples__target_max_len=3,
    )  # fmt: skip
    told = corpus_of(recipe).report
    assert told["contradictory"] == 6
    total = told["kept"]["total"]
    assert total["sources_cut"] > 20 and total["targets_cut"] > 20
    assert total["supervised_tokens"] <= 4 * total["documents"]


def test_too_long_examples_are_left_out_and_counted(tmp_path: Path) -> None:
    """Break: cut them."""
    rows = [*answers(30), {"prompt": "kara " * 90, "completion": "mi"}]
    corpus = corpus_of(recipe_of(tmp_path, "answer", rows))
    assert corpus.report["dropped"]["longer than data.examples.longest"]["documents"] == 1
    assert max(corpus.documents("train").tokens) <= 64


def test_it_is_built_once_and_again_where_a_file_changed(tmp_path: Path) -> None:
    """Break: leave the files' digests out of the key."""
    recipe = recipe_of(tmp_path, "answer")
    first = corpus_of(recipe)
    stamp = (first.folder / "shards.json").stat().st_mtime_ns
    assert corpus_of(recipe).digest == first.digest
    assert (first.folder / "shards.json").stat().st_mtime_ns == stamp
    write_rows(tmp_path / "examples.jsonl", answers(60, 4))
    assert corpus_of(recipe).digest != first.digest


@pytest.mark.parametrize("name", ["train-00000.labels.bin", "train-00000.source.bin"])
def test_damage_beside_the_tokens_is_found(tmp_path: Path, name: str) -> None:
    """A flipped bit, a file cut short. Break: check tokens alone."""
    recipe = recipe_of(tmp_path, "apart")
    corpus = corpus_of(recipe)
    file = corpus.folder / "shards" / name
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(DataError, match=f"shard {name[:-4]} is damaged"):
        corpus.verify()
    file.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=f"shard {name[:-4]} has {len(whole) - 1} bytes"):
        Corpus.open(corpus.folder)
    assert corpus_of(recipe).digest == corpus.digest  # built again


def test_rejected_rows_are_listed_and_too_many_stop_the_build(tmp_path: Path) -> None:
    """Break: pass over them."""
    rows: Rows = [*answers(30), {"prompt": "a", "completion": ""}, {"odd": 1}]
    recipe = recipe_of(tmp_path, "answer", rows)
    corpus = corpus_of(recipe)
    listing = (corpus.folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["position"] for line in listing] == ["line 31", "line 32"]
    assert corpus.report["rejected"]["records"] == 2
    with pytest.raises(DataError) as caught:
        corpus_of(recipe_of(tmp_path, "answer", rows[-9:]))
    assert "2 of 9 rows are no examples, more than data.max_rejected_share 0.2" in str(caught.value)
    assert "line 8: the target is empty" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data__examples__test_share": 0.001}, "test has no example"),
        ({"data__examples__longest": 8}, "40 left out: longer than data.examples.longest"),
    ],
)
def test_a_wanted_split_without_examples_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    draw = random.Random(0)
    rows = [{"prompt": sentence(draw, 40, 50), "completion": "misora"} for _ in range(40)]
    with pytest.raises(DataError) as caught:
        corpus_of(recipe_of(tmp_path, "answer", rows, **changes))
    assert told in str(caught.value)


def test_one_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "answer", data__examples__test=[str(tmp_path / "examples.jsonl")])
    with pytest.raises(DataError, match="the file is named in train and in test"):
        corpus_of(recipe)
