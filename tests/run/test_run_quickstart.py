"""`wellfit quickstart`, shortened: no argument but the minutes, no download, everything told."""

from __future__ import annotations

import json
import lzma
import re
import subprocess
from pathlib import Path

import pytest

from wellfit.data.corpus import Corpus
from wellfit.run.quickstart import free_folder


def test_a_second_quickstart_takes_the_next_free_folder(tmp_path: Path) -> None:
    """`make demo` works twice. Break: always give the first name."""
    assert free_folder(tmp_path).name == "quickstart"
    (tmp_path / "quickstart").mkdir()
    assert free_folder(tmp_path).name == "quickstart-2"
    (tmp_path / "quickstart-2").mkdir()
    assert free_folder(tmp_path).name == "quickstart-3"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quickstart_goes_the_whole_way(tmp_path: Path, wellfit_command: str) -> None:
    """What it prints are the figures of its records, and for xz those of `lzma` here."""
    done = subprocess.run(
        [wellfit_command, "quickstart", "--minutes", "0.1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "quickstart"
    evaluations = (run / "records" / "evaluations-0.jsonl").read_text().splitlines()
    test = [json.loads(line) for line in evaluations][-1]
    assert test["split"] == "test"
    assert f"bits per byte  {test['bits_per_byte']:.4f}" in done.stdout
    assert "Sample at step" in done.stdout
    assert "Verdict: " in done.stdout
    assert "runs/quickstart/report.html" in done.stdout and (run / "report.html").is_file()

    texts = [text.encode() for text in Corpus.open(run / "corpus").texts("test")]
    size = sum(map(len, texts))
    assert size == test["bytes"]
    packed = sum(len(lzma.compress(text, preset=9)) for text in texts)
    said = re.search(r"xz -9 needs ([\d.]+) bits per byte file by file", done.stdout)
    assert said and float(said[1]) == pytest.approx(8 * packed / size, abs=0.002)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quickstart_beats_xz(tmp_path: Path, wellfit_command: str) -> None:
    """The whole quickstart: fewer bits for each held-out byte than `xz -9` needs file by file.

    Break: leave `optimizers.step()` out of `take_step`.
    """
    done = subprocess.run(
        [wellfit_command, "quickstart", "--out", "here"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "here"
    test = json.loads((run / "records" / "evaluations-0.jsonl").read_text().splitlines()[-1])
    corpus = Corpus.open(run / "corpus")
    sizes = {split: int(corpus.documents(split).bytes.sum()) for split in corpus.splits}
    assert test["split"] == "test" and test["bytes"] == sizes["test"]
    assert sizes["test"] >= 0.05 * sum(sizes.values())
    packed = sum(len(lzma.compress(t.encode(), preset=9)) for t in corpus.texts("test"))
    assert test["bits_per_byte"] < 8 * packed / sizes["test"]
