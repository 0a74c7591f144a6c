"""Parsers of data sets' files. They are strict: nothing in a file is executed, and no size in it is trusted."""
