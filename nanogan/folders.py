"""What a folder of the package contains, so that adding to it takes one new file and no list."""

import importlib
import pkgutil


def modules_in(package):
    """Import the files and folders directly in ``package``, a dotted name; return the modules in order of their names.

    ``__main__.py`` is a command and is left out. An error that a file raises when imported is passed on.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return [importlib.import_module(f"{package}.{name}") for name in names if name != "__main__"]
