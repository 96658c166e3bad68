"""What a user can get wrong, said in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
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
    words = (
        "out of memory", "not enough memory", "can't allocate memory", "OutOfMemoryError", "ALLOC_FAILED",
        "DataLoader worker (pid",  # which the system has killed for its memory
    )  # fmt: skip
    text = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(one in text for one in words))


@contextmanager
def reading(path: object, remedy: str = "copy or make it again") -> Iterator[None]:
    """Raise InputError, with the file's name, for whatever a library raises of a file that is damaged or lies."""
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except Exception as error:
        if is_out_of_memory(error) or getattr(error, "errno", None) in {ENOSPC, EDQUOT}:
            raise
        text, is_clear = one_line(error, 300), isinstance(error, ValueError | OSError | RuntimeError)
        text = text if text and is_clear else f"{type(error).__name__}: {text}"
        # Without torch's own remedy, which is to trust the file.
        text = text.partition(" This file can still be loaded")[0]
        raise InputError(f"{path}: cannot be read ({text}); {remedy}") from error


def one_line(error: object, most: int = 1000) -> str:
    """Return the message of a library's error, or another text, as one line of at most so many characters."""
    return printable(" ".join(str(error).split())[:most])


def printable(text: str) -> str:
    """Return text with escapes for control characters, which a terminal would obey and XML cannot hold."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e]", lambda found: ascii(found[0])[1:-1], text)
