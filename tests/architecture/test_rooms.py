"""The rules of the house, as tests: who may import whom, what stays light, how long a file is."""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import wellfit

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "wellfit"

LIGHT = [
    "wellfit",
    "wellfit.api",
    "wellfit.cli",
    "wellfit.errors",
    "wellfit.records",
    "wellfit.recipe",
    "wellfit.recipe.load",
    "wellfit.recipe.shapes",
    "wellfit.recipe.show",
    "wellfit.monitor.folder",
    "wellfit.monitor.history",
    "wellfit.monitor.metrics",
    "wellfit.diagnosis",
    "wellfit.report",
    "wellfit.report.page",
    "wellfit.report.terminal",
    "wellfit.data.build",
    "wellfit.data.batches",
    "wellfit.data.locate",
    "wellfit.plan.plan",
    "wellfit.plan.text",
    "wellfit.run.load",
    "wellfit.run.plan",
    "wellfit.run.init",
]
HEAVY = ("torch", "transformers", "matplotlib", "plotly")


def test_rooms_import_only_from_rows_below() -> None:
    """Break tried: `import wellfit.training.loop` in monitor/listen.py."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_light_modules_stay_light() -> None:
    """One fresh interpreter imports them all. Break tried: `import torch` atop report/page.py."""
    code = "\n".join(
        [
            "import importlib, sys",
            f"for name in {LIGHT!r}:",
            "    importlib.import_module(name)",
            f"    heavy = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]",
            "    assert not heavy, (name, heavy)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_answers_within_200_ms_without_torch() -> None:
    """In processor time, since other tests share the cores: alone, `--help` waits for nothing."""
    command = Path(sys.executable).parent / "wellfit"
    best = float("inf")
    for _ in range(10):
        before = _processor_seconds()
        subprocess.run([str(command), "--help"], check=True, capture_output=True)
        best = min(best, _processor_seconds() - before)
        if best <= 0.2:
            break
    assert best <= 0.2, f"the quickest of ten took {best * 1000:.0f} ms"


def _processor_seconds() -> float:
    """What all ended children of this process have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_importing_wellfit_loads_nothing_else() -> None:
    code = "import sys; old = set(sys.modules); import wellfit; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name.startswith("wellfit")] == ["wellfit"]
    assert not {"numpy", "pydantic", "torch"} & set(done.stdout.split())


def test_public_names() -> None:
    assert wellfit.__all__ == sorted(wellfit.__all__)
    assert [name for name in wellfit.__all__ if callable(getattr(wellfit, name))] == [
        "WellfitError",
        "coord_check",
        "diagnose",
        "evaluate",
        "export",
        "generate",
        "inspect_model",
        "load_recipe",
        "lr_find",
        "predict",
        "train",
    ]
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = wellfit.trian


def test_public_functions_survive_importing_the_rooms() -> None:
    """A room called like a function would shadow it as soon as it is imported."""
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert not rooms & set(wellfit.__all__)


def test_examples_in_docstrings_are_part_of_the_suite(pytestconfig: pytest.Config) -> None:
    """pytest itself collects them, in every room. Break tried: no `--doctest-modules`."""
    assert pytestconfig.getoption("doctestmodules")
    assert "src" in pytestconfig.getini("testpaths")


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCE.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long


def test_no_print_quit_or_environment_in_the_library() -> None:
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if called and node.func.id in {"print", "quit", "exit"}:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id}()")
            reads = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
            if reads and path.name != "cli.py":
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: the environment")
    assert not found


def test_nothing_is_unpickled_and_nothing_is_sent_away() -> None:
    """The pipe to our own worker processes pickles; the lock asks for this machine's name.

    Break tried: `import urllib.request` in api.py; `torch.load` in run/weights.py.
    """
    unsafe = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    outside = {"socket", "urllib", "http", "ftplib", "smtplib", "requests", "httpx", "aiohttp"}
    allowed = {
        SOURCE / "data" / "engine" / "workers.py": {"pickle"},
        SOURCE / "monitor" / "lock.py": {"socket"},
    }
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load":
                names = ["pickle"]
            for name in {name.split(".")[0] for name in names} & (unsafe | outside):
                if name not in allowed.get(path, set()):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found


def test_no_names_without_meaning() -> None:
    banned = {"utils", "util", "common", "helpers", "misc"}
    assert not [path for path in SOURCE.rglob("*") if path.stem in banned]


def test_readme_tree_names_the_rooms_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    match = re.search(r"```text tree\n(.*?)```", readme, re.S)
    assert match, "the README has no captioned tree"
    named: list[Path] = []
    parents: list[str] = []
    for line in match[1].splitlines():
        entry = re.match(r"( *)([\w.\-/]+)", line)
        if not entry:
            continue
        depth = len(entry[1]) // 2
        parents = [*parents[:depth], entry[2].rstrip("/")]
        named.append(ROOT.joinpath(*parents))
    missing = [str(path) for path in named if not path.exists()]
    assert not missing
    rooms = {path for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(named), f"not in the README's tree: {rooms - set(named)}"
