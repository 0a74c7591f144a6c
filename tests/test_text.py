"""Names of files in messages."""

import os
from pathlib import Path

import pytest

from nanogan.text import one_line, quoted


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("图片 写真/é.png", "图片 写真/é.png"),
        ("C:\\photos\\new.png", "C:\\photos\\new.png"),
        ("wide\u3000and narrow\u202fspaces.png", "wide\u3000and narrow\u202fspaces.png"),
        ("two\nlines\r.png", "two\\nlines\\r.png"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("line\u2028separator, \u202eright to left", "line\\u2028separator, \\u202eright to left"),
        (os.fsdecode(b"caf\xe9.png"), "caf\\udce9.png"),
        ("", ""),
        (Path("a\tb"), "a\\tb"),
    ],
)
def test_a_name_is_fit_for_one_line(name, expected):
    assert quoted(name) == expected
    quoted(name).encode()  # no surrogates are left


def test_a_long_name_is_not_cut():
    assert quoted(300 * "é") == 300 * "é"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("two\n lines"), "two lines"),
        (ValueError("\x1b[31mred"), r"\x1b[31mred"),
        (ValueError("x" * 300), "x" * 200),
        (KeyError(), "KeyError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_an_error_in_one_line(error, expected):
    assert one_line(error) == expected
