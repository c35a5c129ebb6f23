"""`wellfit lr-find`: what it prints and writes is what was measured; runs stay untouched."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wellfit
from wellfit.errors import RunError
from wellfit.run import lr_find as room
from wellfit.run.lr_find import rates_of
from wellfit.run.lr_find_show import advice_text, plot
from wellfit.training import lr_finder


def digests(folder: Path) -> dict[str, str]:
    """Every file's digest; those of the corpus are left out, since it is built first, as ever."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "corpora" not in path.parts
    }


def test_text_and_files_tell_what_was_measured(own_home: Path, inside: Callable[..., Any]) -> None:
    """One run of the command; every number printed stands in the JSON, and the patch is taken."""
    before = digests(own_home)
    done = inside(
        own_home, "lr-find", "tiny.yaml", "train.budget.steps=700", "--steps", "150", "--out", "o"
    )
    assert done.status == 0, done.error
    after = digests(own_home)
    written = {"o/lr-find.json", "o/lr-find.png", "o/lr-find.html"}
    assert set(after) - set(before) == written
    assert {name: after[name] for name in before} == before

    found = json.loads((own_home / "o" / "lr-find.json").read_text())
    assert found["planned_steps"] == 700 and found["batch_tokens"] == 512
    share = found["measured"]["choice"]["share"]
    assert found["patch"] == {
        path: float(f"{rate * share:.2g}") for path, rate in found["rates"].items()
    }
    assert len(found["rates"]) == 2
    trainings = found["measured"]["trainings"]
    trials = found["measured"]["range_test"]["trials"]
    assert found["measured"]["steps"] == len(trials) + sum(one["steps"] for one in trainings)
    command = re.search(r"wellfit train RECIPE (train\.optimizer.*)", done.out)
    assert command and len(command[1].split()) == 2
    changed = wellfit.load_recipe(own_home / "tiny.yaml", command[1].split())
    assert rates_of(changed) == found["patch"]
    said = " ".join(done.out.split())
    for reason in found["reasons"]:
        assert " ".join(reason.split()) in said
    assert f"confidence {found['confidence']}" in said
    assert found["batch_advice"]["text"] in said
    for one in found["measured"]["choice"]["tried"]:
        if one["loss"] is not None:
            assert f"{one['loss']:.4f}" in done.out

    assert (own_home / "o" / "lr-find.png").read_bytes().startswith(b"\x89PNG")
    page = (own_home / "o" / "lr-find.html").read_text()
    assert "<svg" in page and "rose for good" in page and "<script" not in page
    for path, value in found["patch"].items():
        assert f"{path.rpartition('.')[2]}: {value}" in page
    inert = page.replace("http://www.w3.org/", "").replace("http://creativecommons.org/", "")
    assert not re.search(r'(src|href)="(?!#)[a-z]+:', inert)


def test_from_a_checkpoint_it_goes_on_where_the_run_stands(
    own_home: Path, inside: Callable[..., Any]
) -> None:
    """Weights and moments of step 24: the first loss is far below that of fresh weights."""
    run = own_home / "runs" / "tiny"
    before = digests(run)
    more = ("lr-find", "tiny.yaml", "--steps", "40", "--json")
    fresh = json.loads(inside(own_home, *more).out)
    taken = json.loads(inside(own_home, *more, "--run", "runs/tiny").out)
    first = [found["measured"]["range_test"]["trials"][0]["loss"] for found in (fresh, taken)]
    assert first[1] < first[0] - 0.5
    assert (fresh["first_step"], taken["first_step"]) == (1, 25)
    assert taken["planned_steps"] == 24
    assert digests(run) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "12"], "12 steps are too few"),
        (["--plot", "curve.svg"], "the picture is a PNG"),
        (["--run", "nowhere"], "there is no checkpoint to begin from"),
        (["--run", "runs/tiny", "model.layers=3"], "not the one this run trains"),
        (["--run", "runs/tiny", "train.optimizer.kind=adamw"], "optimizer differs"),
        (["--run", "runs/tiny", "data.filters=[]", "data.folder=o"], "corpus is not the one"),
        (["train.batch_tokens=16384"], "at least 12 are needed to tell a rate from chance"),
        (["model.context=1048576", "train.batch_tokens=1048576"], "less than one row"),
        (["train.optimiser.kind=adamw"], "optimizer"),
    ],
)
def test_what_cannot_work_is_said(
    own_home: Path, inside: Callable[..., Any], arguments: list[str], said: str
) -> None:
    before = digests(own_home / "runs")
    done = inside(own_home, "lr-find", "tiny.yaml", *arguments)
    assert done.status == 2
    assert said in done.error and not done.out
    assert digests(own_home / "runs") == before


def test_ctrl_c_ends_it_without_a_trace(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(own_home)

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lr_finder, "one_step", interrupted)
    done = inside(own_home, "lr-find", "tiny.yaml", "--out", "o")
    assert done.status == 130 and "interrupted" in done.error and not done.out
    assert digests(own_home) == before


def test_a_page_that_cannot_be_written_is_said(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    advice = wellfit.lr_find(own_home / "tiny.yaml", steps=40, changes=FOLDER(own_home))
    monkeypatch.setattr(room, "lr_find", lambda *given, **more: advice)
    (own_home / "taken").write_text("a file")
    for option in ("--html", "--plot", "--out"):
        done = inside(own_home, "lr-find", "tiny.yaml", option, "taken/x.png")
        assert done.status == 2 and "cannot be written" in done.error


def FOLDER(home: Path) -> tuple[str, ...]:  # noqa: N802 (a constant but for the folder)
    return (f"data.folder={home / 'corpora' / 'tiny'}", f"data.sources.0.path={home / 'texts'}")


def test_from_python_nothing_global_changes(own_home: Path) -> None:
    """Random states and the number of threads are as before."""
    import numpy as np
    import torch

    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()
    recipe = wellfit.load_recipe(own_home / "tiny.yaml", FOLDER(own_home))
    advice = wellfit.lr_find(recipe, steps=40)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.get_num_threads() == before[2]
    assert "Learning rate for tiny" in advice_text(advice)
    # A command is to be pasted, and stands on one line however long.
    lines = [one for one in advice_text(advice, 70).splitlines() if "wellfit train" not in one]
    assert [line for line in lines if len(line) > 100] == []
    with pytest.raises(TypeError, match="changes apply to a recipe file"):
        wellfit.lr_find(recipe, changes=("seed=1",))


def test_an_optimizer_without_a_rate_is_said(own_home: Path) -> None:
    recipe = wellfit.load_recipe(own_home / "tiny.yaml")
    bare = type("Bare", (), {"model_dump": lambda self: {"kind": "free", "beta1": 0.9}})()
    train = recipe.train.model_copy(update={"optimizer": bare})
    with pytest.raises(RunError, match="the optimizer free has no learning rate to find"):
        wellfit.lr_find(recipe.model_copy(update={"train": train}))


def test_the_plot_puts_every_point_in_its_place() -> None:
    drawn = plot([(1e-4, 3.0), (1e-3, 2.0), (1e-2, 1.0)], {1e-3: "here"}, 53, height=3)
    assert [line[8:].rstrip().find("•") for line in drawn[:3]] == [0, 20, 40]
    assert drawn[-1].index("↑") == 28
    assert plot([], {}, 60) == []
