"""One family of exceptions: what was wrong, and what to do about it, in one line.

Everything that a user can do wrong, and everything that can be wrong with a file, raises a subclass of
`ShvcError`, so that a program needs one `except` and the command line prints one line instead of a traceback.
Two of them are also the built-in exception a Python programmer would expect (`InvalidInput` is a `ValueError`,
`MissingData` a `FileNotFoundError`).
"""


class ShvcError(Exception):
    """Base class of every error that `shvc_lib` raises on purpose."""


class InvalidInput(ShvcError, ValueError):
    """An argument has the wrong type, shape, range or value."""


class OutOfBits(ShvcError):
    """A pop asked for more bits than the stack holds. The stack is left as it was."""


class CorruptFile(ShvcError):
    """The file is not one of ours, or its contents contradict its checksums."""


class TruncatedFile(CorruptFile):
    """The file ends before its header says it does."""


class UnknownModel(ShvcError, KeyError):
    """No model of this name (or with this checksum) is registered."""

    def __str__(self):  # KeyError would print the message in quotes
        return self.args[0] if self.args else ""


class UnsupportedImage(ShvcError, ValueError):
    """The image's mode, depth or shape is not one that the codec takes."""


class MissingData(ShvcError, FileNotFoundError):
    """A data set is not on this machine; the message names both ways of getting it."""


class DownloadFailed(ShvcError, OSError):
    """A download ended early or failed its checksum. What was received is kept, and the next try goes on from there."""
