"""What the package raises on purpose.

A message is one sentence: what was found, where, what was expected, the way out. ``option`` is the keyword that is
meant, ``file`` the file or folder, ``tensor`` the tensor; each is empty where the error is about none.
"""

from __future__ import annotations


class _Subject(BaseException):
    """The subject of an error, as far as it is known."""

    option: str
    file: str
    tensor: str

    def __init__(self, message: str = "", *, option: str = "", file: str = "", tensor: str = "") -> None:
        super().__init__(message)
        self.option = option
        self.file = file
        self.tensor = tensor

    def __reduce__(self):  # so that a process pool can hand it back
        return _restored, (type(self), str(self), self.option, self.file, self.tensor)


def _restored(kind: type, message: str, option: str, file: str, tensor: str):
    return kind(message, option=option, file=file, tensor=tensor)


class Error(_Subject, RuntimeError):
    """Whatever ends a job and is none of those below."""


class InputError(_Subject, ValueError):
    """You can fix it: a file, an option, a folder."""


class UnsupportedError(InputError):
    """The input is sound, but this package does not know the kind."""


class ExistsError(InputError):
    """The output exists, or another run is writing it: name another, or pass ``overwrite=True``."""


class DeviceError(Error):
    """A device ran out of memory or failed."""


class OutOfMemory(DeviceError, MemoryError):
    """There is no room for what was asked; less may fit."""


class Cancelled(_Subject, KeyboardInterrupt):
    """The job was asked to stop."""


class GptqWarning(UserWarning):
    """What a job warns of: it goes on."""
