"""One page about one run: ``python -m nanogan.report RUN_FOLDER`` writes it."""

from nanogan.report.page import write_report

__all__ = ["write_report"]
