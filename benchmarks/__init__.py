"""nanogan beside torch: the same work, in the same run, in alternation. ``python -m benchmarks``."""
