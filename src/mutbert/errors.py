"""What a user can get wrong, said in one line."""

from __future__ import annotations

from importlib import import_module


class InputError(ValueError):
    """Input that cannot be used.

    The message is one line that names the file, the place in it and the remedy. The command line prints it
    and exits with status 2.
    """


class MissingExtraError(ImportError):
    """An optional library that this call needs is not installed.

    Parameters
    ----------
    library : str
        The library that is missing.
    extra : str
        The extra of this package that brings it.
    """

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed; remedy: pip install 'mutbert[{extra}]'")


def require(library: str, extra: str) -> None:
    """Raise MissingExtraError where an optional library is not installed."""
    try:
        import_module(library)
    except ImportError:
        raise MissingExtraError(library, extra) from None


def one_line(error: Exception, most: int = 1000) -> str:
    """Bring what a library says of a mistake into one line, of at most so many characters."""
    return " ".join(str(error).split())[:most]
