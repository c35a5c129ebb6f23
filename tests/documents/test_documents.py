"""Every `python` and `sh` block in the README and docs/ runs, in order, in a copy of a real home.

Blocks that only draw or show output carry another word after the fence. Lines that begin with
`make` are what CI itself runs and are passed over here. A budget in steps that a page gives is cut
to a few of them: the command is what is tested, not the patience.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BUDGET = re.compile(r"(train\.budget\.steps=)\d+")
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.M | re.S)


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in BLOCK.findall(page.read_text())]


# Many commands, each a process of its own; tests/run does the same in process by default.
LONG = {
    "howto-adapters.md",
    "howto-encoders.md",
    "howto-examples.md",
    "howto-generate.md",
    "howto-guests.md",
    "howto-lr-find.md",
    "howto-memory.md",
    "howto-weights.md",
    "howto-width-transfer.md",
}
WITH_BLOCKS = [
    pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in LONG else [])
    for page in PAGES
    if blocks(page)
]


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_snippets_run(page: Path, own_home: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for kind, text in blocks(page):
        if kind == "python":
            command = [sys.executable, "-c", text]
        else:
            lines = [line for line in text.splitlines() if not line.startswith("make ")]
            short = BUDGET.sub(r"\g<1>4", "\n".join(lines))
            command = ["sh", "-euc", short]
        done = subprocess.run(
            command,
            cwd=own_home,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path},
        )
        assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stdout}\n{done.stderr}"


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name} → {target}")
    assert not broken


def test_no_addresses_of_this_machine_or_registries() -> None:
    found = []
    for page in [*PAGES, *ROOT.glob("*.toml"), ROOT / "constraints.txt", ROOT / "Makefile"]:
        text = page.read_text()
        found += [f"{page.name}: {hit}" for hit in re.findall(r"/(?:root|home|work|opt)/\S+", text)]
    assert not found
