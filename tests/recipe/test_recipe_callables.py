"""Functions that recipes name: found, checked against their signatures, versioned."""

from __future__ import annotations

import string
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import pytest

from wellfit.errors import RecipeError
from wellfit.recipe import callables
from wellfit.recipe.callables import resolve, version_of
from wellfit.recipe.schema import Call


def too_short(
    document: str,
    *,
    minimum: int,
    share: float = 0.5,
    strict: bool = False,
    unit: Literal["words", "characters"] = "words",
    words: tuple[str, ...] = (),
    note: str | None = None,
) -> tuple[Any, ...]:
    return (document, minimum, share, strict, unit, words, note)


def anything(text: str, **options: Any) -> dict[str, Any]:
    return options


BUILTINS: dict[str, Callable[..., Any]] = {"too_short": too_short, "anything": anything}


def call(name: str, **arguments: Any) -> Call:
    return Call(name=name, arguments=arguments)


def faults(name: str, **arguments: Any) -> list[str]:
    with pytest.raises(RecipeError) as refused:
        resolve(call(name, **arguments), BUILTINS, "filters")
    return refused.value.faults


def test_arguments_are_bound_and_fitted() -> None:
    function = resolve(
        call("too_short", minimum=3.0, share=1, words=["a"], note=None), BUILTINS, "filters"
    )
    assert function("d") == ("d", 3, 1.0, False, "words", ("a",), None)
    assert type(function("d")[1]) is int
    assert resolve(call("anything", x=1), BUILTINS, "filters")("t") == {"x": 1}
    assert resolve(call("anything"), BUILTINS, "filters") is anything


def test_every_wrong_argument_at_once() -> None:
    """Breaks when the binding stops at the first fault."""
    assert faults("too_short", minimun=3, share="x", strict=1, unit="bytes", words="a", note=3) == [
        "too_short: minimun is not an argument; did you mean minimum? "
        "it takes minimum, share, strict, unit, words, note",
        "too_short: share = 'x': give a number",
        "too_short: strict = 1: give true or false",
        "too_short: unit = 'bytes': give Literal['words', 'characters']",
        "too_short: words = 'a': give tuple[str, ...]",
        "too_short: note = 3: give str | None",
        "too_short: minimum is missing; write {too_short: {minimum: …}}",
    ]
    assert faults("too_short", minimum=True) == ["too_short: minimum = True: give a whole number"]
    assert faults("too_short", minimum=1.5) == ["too_short: minimum = 1.5: give a whole number"]


def test_what_wellfit_passes_in_is_no_argument() -> None:
    (fault, *_) = faults("too_short", document="x", minimum=1)
    assert fault.startswith("too_short: document is not an argument")


def test_names_that_do_not_exist() -> None:
    (fault,) = faults("too_shrt")
    assert fault == (
        "too_shrt: not among the functions of `filters`; did you mean too_short? there are "
        "anything, too_short; own functions are written package.module:function"
    )
    assert "there is no module no_such_thing; install it" in faults("no_such_thing.x:f")[0]
    assert "string has no capword; did you mean capwords?" in faults("string:capword")[0]
    assert "string:digits: a str, not a function" in faults("string:digits")[0]
    assert "written package.module:function" in faults(":f")[0]


def test_any_importable_function() -> None:
    assert resolve(call("string:capwords"), {}, "clean") is string.capwords
    assert resolve(call("string:capwords", sep="-"), {}, "clean")("a-b") == "A-B"


def test_functions_without_a_signature_are_taken_as_they_are() -> None:
    assert resolve(call("builtins:min", default=3), {}, "filters")([]) == 3


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Name and source → a module that can be imported during the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def make(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        sys.modules.pop(name, None)
        made.append(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


def test_modules_that_do_not_import(module: Callable[[str, str], None]) -> None:
    module("wellfit_test_needs", "import wellfit_test_not_there\n")
    (fault,) = faults("wellfit_test_needs:f")
    assert "its module needs wellfit_test_not_there, which is not installed" in fault
    module("wellfit_test_breaks", "1 / 0\n")
    (fault,) = faults("wellfit_test_breaks:f")
    assert "its module does not import (ZeroDivisionError: division by zero)" in fault


def test_annotations_that_cannot_be_looked_up(module: Callable[[str, str], None]) -> None:
    module(
        "wellfit_test_later",
        "from __future__ import annotations\ndef f(text, limit: NotThere = 3): return limit\n",
    )
    assert resolve(call("wellfit_test_later:f", limit=4), {}, "filters")("t") == 4


def test_short_names_of_published_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def published(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [
            EntryPoint("capital", "string:capwords", group),
            EntryPoint("broken", "no_such_thing:f", group),
            EntryPoint("number", "string:digits", group),
        ]

    monkeypatch.setattr(callables, "entry_points", published)
    assert resolve(call("capital"), BUILTINS, "filters") is string.capwords
    assert asked == ["wellfit.filters"]
    assert "the package that brings it does not load" in faults("broken")[0]
    assert faults("number") == ["number: not a function"]
    assert "did you mean capital?" in faults("capitl")[0]
    assert resolve(call("too_short", minimum=1), BUILTINS, "filters").func is too_short  # type: ignore[attr-defined]


def test_version_follows_source_and_arguments(module: Callable[[str, str], None]) -> None:
    """Breaks when the arguments, or the source, are left out of the digest."""
    module("wellfit_test_version", "def f(text, n=1): return text\n")
    first = resolve(call("wellfit_test_version:f"), {}, "filters")
    bound = resolve(call("wellfit_test_version:f", n=2), {}, "filters")
    versions = [version_of(first), version_of(bound), version_of(partial(first, n=3))]
    assert len(set(versions)) == 3
    assert version_of(partial(bound, n=3)) == versions[2]
    assert version_of(partial(partial(first), n=2)) == versions[1]
    assert all(len(version) == 16 for version in versions)
    module("wellfit_test_version", "def f(text, n=1): return text + ' '\n")
    again = resolve(call("wellfit_test_version:f"), {}, "filters")
    assert version_of(again) != versions[0]


def test_version_of_functions_without_source_and_of_objects() -> None:
    class Marked:
        def __call__(self, text: str) -> str:
            return text

    assert version_of(unicodedata.normalize) != version_of(unicodedata.name)
    assert version_of(Marked()) == version_of(Marked())
    with pytest.raises(TypeError):
        version_of(partial(too_short, minimum=object()))
