"""docs/capabilities.md says only what its tests show."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = tomllib.loads((ROOT / "docs" / "capabilities.toml").read_text())["capability"]


def _generator():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_what_the_generator_writes() -> None:
    generator = _generator()
    for name, page in generator.PAGES.items():
        assert (ROOT / "docs" / name).read_text() == page(), f"run `make docs`: {name} is stale"


def test_every_row_is_whole() -> None:
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row["state"] in {"absent", "works", "proven"}
        if row["state"] == "absent":
            assert not row.get("tests"), f"{row['id']} is absent and names tests"
        else:
            assert row.get("tests"), f"{row['id']} is {row['state']} and names no test"
            assert row.get("covers"), f"{row['id']} does not say what of it is there"
        if row["state"] == "proven":
            assert row.get("result"), f"{row['id']} is proven without a result"


def test_named_tests_exist() -> None:
    for row in ROWS:
        for name in row.get("tests", []):
            file, _, test = name.partition("::")
            text = (ROOT / file).read_text()
            if test:
                assert re.search(rf"def {re.escape(test)}\(", text), f"{row['id']}: no {name}"


def test_proven_rows_name_a_test_that_a_deliberate_break_failed() -> None:
    """A proof stands on a test whose own docstring names the break that was tried."""
    for row in ROWS:
        if row["state"] == "proven":
            named = [name for name in row["tests"] if _names_a_break(*name.split("::"))]
            assert named, f"{row['id']}: no deliberate break is named"


def _names_a_break(file: str, test: str) -> bool:
    tree = ast.parse((ROOT / file).read_text())
    found = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == test
    ]
    docstring = ast.get_docstring(found[0]) or ""
    return bool(re.search(r"Break|Fails (when|if|with)", docstring))
