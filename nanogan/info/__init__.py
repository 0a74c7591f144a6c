"""What nanogan finds on this machine: ``python -m nanogan.info``."""

from nanogan.info.machine import machine_of_a_run, report

__all__ = ["machine_of_a_run", "report"]
