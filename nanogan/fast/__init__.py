"""Fast paths: the operations of ``nanogan.ops`` again, with the same signatures, made for speed.

``nanogan.ops`` is the truth and the book; ``nanogan.backend.dispatch`` chooses, and NANOGAN_FAST=0 turns everything
here off. What a path does not serve goes to ``nanogan.ops``.
"""
