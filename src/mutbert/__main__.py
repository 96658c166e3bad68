"""``python -m mutbert``, and ``torchrun -m mutbert``."""

from __future__ import annotations

from mutbert.cli.main import run

if __name__ == "__main__":
    run()
