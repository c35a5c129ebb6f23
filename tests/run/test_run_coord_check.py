"""`wellfit coord-check`: flat slopes where rates carry over, and every planted break is seen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wellfit
from wellfit.errors import RunError
from wellfit.model import init
from wellfit.model.transformer import Transformer
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.model_section import Model
from wellfit.run.coord_check import Coordinates, coord_check, line, widths_of
from wellfit.run.coord_check_show import coordinates_text
from wellfit.training.optimizers import width as factors

WIDTHS = (32, 64, 128)
ADAMW = ("train.optimizer.kind=adamw", "train.optimizer.learning_rate=0.003")
SCALED = (ADAMW[0], "train.optimizer.learning_rate=0.002", "model.init=scaled_normal")
SGD = ("train.optimizer.kind=sgd", "train.optimizer.learning_rate=0.3", "model.layers=1")
BASE = "model.base_width=32"


def checked(home: Path, *changes: str, steps: int = 4, seeds: int = 2) -> Coordinates:
    return wellfit.coord_check(
        home / "tiny.yaml", changes=changes, widths=WIDTHS, steps=steps, seeds=seeds
    )


def verdicts(found: Coordinates) -> dict[str, str]:
    return {one.kind: one.verdict for one in found.lines}


@pytest.fixture
def here(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(own_home)
    return own_home


FLAT = {
    "adamw": ADAMW,
    "adamw, scaled_normal": SCALED,
    "adamw, tied and scaled": (
        *ADAMW, "model.tie_embeddings=true", "model.scale_embeddings=true", "model.context=32",
    ),
    "muon": (),
    "muon, a mixture": ("model.experts.count=4",),
    "lion": ("train.optimizer.kind=lion", "train.optimizer.learning_rate=0.001"),
    "adamw, wider heads": (*ADAMW, "model.base_head_width=16", "model.qk_norm=false"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_with_a_base_width_all_changes_are_as_large_at_every_width(here: Path, name: str) -> None:
    """Slopes within ±0.25, two seeds.

    Breaks: those of `test_a_planted_break_is_seen`, here without a patch.
    """
    found = checked(here, *FLAT[name], BASE, steps=3 if "scaled_normal" in name else 4)
    assert found.steady, coordinates_text(found)
    assert all(abs(one.change_slope or 9) < 0.25 for one in found.lines)


@pytest.mark.parametrize(("changes", "logits"), [(ADAMW, 0.9), ((), 0.6)])
def test_without_one_they_grow_with_the_width(
    here: Path, changes: tuple[str, ...], logits: float
) -> None:
    """Of AdamW everything but the embedding, of Muon the logits, which AdamW's head makes."""
    found = checked(here, *changes)
    assert not found.steady
    slopes = {one.kind: one.change_slope or 0 for one in found.lines}
    assert slopes["logits"] > logits
    assert abs(slopes["embedding"]) < 0.1
    expected = (
        ("attention", "feed-forward", "residual stream", "logits") if changes else ("logits",)
    )
    assert [one.kind for one in found.lines if one.verdict == "grows"] == list(expected)


def _no_multiplier(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Transformer, "_before_output", lambda self, hidden: hidden)


def _no_factors(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(factors, "EXPONENTS", {kind: {} for kind in factors.EXPONENTS})


def _no_smaller_matrices(patch: pytest.MonkeyPatch) -> None:
    whole = init.standard_deviation

    def of_base(model: Any, name: str, role: Any, shape: Any) -> float:
        again = math.sqrt(model.model.width_ratio) if role == "matrix" else 1.0
        return whole(model, name, role, shape) * again

    patch.setattr(init, "standard_deviation", of_base)


BREAKS = {
    "output multiplier dropped": (_no_multiplier, ADAMW, "logits", "grows"),
    "output multiplier dropped, muon": (_no_multiplier, (), "logits", "grows"),
    "factors dropped": (_no_factors, ADAMW, "residual stream", "grows"),
    "factors dropped, sgd": (_no_factors, SGD, "logits", "vanishes"),
    "matrices as large as at the base": (_no_smaller_matrices, SCALED, "attention", "grows"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_planted_break_is_seen(here: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each rule dropped alone: what it holds then depends on the width."""
    plant, changes, kind, expected = BREAKS[name]
    plant(monkeypatch)
    found = checked(here, *changes, BASE)
    assert verdicts(found)[kind] == expected, coordinates_text(found)
    assert not found.steady


def test_the_command_tells_what_was_measured(own_home: Path, inside: Callable[..., Any]) -> None:
    """Text and JSON of one measurement, and the exit status. Break tried: status 0 always."""
    arguments = ("coord-check", "tiny.yaml", "--widths", "32,64", "--steps", "3", "--seeds", "1")
    told = inside(own_home, *arguments, "--json")
    assert told.status == 1, told.error
    found = json.loads(told.out)
    assert found["widths"] == [32, 64] and found["steps"] == 3 and not found["steady"]
    assert [one["kind"] for one in found["lines"]][-1] == "logits"
    assert found["lines"][-1]["change_slope_error"] is None
    text = inside(own_home, *arguments)
    assert text.status == 1
    for one in found["lines"]:
        for size in (*one["start"], *one["change"]):
            assert f"{size:.3g}" in text.out
        assert one["change_slope"] is None or f"{one['change_slope']:+.2f}" in text.out
    assert "grows: logits" in text.out
    assert "Set model.base_width to the width that the rates were found at, such as 32." in text.out
    flat = inside(own_home, *arguments, BASE)
    assert flat.status == 0, flat.out
    assert "rates found at one of these widths should do at the others" in flat.out


def test_wrong_widths_are_refused(own_home: Path, inside: Callable[..., Any]) -> None:
    for wrong, said in (
        ("32", "a slope needs at least two different widths"),
        ("32,x", "'32,x' are no widths"),
        ("32,0", "'32,0' are no widths"),
        ("32,50", "64 hidden features at width 32 are 100 at width 50|at width 50"),
    ):
        done = inside(own_home, "coord-check", "tiny.yaml", BASE, "--widths", wrong)
        assert done.status == 2
        assert any(part in done.error for part in said.split("|")), done.error
    assert widths_of("") == ()
    with pytest.raises(RunError, match="Give whole numbers"):
        widths_of("-3")


def test_a_module_of_ones_own_is_refused() -> None:
    """Break: take the refusal away; the recipe's width is then none of the module's."""
    values = {
        "name": "own",
        "data": {"sources": [{"path": "texts"}]},
        "model": {"context": 16, "module": {"run_guests:Recurrent": {}}},
        "train": {"budget": {"steps": 1}, "document_mask": False},
    }
    with pytest.raises(RunError, match="a module of your own has no width"):
        coord_check(parse_recipe(values))


def test_verdicts_of_known_sizes() -> None:
    """Sizes made by hand. Breaks tried: slopes of the start judged; the sign turned round."""

    def told(*sizes: float) -> str:
        return line("logits", (10, 20, 40), [[(1.0, size) for size in sizes]] * 2).verdict

    assert told(3, 3.1, 3.2) == "steady"
    assert told(3, 4.5, 6.5) == "grows"
    assert told(6.5, 4.5, 3) == "vanishes"
    assert (
        line("logits", (10, 20), [[(1.0, 1.0), (1.0, x)] for x in (1, 2)]).verdict == "not settled"
    )
    assert told(0, 0, 0) == told(1, 0, 1) == "does not move"
    assert told(1, math.nan, 1) == told(1, math.inf, 1) == "not finite"


def test_a_model_at_its_own_width_is_itself(here: Path) -> None:
    """What is measured at the recipe's width is the recipe's model."""
    recipe = wellfit.load_recipe("tiny.yaml")
    from wellfit.recipe.widths import at_width

    assert at_width(recipe.model, recipe.model.width, "heads") == recipe.model
    assert isinstance(at_width(recipe.model, 64, "head_width"), Model)
