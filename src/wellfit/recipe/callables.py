"""A function named in a recipe in; the function with its arguments checked and bound out.

    too_short                             a built-in, or a short name that a package published
    {too_short: {min_characters: 20}}     with arguments
    my_package.filters:too_salesy         any importable function

What wellfit passes in (the text, the document) are the function's positional parameters without
a default; the others are its settings, and only those can be given in a recipe.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import types
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from wellfit.errors import RecipeError
from wellfit.recipe.names import suggest
from wellfit.recipe.schema import Call, Data
from wellfit.recipe.yaml_lines import Place, dotted

KINDS = (("data", "clean"), ("data", "filters"), ("model", "module"), ("train", "loss"))
"""Settings that hold calls; the last part names the kind, and entry points are `wellfit.<kind>`."""
SINGLE = ("module", "loss")
"""Kinds of which a recipe names one, not a list."""


def resolve(
    call: Call, builtins: Mapping[str, Callable[..., Any]], kind: str
) -> Callable[..., Any]:
    """A call, the built-ins by name and their kind (`filters`) → the function, arguments bound.

    Raises RecipeError with every fault: an unknown name, a module that does not import, arguments
    that the function does not take, lacks, or takes as another simple type.

    >>> resolve(Call(name="shout", arguments={"mark": "?"}),
    ...         {"shout": lambda text, mark="!": text.upper() + mark}, "clean")("so")
    'SO?'
    """
    function, faults = _find(call.name, builtins, kind)
    arguments: dict[str, Any] = {}
    if function is not None:
        arguments, faults = _bound(function, call)
    if function is None or faults:
        raise RecipeError(faults)
    return partial(function, **arguments) if arguments else function


def call_faults(
    recipe: Mapping[str, Any], known: Mapping[str, Mapping[str, Callable[..., Any]]]
) -> list[tuple[Place, str]]:
    """A recipe as written and the built-ins by kind → (place, what is wrong) for each bad call.

    A kind that is not among `known` is not checked; nor is what is no call at all, since the
    schema reports that.
    """
    faults: list[tuple[Place, str]] = []
    for section, kind in KINDS:
        holder = recipe.get(section)
        default = None if kind in SINGLE else Data.model_fields[kind].default
        calls = holder.get(kind, default) if isinstance(holder, Mapping) else default
        if kind in SINGLE:
            calls = () if calls is None else (calls,)
        if kind not in known or not isinstance(calls, list | tuple):
            continue
        for index, written in enumerate(calls):
            try:
                call = Call.model_validate(written, strict=True)
                resolve(call, known[kind], kind)
            except ValidationError:
                continue
            except RecipeError as refused:
                place: Place = (section, kind) if kind in SINGLE else (section, kind, index)
                faults += [(place, f"{dotted(place)} = {told}") for told in refused.faults]
    return faults


def version_of(function: Callable[..., Any]) -> str:
    """A function, bound or not → 16 hex digits that change with its source file or arguments.

    A function without a Python source file counts by its name and its module's version.
    Raises TypeError when a bound argument is nothing that JSON can hold.
    """
    arguments: dict[str, Any] = {}
    positional: list[Any] = []
    while isinstance(function, partial):
        arguments = {**function.keywords, **arguments}
        positional = [*function.args, *positional]
        function = function.func
    name = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
    digest = hashlib.sha256()
    digest.update(name.encode())
    digest.update(_source(function))
    digest.update(json.dumps([positional, arguments], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _source(function: Callable[..., Any]) -> bytes:
    inner = inspect.unwrap(function)
    for candidate in (inner, type(inner)):
        try:
            file = inspect.getsourcefile(candidate)
        except TypeError:
            continue
        if file is not None and Path(file).is_file():
            return Path(file).read_bytes()
    module = importlib.import_module(function.__module__)
    return str(getattr(module, "__version__", "")).encode()


def _find(
    name: str, builtins: Mapping[str, Callable[..., Any]], kind: str
) -> tuple[Callable[..., Any] | None, list[str]]:
    if name in builtins:
        return builtins[name], []
    if ":" in name:
        return _imported(name)
    published = {point.name: point for point in entry_points(group=f"wellfit.{kind}")}
    if name in published:
        try:
            function = published[name].load()
        except Exception as fault:  # another package's code: anything can happen there
            told = f"{type(fault).__name__}: {fault}"
            return None, [f"{name}: the package that brings it does not load ({told})"]
        return (function, []) if callable(function) else (None, [f"{name}: not a function"])
    known = sorted({*builtins, *published})
    near = suggest(name, known)
    meant = f"did you mean {near}? " if near else ""
    return None, [
        f"{name}: not among the functions of `{kind}`; {meant}"
        f"there are {', '.join(known) or 'none'}; own functions are written package.module:function"
    ]


def _imported(name: str) -> tuple[Callable[..., Any] | None, list[str]]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        return None, [f"{name}: own functions are written package.module:function"]
    try:
        function: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as fault:
        missing = fault.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            told = f"there is no module {missing}; install it, or put its folder on PYTHONPATH"
        else:
            told = f"its module needs {missing}, which is not installed"
        return None, [f"{name}: {told}"]
    except Exception as fault:  # the user's own code: anything can happen there
        return None, [f"{name}: its module does not import ({type(fault).__name__}: {fault})"]
    for part in attribute.split("."):
        present = [one for one in dir(function) if not one.startswith("_")]
        if not hasattr(function, part):
            near = suggest(part, present)
            meant = f"; did you mean {near}?" if near else ""
            return None, [f"{name}: {module_name} has no {part}{meant}"]
        function = getattr(function, part)
    if not callable(function):
        return None, [f"{name}: a {type(function).__name__}, not a function"]
    return function, []


def _bound(function: Callable[..., Any], call: Call) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a call, checked against the signature, and what is wrong with them."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, SyntaxError):  # annotations that cannot be looked up
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C, without a signature: nothing to check against
        return dict(call.arguments), []
    takes_any = False
    options: dict[str, inspect.Parameter] = {}
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind is parameter.KEYWORD_ONLY or (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and parameter.default is not parameter.empty
        ):
            options[parameter.name] = parameter
    arguments: dict[str, Any] = {}
    faults: list[str] = []
    for key, value in call.arguments.items():
        parameter_of = options.get(key)
        if parameter_of is None:
            if takes_any:
                arguments[key] = value
                continue
            near = suggest(key, options)
            meant = f"did you mean {near}? " if near else ""
            has = f"it takes {', '.join(options)}" if options else "it takes no arguments"
            faults.append(f"{call.name}: {key} is not an argument; {meant}{has}")
            continue
        arguments[key], fits = _fitted(value, parameter_of.annotation)
        if not fits:
            wanted = inspect.formatannotation(parameter_of.annotation)
            faults.append(f"{call.name}: {key} = {value!r}: give {_words(wanted)}")
    for name, parameter in options.items():
        if parameter.default is parameter.empty and name not in arguments:
            faults.append(f"{call.name}: {name} is missing; write {{{call.name}: {{{name}: …}}}}")
    return arguments, faults


def _words(wanted: str) -> str:
    words = {
        "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
    }  # fmt: skip
    return words.get(wanted, wanted)


def _fitted(value: Any, annotation: Any) -> tuple[Any, bool]:
    """A value and the annotation of its parameter → the value to pass, and whether it fits.

    Only simple types are judged; what cannot be judged fits.
    """
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        tries = [_fitted(value, part) for part in get_args(annotation)]
        return next(((own, True) for own, fits in tries if fits), (value, False))
    if origin is Literal:
        return value, value in get_args(annotation)
    if annotation is bool:
        return value, isinstance(value, bool)
    if annotation is int:
        if isinstance(value, float) and value.is_integer():
            return int(value), True
        return value, isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return (float(value), True) if fits else (value, False)
    if annotation is str:
        return value, isinstance(value, str)
    if annotation is None or annotation is type(None):
        return value, value is None
    if origin in (list, tuple, set, frozenset):
        return (tuple(value) if origin is tuple else value), isinstance(value, list | tuple)
    if origin is dict:
        return value, isinstance(value, dict)
    return value, True
