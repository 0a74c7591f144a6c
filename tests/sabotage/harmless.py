"""Mistakes made by rule that change nothing that anyone could notice: their titles, and why."""

HARMLESS = {}
