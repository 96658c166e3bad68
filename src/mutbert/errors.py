"""What a user can get wrong, said in one line."""

import re
from importlib import import_module


class InputError(ValueError):
    """Input that cannot be used; its one line names the file, the position in it and the remedy."""


class FinishedError(InputError):
    """A run that is to be resumed is finished; the program ends with status 0."""


class MissingExtraError(ImportError):
    """A library of an extra of this package is not installed."""

    def __init__(self, library: str, extra: str = "all") -> None:
        super().__init__(f"{library} is not installed; remedy: pip install 'mutbert[{extra}]'")


def require(library: str, extra: str = "all") -> None:
    """Raise MissingExtraError where an optional library is not installed."""
    try:
        import_module(library)
    except ImportError:
        raise MissingExtraError(library, extra) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is that memory ran out, of this machine or of its accelerator."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "OutOfMemoryError", "ALLOC_FAILED")
    text = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(one in text for one in words))


def one_line(error: object, most: int = 1000) -> str:
    """Return the message of a library's error, or another text, as one line of at most so many characters."""
    return printable(" ".join(str(error).split())[:most])


def printable(text: str) -> str:
    """Return text with escapes for control characters, which a terminal would obey and XML cannot hold."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e]", lambda found: ascii(found[0])[1:-1], text)
