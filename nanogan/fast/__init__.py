"""Fast paths: the operations of ``nanogan.ops`` again, with the same signatures, made for speed.

``nanogan.ops`` is the truth and the book; :mod:`nanogan.dispatch` chooses, and NANOGAN_FAST=0 turns everything off.
What a path does not serve goes to ``nanogan.ops``. Nothing imports these files but dispatch, when a device is used.
"""
