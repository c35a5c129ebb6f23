"""`wellfit init`: data in, a commented recipe out."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wellfit.errors import DataError, RunError, WellfitError
from wellfit.recipe.load import load_recipe
from wellfit.recipe.schema import Recipe
from wellfit.run.init import _budget, _size, write_recipe


def jsonl(path: Path, rows: list[Any], *, packed: bool = False) -> None:
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())


def made(path: Path, out: Path) -> tuple[Recipe, str, str]:
    told = write_recipe(path, out)
    return load_recipe(out), out.read_text(), told


def test_a_folder_of_text(tmp_path: Path) -> None:
    folder = tmp_path / "my data.v1"
    folder.mkdir()
    (folder / "a.txt").write_text("# Once upon a time there was a fox.\n" * 2_000)
    (folder / "b.md").write_text("")
    (folder / "c.png").write_bytes(b"\x89PNG\x00")
    recipe, text, told = made(folder, tmp_path / "out.yaml")
    assert recipe.name == "my-data"
    assert recipe.data.sources[0].path == folder.as_posix()
    assert recipe.data.tokenizer.vocabulary_size == 512
    assert recipe.model.size == "nano"
    assert recipe.train.budget.epochs == 20
    assert recipe.monitor.prompts == ("Once upon a",)
    assert "watch for overfitting" in text
    assert told.splitlines()[0] == f"found 1 text file, 72 kB in {folder}"
    assert told.splitlines()[-1] == f"next: wellfit train {tmp_path / 'out.yaml'}"


def test_a_jsonl_file_with_another_column(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl.gz"
    rows = [{"id": 7, "title": "t", "story": f"A long story {n}. " * 20} for n in range(60)]
    jsonl(path, rows, packed=True)
    recipe, text, told = made(path, tmp_path / "out.yaml")
    assert recipe.name == "qa"
    assert recipe.data.sources[0].text_field == "story"
    assert "unclear" not in text
    assert recipe.monitor.prompts == ("A long story",)
    assert "1 jsonl file" in told


def test_a_column_that_is_not_clear_is_named(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    jsonl(path, [{"question": "why is it so?", "answer": "it is so because"}] * 5)
    recipe, text, told = made(path, tmp_path / "out.yaml")
    assert recipe.data.sources[0].text_field == "answer"
    words = "unclear which column holds the text of qa.jsonl: took `answer`, could be `question`"
    assert f"# {words}\n" in text
    assert words in told


def test_the_usual_name_wins_over_a_longer_column(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    jsonl(path, [{"text": "short", "html": "<p>much longer</p>" * 9}] * 5)
    recipe, text, _ = made(path, tmp_path / "out.yaml")
    assert recipe.data.sources[0].text_field == "text"
    assert "unclear" not in text


def test_parquet_and_jsonl_with_different_columns_become_two_sources(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wellfit.data.read.walk import find

    folder = tmp_path / "mix[1]"
    (folder / "deep").mkdir(parents=True)
    pq.write_table(pa.table({"content": ["One. " * 9] * 9}), folder / "deep" / "a.parquet")
    jsonl(folder / "b.jsonl", [{"body": "Two. " * 9}] * 9)
    (folder / "c.txt").write_text("Three. " * 9)
    recipe, _, _ = made(folder, tmp_path / "out.yaml")
    fields = {Path(one.path).suffix: one.text_field for one in recipe.data.sources}
    assert fields == {".jsonl": "body", ".parquet": "content", ".txt": "text"}
    found = [one.relative for source in recipe.data.sources for one in find(source).inputs]
    assert sorted(Path(one).name for one in found) == ["a.parquet", "b.jsonl", "c.txt"]


def test_code_keeps_the_prompts_for_code(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("def f():\n    return 1\n" * 50)
    recipe, _, _ = made(tmp_path / "src", tmp_path / "out.yaml")
    assert recipe.monitor.prompts == ("def", "The", "import")


def refusal(path: Path, out: Path) -> str:
    with pytest.raises(WellfitError) as refused:
        write_recipe(path, out)
    assert isinstance(refused.value, DataError)
    assert not out.exists()
    return str(refused.value)


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    folder = tmp_path / "data"
    folder.mkdir()
    assert "no file here can be read" in refusal(folder, out)
    (folder / "a.png").write_bytes(b"x")
    assert "passed over: 1 unknown kind of file (.png)" in refusal(folder, out)
    (folder / "a.txt").write_text("")
    assert "all 1 files are empty" in refusal(folder, out)
    (folder / "a.txt").write_bytes(b"a\x00b")
    told = refusal(folder, out)
    assert "nothing here is text: a.txt: a binary file" in told
    assert "JSONL (.gz, .zst) and Parquet are read" in told
    assert "there is no such file or folder" in refusal(tmp_path / "dta", out)
    for text, words in [
        ('{"text": "a"', "line 1 is no JSON"),
        ("[1]\n", "line 1 is no JSON object"),
        ('{"n": 1}\n', "no column holds text"),
        ("\n\n", "no rows"),
    ]:
        (tmp_path / "x.jsonl").write_text(text)
        assert words in refusal(tmp_path / "x.jsonl", out)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 9)[:20])
    assert "nothing here is text: x.jsonl.gz: " in refusal(tmp_path / "x.jsonl.gz", out)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    assert "no Parquet that can be read" in refusal(tmp_path / "x.parquet", out)


def test_damaged_files_beside_sound_ones_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("Some text. " * 99)
    (folder / "b.txt").write_bytes(b"\x00" * 50)
    _, text, told = made(folder, tmp_path / "out.yaml")
    assert "passed over: b.txt: a binary file" in told
    assert "# passed over: b.txt: a binary file" in text


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    data = tmp_path / "a.txt"
    data.write_text("Some text. " * 99)
    out = tmp_path / "out.yaml"
    out.write_text("mine")
    with pytest.raises(RunError, match="stands there already") as refused:
        write_recipe(data, out)
    assert "--out OTHER.yaml" in str(refused.value)
    assert out.read_text() == "mine"
    with pytest.raises(RunError, match="cannot be written") as refused:
        write_recipe(data, tmp_path / "no" / "out.yaml")
    assert "Make the folder" in str(refused.value)


def test_size_and_budget_follow_the_amount() -> None:
    """Breaks when the 20 tokens a parameter, or the limit of four epochs, is left out.

    Worked: nano with 4,096 entries has 5.2 million parameters, so it wants 105 million tokens;
    30 million tokens are enough over four epochs, 20 million are not.
    """
    assert _size(1e6, 4_096)[0] == "nano"
    size, parameters = _size(30e6, 4_096)
    assert size == "nano"
    assert 5.2e6 < parameters < 5.3e6
    assert _budget(30e6, parameters, size)[0] == "tokens: 100000000"
    budget, _, why = _budget(20e6, parameters, size)
    assert budget == "epochs: 4" and "about 20,000,000 tokens each" in why
    assert _budget(20_000, parameters, size)[0] == "epochs: 20"
    assert _size(100e6, 4_096)[0] == "micro"
    assert _size(1e12, 32_768)[0] == "small"


def test_init_needs_no_torch() -> None:
    code = "import sys, wellfit.run.init\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
