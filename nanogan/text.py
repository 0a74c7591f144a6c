"""Text from outside, such as names of files, fit for a line of a message."""

import unicodedata


def quoted(name):
    """Return ``name``, a text or a path, as it can stand in one line of a message: nothing in it moves the cursor.

    A line break, an escape sequence or an undecodable byte of a file's name becomes its backslash escape, as in a
    Python string; all else stays as it is, at its full length.
    """
    return "".join(letter if _is_harmless(letter) else ascii(letter)[1:-1] for letter in str(name))


def one_line(error, length=200):
    """Return what an exception says as one line of at most ``length`` characters; its type if it says nothing."""
    return quoted(" ".join(str(error).split()))[:length] or type(error).__name__


def _is_harmless(letter):
    return letter.isprintable() or unicodedata.category(letter) == "Zs"  # wide and narrow spaces too
