"""``python -m mutbert``, and ``torchrun -m mutbert``."""

from mutbert.cli.main import run

if __name__ == "__main__":
    run()
