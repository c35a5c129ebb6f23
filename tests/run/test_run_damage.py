"""Damaged checkpoints, full disks and resumes that do not fit: one clear message, nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_kills import digest

from wellfit.monitor import folder as monitor_folder
from wellfit.monitor.folder import read_history
from wellfit.training import checkpoint

NEWEST = "step-000024"
RESUME = ("train", "tiny.yaml", "--quiet", "--resume")


def flip_a_byte(path: Path) -> None:
    blob = bytearray((path / checkpoint.MODEL).read_bytes())
    blob[-5] ^= 1
    (path / checkpoint.MODEL).write_bytes(blob)


def truncate_the_state(path: Path) -> None:
    text = (path / checkpoint.STATE).read_text()
    (path / checkpoint.STATE).write_text(text[: len(text) // 2])


def lose_the_moments(path: Path) -> None:
    (path / checkpoint.OPTIMIZER).unlink()


@pytest.mark.parametrize(
    ("damage", "file", "said"),
    [
        (flip_a_byte, checkpoint.MODEL, "SHA-256"),
        (truncate_the_state, checkpoint.STATE, "not the JSON that was written"),
        (lose_the_moments, checkpoint.OPTIMIZER, "the file is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_way_out_works(
    own_home: Path, inside: Callable[..., Any], damage: Callable[[Path], None], file: str, said: str
) -> None:
    """Break: load without verifying."""
    run = own_home / "runs" / "tiny"
    before = digest(run)
    damage(run / "checkpoints" / NEWEST)
    for arguments in (
        RESUME,
        ("evaluate", "runs/tiny"),
        ("generate", "runs/tiny", "--prompt", "x"),
    ):
        done = inside(own_home, *arguments)
        assert done.status == 2
        assert f"runs/tiny/checkpoints/{NEWEST}/{file}: damaged: " in done.error
        assert said in done.error
        assert f"Remove the folder {NEWEST} and resume: training goes on from step-000016." in (
            done.error
        )
    shutil.rmtree(run / "checkpoints" / NEWEST)
    assert "at step 16:" in inside(own_home, "evaluate", "runs/tiny").out
    if damage is flip_a_byte:
        assert inside(own_home, *RESUME).status == 0
        assert digest(run) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.rope_base=500", "model.rope_base was 10000.0 and is 500.0"),
        ("model.width=64", "model.width was 32 and is 64"),
        ("train.optimizer.kind=adamw", "the recipe's optimizer differs"),
        ("train.budget.steps=30", "planned for 24 steps, the recipe now says 30 steps"),
        ("train.batch_tokens=1024", "batch_rows was 8 and is now 16"),
        ("seed=4", "seed was 3 and is now 4"),
    ],
)
def test_a_resume_that_does_not_fit_is_refused_and_changes_nothing(
    own_home: Path, inside: Callable[..., Any], change: str, said: str
) -> None:
    """Break: write recipe.yaml before the checkpoint has been compared."""
    run = own_home / "runs" / "tiny"
    kept = {name: (run / name).read_bytes() for name in ("recipe.yaml", "corpus.json", "plan.json")}
    done = inside(own_home, *RESUME, change)
    assert done.status == 2
    assert said in done.error
    assert "into a new folder" in done.error or "in another folder" in done.error
    assert {name: (run / name).read_bytes() for name in kept} == kept


def test_a_corpus_built_otherwise_is_refused_until_it_is_built_back(
    own_home: Path, inside: Callable[..., Any]
) -> None:
    """Break: write corpus.json before the data plan has been compared."""
    done = inside(own_home, *RESUME, "data.tokenizer.vocabulary_size=410")
    assert done.status == 2
    assert "begun with other batches" in done.error
    done = inside(own_home, "evaluate", "runs/tiny")
    assert done.status == 2
    assert "the corpus is not the one this run was trained on" in done.error
    assert "Build it from the same documents and settings" in done.error
    assert inside(own_home, "data", "build", "tiny.yaml").status == 0
    assert inside(own_home, "evaluate", "runs/tiny").status == 0


def test_an_edited_recipe_beside_the_weights_is_named(
    own_home: Path, inside: Callable[..., Any]
) -> None:
    kept = own_home / "runs" / "tiny" / "recipe.yaml"
    kept.write_text(kept.read_text().replace("layers: 2", "layers: 3"))
    done = inside(own_home, "evaluate", "runs/tiny")
    assert done.status == 2
    assert "the weights do not fit the model of recipe.yaml" in done.error


def test_a_run_and_its_corpus_can_be_moved_together(
    own_home: Path, tmp_path: Path, inside: Callable[..., Any]
) -> None:
    moved = tmp_path / "moved to ünusual place"
    moved.mkdir()
    for name in ("runs", "corpora"):
        (own_home / name).rename(moved / name)
    assert inside(tmp_path, "evaluate", str(moved / "runs" / "tiny")).status == 0
    assert inside(moved / "runs", "generate", "tiny", "--prompt", "é", "--tokens", "2").status == 0
    shutil.rmtree(moved / "corpora")
    done = inside(moved, "evaluate", "runs/tiny")
    assert done.status == 2
    assert "the run's corpus cannot be opened" in done.error
    assert inside(moved, "diagnose", "runs/tiny").status in (0, 1)


# ── full disks ─────────────────────────────────────────────────────────────────────────────

FRESH = ("train", "tiny.yaml", "data.folder=corpora/tiny", "--quiet", "--out")


def no_room(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_room_for_a_checkpoint(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second checkpoint fails; the first stands and the run goes on from it."""
    real = checkpoint.write_tensors
    written: list[Path] = []

    def fails_later(path: Path, tensors: Any) -> Any:
        written.append(path)
        return real(path, tensors) if len(written) <= 2 else no_room()

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_tensors", fails_later)
        done = inside(own_home, *FRESH, "runs/full")
    assert done.status == 2
    assert "the checkpoint of step 16 cannot be written (No space left on device)" in done.error
    assert "step-000008 is untouched" in done.error
    assert [path.name for path in (own_home / "runs/full/checkpoints").iterdir()] == ["step-000008"]
    assert inside(own_home, *FRESH, "runs/full", "--resume").status == 0
    assert digest(own_home / "runs/full") == digest(own_home / "runs/tiny")


def test_no_room_for_a_record(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = 0

    def write(file: int, data: Any) -> int:
        nonlocal lines
        lines += 1
        return os.write(file, data) if lines < 20 else no_room()

    with monkeypatch.context() as patched:
        names = {name: getattr(os, name) for name in dir(os)}
        patched.setattr(monitor_folder, "os", SimpleNamespace(**names | {"write": write}))
        done = inside(own_home, *FRESH, "runs/full")
    assert done.status == 2
    assert "there is no room left to write" in done.error
    assert "Make room and continue with `--resume`" in done.error
    assert len(read_history(own_home / "runs/full").train_loss) > 5
    assert inside(own_home, *FRESH, "runs/full", "--resume").status == 0
    assert digest(own_home / "runs/full") == digest(own_home / "runs/tiny")


def test_no_room_for_the_report(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = monitor_folder.replace_file

    def write(path: Path, *rest: Any, **options: Any) -> None:
        no_room() if path.name == "report.html" else real(path, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(monitor_folder, "replace_file", write)
        done = inside(own_home, *FRESH, "runs/full")
    assert done.status == 2
    assert "the report cannot be written: No space left on device" in done.error
    assert digest(own_home / "runs/full") == digest(own_home / "runs/tiny")
    assert inside(own_home, "report", "runs/full").status == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("300k")` gives a folder on a disk of that size."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = False

    def mount(size: str) -> Path:
        nonlocal mounted
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
            pytest.skip("only root may mount a small disk")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("8k", "there is no room left to write"),
        ("300k", "the checkpoint of step 8 cannot be written (No space left on device)"),
        ("2500k", "the report cannot be written: No space left on device"),
    ],
)
def test_a_disk_that_is_really_full(
    own_home: Path,
    inside: Callable[..., Any],
    small_disk: Callable[[str], Path],
    size: str,
    said: str,
) -> None:
    run = small_disk(size) / "run"
    done = inside(own_home, *FRESH, str(run))
    assert done.status == 2
    assert said in done.error
    assert not list(run.rglob("*.partial"))


def test_a_corpus_that_does_not_fit_on_the_disk(
    own_home: Path, inside: Callable[..., Any], small_disk: Callable[[str], Path]
) -> None:
    corpus = small_disk("600k") / "corpus"
    done = inside(own_home, "data", "build", "tiny.yaml", "--out", str(corpus))
    assert done.status == 2
    assert "the disk is full" in done.error
    assert "name another `data.folder`" in done.error
