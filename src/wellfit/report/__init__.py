"""RUN FOLDER → PAGE: one HTML file for a browser, one text for a terminal."""

from __future__ import annotations

from wellfit.report.page import write_report
from wellfit.report.terminal import diagnosis_text

__all__ = ["diagnosis_text", "write_report"]
