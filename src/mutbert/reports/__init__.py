"""Figures and self-contained HTML pages, from folders and tables alone."""

from importlib.util import find_spec

from mutbert.errors import MissingExtraError

for _library in ("matplotlib", "jinja2", "pyarrow"):
    if find_spec(_library) is None:
        raise MissingExtraError(_library, "all")
