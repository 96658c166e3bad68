"""Run the command line, with SIGTERM to the second of several processes in its fifth training step."""

import itertools
import os
import signal

from mutbert.cli.main import run
from mutbert.model import MutBertForMaskedLM

forward, calls = MutBertForMaskedLM.forward, itertools.count(1)


def signalled(self, **inputs):
    if self.training and os.environ["RANK"] == "1" and next(calls) == 5:
        signal.raise_signal(signal.SIGTERM)
    return forward(self, **inputs)


if __name__ == "__main__":
    MutBertForMaskedLM.forward = signalled
    run()
