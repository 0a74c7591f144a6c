"""What a trained GAN knows: the DCGAN paper's experiments and some of its successors', each a function and an example.

Functions take networks and arrays and return pictures and numbers; the scripts in ``examples/`` read checkpoints and
data, and write PNG or GIF files and a JSON file of the numbers. What each showed is in ``docs/experiments.md``.
"""
