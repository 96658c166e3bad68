"""``python -m mutbert.cli`` is ``mutbert``, also where scripts are not on the path."""

from mutbert.cli.main import run

run()
