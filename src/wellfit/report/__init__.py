"""RUN FOLDER → PAGE: one HTML file for a browser, one text for a terminal.

Each name is loaded when it is first used: the terminal's text must not wait for the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wellfit.report.page import write_report
    from wellfit.report.terminal import diagnosis_text

__all__ = ["diagnosis_text", "write_report"]

_HOME = {
    "diagnosis_text": "wellfit.report.terminal",
    "write_report": "wellfit.report.page",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
