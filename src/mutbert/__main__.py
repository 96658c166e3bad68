"""``python -m mutbert``, and ``torchrun -m mutbert``."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the working directory, which holds files and no code

from mutbert.cli.main import run

if __name__ == "__main__":
    run()
