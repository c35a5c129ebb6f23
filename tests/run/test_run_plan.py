"""`wellfit plan` and what asks the machine: text, JSON, wrong input, and refusals before a step."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wellfit.data.corpus import Corpus
from wellfit.plan.devices import gpu
from wellfit.run import plan as run_plan
from wellfit.run.load import load
from wellfit.run.plan import settled


def test_text_and_json_say_the_same(tiny_home: Path, inside: Callable[..., Any]) -> None:
    """The built corpus gives vocabulary and counts."""
    text = inside(tiny_home, "plan", "tiny.yaml", "train.clip_norm=0")
    values = json.loads(inside(tiny_home, "plan", "tiny.yaml", "--json").out)
    assert text.status == 0 and text.out.startswith("Plan of tiny: ")
    assert f"{values['parameters']:,} parameters, vocabulary 400 (its corpus)" in text.out
    assert values["length"]["steps"] == 24 and "Run 24 steps, 12,288 tokens" in text.out
    assert values["disk"]["shards"] == 2 * sum(_split_tokens(tiny_home))
    kinds = values["memory"]["step"]["by_kind"]
    assert sum(kinds.values()) == values["memory"]["step"]["bytes"]
    for line in ("First bottleneck: ", "Disk: a checkpoint ", "  beside them: ", "Advice"):
        assert line in text.out
    json.dumps(values, allow_nan=False)


def _split_tokens(home: Path) -> list[int]:
    from wellfit.data.corpus import Corpus

    corpus = Corpus.open(home / "corpora" / "tiny")
    return [len(corpus.tokens(split)) for split in corpus.splits]


def test_a_gpu_a_price_and_patches(own_home: Path, inside: Callable[..., Any]) -> None:
    """What does not fit comes with patches; pasted, the first of them fits."""
    big = ["model.layers=60", "model.width=4096", "model.heads=32", "model.kv_heads=32"]
    done = inside(own_home, "plan", "tiny.yaml", *big, "--gpu", "a100-40gb", "--price", "2.5")
    assert done.status == 0 and "on A100-40GB in fp32" in done.out
    assert "DOES NOT FIT" in done.out and "It fits with one of these" in done.out
    assert "at that price" in done.out and "NVIDIA A100 datasheet" in done.out
    values = json.loads(
        inside(own_home, "plan", "tiny.yaml", *big, "--gpu", "A100-40GB", "--json").out
    )
    patch = values["changes"][0]["patch"]
    keys = {change.partition("=")[0] for change in patch}
    rest = [change for change in big if change.partition("=")[0] not in keys]
    mended = inside(own_home, "plan", "tiny.yaml", *rest, *patch, "--gpu", "A100-40GB", "--json")
    assert json.loads(mended.out)["fits"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "H100-80"), "did you mean H100-80GB?"),
        (("--price", "-1"), "Give money an hour"),
        (("--gpu", "L4", "--calibrate"), "Give one of the two"),
        (("model.widht=3",), "did you mean width?"),
        (("data.tokenizer.file=absent.json",), "absent.json"),
        (("train.device=cuda",), "--gpu"),
    ],
)
def test_wrong_input(
    tiny_home: Path,
    inside: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    """Break: let any of them pass."""
    monkeypatch.setattr(run_plan, "_local_gpu", lambda: None)
    done = inside(tiny_home, "plan", "tiny.yaml", *arguments)
    assert done.status == 2 and said in done.error, done.error


def test_without_a_corpus_the_vocabulary_is_the_recipe_s(
    own_home: Path, inside: Callable[..., Any]
) -> None:
    """As where the corpus was built from other settings. Break: take whatever corpus is there."""
    done = inside(own_home, "plan", "tiny.yaml", "data.tokenizer.vocabulary_size=500")
    assert "vocabulary 500 (data.tokenizer.vocabulary_size)" in done.out
    assert "unknown until the corpus is built" in done.out
    tokenizer = "corpora/tiny/tokenizer.json"
    done = inside(own_home, "plan", "tiny.yaml", f"data.tokenizer.file={tokenizer}")
    assert f"vocabulary 400 ({tokenizer})" in done.out


def test_calibration_times_real_steps(own_home: Path, inside: Callable[..., Any]) -> None:
    """Break: leave `measured` out of the plan."""
    done = inside(own_home, "plan", "tiny.yaml", "--calibrate", "--json")
    values = json.loads(done.out)["speed"]
    assert values["origin"].startswith("measured") and values["step_seconds"][0] > 0
    assert values["step_seconds"][0] == values["step_seconds"][1]
    before = inside(own_home, "plan", "tiny.yaml", "train.budget={epochs: 1}", "--calibrate")
    assert "tokens/s" in before.out and "training " in before.out


def test_check_refuses_what_cannot_fit_unless_told_otherwise(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: do not pass `train.memory_check` on."""
    monkeypatch.setattr(run_plan, "main_memory", lambda: 100_000_000)
    refused = inside(own_home, "check", "tiny.yaml")
    assert refused.status == 2 and "the plan needs" in refused.error
    warned = inside(own_home, "check", "tiny.yaml", "train.memory_check=warn")
    assert warned.status == 0 and "the plan needs" in warned.out and "recipe runs" in warned.out
    silent = inside(own_home, "check", "tiny.yaml", "train.memory_check=off")
    assert silent.status == 0 and "the plan needs" not in silent.out


def test_check_gives_advice(own_home: Path, inside: Callable[..., Any]) -> None:
    done = inside(own_home, "check", "tiny.yaml", "train.clip_norm=0")
    assert "Advice" in done.out and "train.clip_norm is off; usual: 0.1 to 10" in done.out


def test_main_memory_knows_a_container_s_limit(tmp_path: Path) -> None:
    """Break: ask the machine alone."""
    limit = tmp_path / "memory.max"
    limit.write_text("123456789\n")
    assert run_plan.main_memory((limit,)) == 123_456_789
    limit.write_text("max\n")
    assert run_plan.main_memory((limit, tmp_path / "absent")) > 123_456_789


def test_a_driver_s_name_finds_its_row(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    about = tmp_path / "0" / "information"
    about.write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n")
    assert run_plan._local_gpu(tmp_path) == "H100-80GB"
    about.write_text("Model: \t\t Unheard Of\n")
    assert run_plan._local_gpu(tmp_path) is None


def test_auto_takes_what_the_gpu_multiplies(tiny_home: Path) -> None:
    recipe = load(tiny_home / "tiny.yaml", ("train.precision=auto",))
    assert run_plan.settle_machine(recipe, "L4")[1] == "bf16"
    assert run_plan.settle_machine(recipe, "T4") == (gpu("T4"), "fp32")


def test_planning_loads_no_torch(tiny_home: Path) -> None:
    """Break: import torch atop run/plan.py."""
    code = (
        "import sys; from pathlib import Path; from wellfit.run.plan import plan_file\n"
        "from wellfit.plan.text import plan_text\n"
        "plan_text(plan_file(Path('tiny.yaml'), ('train.device=cpu',)))\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tiny_home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_open_micro_batch_is_settled_once(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run writes down the number that it trains with, and goes on with it elsewhere.

    Break: settle it anew at a resume; the smaller machine then takes other rows, and other bits.
    """
    few = ("train.budget.steps=6", "train.micro_batch=auto")
    assert inside(own_home, "check", "tiny.yaml", *few).status == 0
    done = inside(own_home, "train", "tiny.yaml", "--out", "open", *few)
    assert done.status == 0, done.error
    written = (own_home / "open" / "recipe.yaml").read_text()
    rows = load(own_home / "open" / "recipe.yaml").train.micro_batch
    assert rows == load(own_home / "tiny.yaml").train.batch_tokens // 64 > 1
    line = next(one for one in written.splitlines() if one.strip().startswith("micro_batch:"))
    assert line.split("# ")[1].startswith("auto: as many rows as the plan says fit")
    monkeypatch.setattr("wellfit.plan.fit.CPU_TOKENS", 64)
    assert settled(load(own_home / "tiny.yaml", few), corpus_at(own_home)).train.micro_batch == 1
    resumed = settled(load(own_home / "tiny.yaml", few), corpus_at(own_home), own_home / "open")
    assert resumed.train.micro_batch == rows
    again = inside(own_home, "train", "tiny.yaml", "--out", "open", "--resume", *few)
    assert again.status == 0, again.error
    assert (own_home / "open" / "recipe.yaml").read_text() == written


def corpus_at(home: Path) -> Corpus:
    return Corpus.open(home / "corpora" / "tiny")
