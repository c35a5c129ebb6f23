"""The command line as a user meets it: every door, right and wrong input, real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WELLFIT = str(Path(sys.executable).parent / "wellfit")


def wellfit(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WELLFIT, *arguments], cwd=home, capture_output=True, text=True, check=False
    )


def records(run: Path, kind: str) -> list[dict[str, object]]:
    path = run / "records" / f"{kind}-0.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_everything_it_promises(tiny_home: Path) -> None:
    """Break: leave the page, or the validation probe, out of a run."""
    run = tiny_home / "runs" / "tiny"
    for name in (
        "recipe.yaml",
        "environment.json",
        "corpus.json",
        "plan.json",
        "data-plan.jsonl",
        "training_metrics.json",
        "training_curve.png",
        "loss_by_epoch.png",
        "findings.json",
        "samples.jsonl",
        "report.html",
    ):
        assert (run / name).stat().st_size > 0, name
    metrics = json.loads((run / "training_metrics.json").read_text())
    assert sorted(metrics) == ["epochs", "learning_rate", "steps", "train_loss", "val_loss"]
    assert metrics["steps"] == list(range(1, 25))
    assert [s for s, v in zip(metrics["steps"], metrics["val_loss"], strict=True) if v] == [
        8,
        16,
        24,
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-000016",
        "step-000024",
    ]
    assert metrics["train_loss"][-1] < metrics["train_loss"][0] - 0.3


def test_evaluate_gives_the_same_scores_as_the_run(tiny_home: Path) -> None:
    done = wellfit(tiny_home, "evaluate", "runs/tiny", "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    recorded = [r for r in records(tiny_home / "runs/tiny", "evaluations") if r["split"] == "test"]
    assert scores["bits_per_byte"] == recorded[-1]["bits_per_byte"]
    assert scores["tokens"] == recorded[-1]["tokens"]
    text = wellfit(tiny_home, "evaluate", "runs/tiny", "--split", "validation")
    assert "bits per byte" in text.stdout


def test_generate_is_repeatable_and_seeded(tiny_home: Path) -> None:
    once = [
        wellfit(
            tiny_home, "generate", "runs/tiny", "--prompt", "def ", "--tokens", "20", "--seed", seed
        )
        for seed in ("1", "1", "2")
    ]
    assert [done.returncode for done in once] == [0, 0, 0]
    assert once[0].stdout.startswith("def ")
    assert once[0].stdout == once[1].stdout != once[2].stdout


def test_diagnose_prints_json_with_the_contract_s_fields(tiny_home: Path) -> None:
    done = wellfit(tiny_home, "diagnose", "runs/tiny", "--json")
    found = json.loads(done.stdout)
    assert done.returncode in (0, 1)
    assert {"verdict", "summary", "findings", "not_assessed"} <= set(found)
    assert set(found["verdict"]) >= {"fit", "progress"}
    by_metrics = wellfit(tiny_home, "diagnose", "runs/tiny/training_metrics.json")
    assert by_metrics.returncode in (0, 1) and by_metrics.stdout


def test_locate_finds_a_token_in_its_file(tiny_home: Path) -> None:
    for folder in ("corpora/tiny", "runs/tiny"):
        done = wellfit(tiny_home, "data", "locate", folder, "train-00000:500", "--json")
        assert done.returncode == 0, done.stderr
        place = json.loads(done.stdout)
        blob = Path(place["path"]).read_bytes()
        assert blob[place["start_byte"] : place["end_byte"]].decode() == place["text"]
    assert "bytes" in wellfit(tiny_home, "data", "locate", "corpora/tiny", "train-00000:7").stdout


def test_sigterm_leaves_a_checkpoint_and_a_truthful_folder(own_home: Path) -> None:
    arguments = ["train", "tiny.yaml", "train.budget.steps=100000", "--out", "runs/long", "--quiet"]
    process = subprocess.Popen(
        [WELLFIT, *arguments], cwd=own_home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    steps = own_home / "runs/long/records/steps-0.jsonl"
    deadline = time.monotonic() + 60
    while not steps.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 143, (out, error)
    assert b"stopped" in out
    last = records(own_home / "runs/long", "steps")[-1]["step"]
    saved = records(own_home / "runs/long", "saved")[-1]["step"]
    assert saved == last
    assert (own_home / "runs/long/report.html").exists()
    assert records(own_home / "runs/long", "events")[-1]["kind"] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "absent.yaml"], "absent.yaml"),
        (["train", "tiny.yaml", "model.widht=64"], "width"),
        (["train", "tiny.yaml", "n_embd=64"], "model.width"),
        (["train", "tiny.yaml"], "already holds a run"),
        (["train", "tiny.yaml", "--out", "runs/new", "--resume"], "resume"),
        (["train", "tiny.yaml", "data.sources.0.path=nowhere", "--out", "runs/n"], "nowhere"),
        (["evaluate", "runs/none"], "no such folder"),
        (["evaluate", "runs/tiny", "--split", "exam"], "exam"),
        (["generate", "texts", "--prompt", "x"], "no run"),
        (["generate", "runs/tiny", "--prompt", "x", "--top-p", "2"], "top_p"),
        (["diagnose", "nowhere.json"], "nowhere.json"),
        (["report", "texts"], "texts"),
        (["data", "locate", "corpora/tiny", "train-00000"], "SHARD:OFFSET"),
        (["data", "locate", "corpora/tiny", "train-00000:999999999"], "999999999"),
        (["list", "fliters"], "filters"),
        (["init", "nowhere"], "nowhere"),
        (["recipe", "show", "absent.yaml"], "absent.yaml"),
        (["quickstart", "--minutes", "0"], "minutes"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else None,
)
def test_wrong_input_gets_one_clear_message(
    tiny_home: Path, arguments: list[str], said: str
) -> None:
    done = wellfit(tiny_home, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_two_trainings_in_one_folder(own_home: Path) -> None:
    arguments = ["train", "tiny.yaml", "train.budget.steps=100000", "--out", "runs/two", "--quiet"]
    first = subprocess.Popen(
        [WELLFIT, *arguments], cwd=own_home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        steps = own_home / "runs/two/records/steps-0.jsonl"
        deadline = time.monotonic() + 60
        while not steps.exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        second = wellfit(own_home, *arguments, "--resume")
        assert second.returncode == 2
        assert f"process {first.pid}" in second.stderr
        assert first.poll() is None, "the first training must not be disturbed"
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()


@pytest.mark.parametrize(
    "kind",
    [
        "clean",
        "filters",
        "readers",
        "optimizers",
        "schedules",
        "rules",
        "presets",
        "sizes",
        "kinds",
    ],
)
def test_list_names_every_kind(tiny_home: Path, kind: str) -> None:
    done = wellfit(tiny_home, "list", kind)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2 or kind == "clean"


def test_recipe_show_can_be_trained_again(tiny_home: Path, tmp_path: Path) -> None:
    shown = wellfit(tiny_home, "recipe", "show", "tiny.yaml").stdout
    (tmp_path / "again.yaml").write_text(shown)
    again = wellfit(tmp_path, "recipe", "show", "again.yaml")
    assert again.returncode == 0, again.stderr
    strip = [line.split(" #")[0].rstrip() for line in shown.splitlines()]
    assert [line.split(" #")[0].rstrip() for line in again.stdout.splitlines()] == strip


def test_init_check_and_train_your_own_text(own_home: Path) -> None:
    assert wellfit(own_home, "init", "texts").returncode == 0
    done = wellfit(
        own_home, "check", "texts.yaml", "model.context=64", "model.width=32", "model.layers=1",
        "train.batch_tokens=512", "data.tokenizer.vocabulary_size=400",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "The recipe runs." in done.stdout
    assert not (own_home / "runs" / "texts").exists()
