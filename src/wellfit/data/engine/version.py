"""Functions → a digest of the code that decides their result."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

_OUR_CODE = ("wellfit.data", "wellfit.records")
"""Modules that count as code of a data task; other rooms cannot change what a task writes."""


def code_version(functions: Iterable[Callable[..., Any]]) -> str:
    """Functions → hex digest of their source, of what it imports, and of libraries' versions.

    Followed are imports of the data room (at any depth, also inside functions) and the versions of
    installed packages and of Python, so an upgrade that may change a result is never overlooked.
    """
    digest = hashlib.sha256(f"python {sys.version_info.major}.{sys.version_info.minor}".encode())
    modules: set[str] = set()
    for name in sorted({function.__module__ for function in functions}):
        _follow(name, modules)
    packages: set[str] = set()
    for name in sorted(modules):
        source, imported = _source(name)
        digest.update(f"\0{name}\0{hashlib.sha256(source).hexdigest()}".encode())
        packages.update(entry.partition(".")[0] for entry in imported)
    for package in sorted(packages - {"wellfit"} - sys.stdlib_module_names):
        version = _installed(package)
        if version is not None:
            digest.update(f"\0{package} {version}".encode())
    return digest.hexdigest()


def _follow(name: str, seen: set[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    for imported in _source(name)[1]:
        if imported.startswith(_OUR_CODE) and importlib.util.find_spec(imported):
            _follow(imported, seen)


@functools.cache
def _source(name: str) -> tuple[bytes, frozenset[str]]:
    """Name of a module → its source and the names that it may import."""
    spec = importlib.util.find_spec(name) if name != "__main__" else None
    file = spec.origin if spec else getattr(sys.modules.get(name), "__file__", None)
    if not file or not file.endswith(".py"):
        return b"", frozenset()
    source = Path(file).read_bytes()
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            if node.module.startswith("wellfit"):
                names.update(
                    full
                    for alias in node.names
                    if _is_module(full := f"{node.module}.{alias.name}")
                )
    return source, frozenset(names)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@functools.cache
def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
