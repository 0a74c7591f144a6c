"""Files in which writing goes wrong, put in place of the ``open`` of a module."""

import errno


class Written:
    """An open file whose writing is done by ``write(file, data)``."""

    def __init__(self, file, write):
        self.file, self._write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self._write(self.file, data)


def fill_the_disk(monkeypatch, module, room=100):
    """Let every file that ``module`` writes take ``room`` bytes more, then none."""

    def write(file, data):
        file.write(data[:room])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "open", lambda *arguments: Written(open(*arguments), write), raising=False)
