"""Names of `mutbert.tables`, until all callers have moved there."""

from mutbert.tables import NoSuchFileError, SourceFile, find_file

__all__ = ["NoSuchFileError", "SourceFile", "find_file"]
