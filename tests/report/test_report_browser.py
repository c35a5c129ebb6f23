"""The page in a real browser: it draws, stays within the width, and obeys its policy."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_runs import Write

from wellfit.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--virtual-time-budget=4000",
    "--enable-logging=stderr",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]


def browse(page: Path, tmp_path: Path, *options: str) -> tuple[str, str]:
    """What the browser makes of a page: its elements after drawing, and its messages."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def framed(page: Path, width: int, tmp_path: Path) -> Path:
    """A page that shows `page` in a frame of that width and reports its width into its title."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe id="f" src="{page.as_uri()}" '
        f'style="width:{width}px;height:4000px"></iframe>'
        "<script>setTimeout(function () {"
        "const d = document.getElementById('f').contentDocument.documentElement;"
        "document.title = 'widths ' + d.clientWidth + ' ' + d.scrollWidth + ' '"
        "+ d.querySelectorAll('.chart .main-svg').length; }, 2000)</script>",
        "utf-8",
    )
    return frame


def test_all_charts_are_drawn_without_a_complaint(healthy_run: Path, tmp_path: Path) -> None:
    """Breaks when a digest of the policy is wrong (nothing runs) or the script throws."""
    elements, messages = browse(write_report(healthy_run), tmp_path, "--dump-dom")
    assert messages == ""
    for name in ("loss", "rate", "norm", "speed"):
        assert re.search(
            rf'id="chart-{name}"[^>]*class="[^"]*js-plotly-plot', elements
        ) or re.search(rf'class="[^"]*js-plotly-plot[^"]*"[^>]*id="chart-{name}"', elements), name
    assert elements.count('class="xy"') >= 4


def test_hostile_scripts_do_not_run_even_without_escaping(
    healthy_run: Path, tmp_path: Path
) -> None:
    """Breaks when the policy allows inline scripts: the second wall must hold alone."""
    page = write_report(healthy_run)
    text = page.read_text("utf-8")
    attack = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    page.write_text(text.replace("<main>", f"<main>{attack}"), "utf-8")
    elements, messages = browse(page, tmp_path, "--dump-dom")
    assert "<title>taken</title>" not in elements
    assert "Content Security Policy" in messages


def test_names_in_charts_are_not_markup(write: Write, tmp_path: Path) -> None:
    """Breaks when a name reaches plotly without `plain`: plotly would make it a link."""
    link = '<a href="https://example.org">away</a>'
    finding = {"kind": link, "severity": "warning", "since_step": 50}
    run = write(steps=100, diagnosis={"verdict": {}, "findings": [finding]})
    elements, _ = browse(write_report(run), tmp_path, "--dump-dom")
    assert "away" in elements
    assert not re.search(r"<a\s[^>]*example\.org", elements)


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(sick_run: Path, tmp_path: Path, width: int) -> None:
    """Breaks when charts keep the width of a larger window, or a long word is not broken."""
    frame = framed(write_report(sick_run), width, tmp_path)
    elements, _ = browse(frame, tmp_path, "--dump-dom", "--allow-file-access-from-files")
    widths = re.search(r"<title>widths (\d+) (\d+) (\d+)</title>", elements)
    assert widths, elements[:200]
    shown, needed, drawn = map(int, widths.groups())
    assert shown == width
    assert needed <= shown
    assert drawn >= 4


def test_it_prints(healthy_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.pdf"
    browse(write_report(healthy_run), tmp_path, f"--print-to-pdf={out}")
    assert out.read_bytes().startswith(b"%PDF")
    assert out.stat().st_size > 50_000
