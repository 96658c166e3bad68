"""What a run may fail of, in one line with what is left and what to do."""

from __future__ import annotations

import errno
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from accelerate import PartialState
from accelerate.utils.memory import should_reduce_batch_size

from mutbert.errors import InputError, one_line
from mutbert.training.checkpoints import last_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What torch and safetensors say where a file could not be written.
_NOT_WRITTEN = ("No space left", "PytorchStreamWriter failed", "file write failed", "unexpected pos", "I/O error")


# What a process says that has lost the others.
_ALONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


class TrainingStoppedError(InputError):
    """The run was stopped, as going on would have been of no use.

    Parameters
    ----------
    message : str
        Why, and what may help.
    spoilt_from : int, optional
        The step from which on checkpoints are of no use either.
    """

    def __init__(self, message: str, spoilt_from: float = math.inf) -> None:
        super().__init__(message)
        self.spoilt_from = spoilt_from


SMALLER_WINDOWS: Final = (
    "give a smaller training.per_device_train_batch_size (with windows_a_step the result stays the same), or "
    "training.auto_find_batch_size=true"
)
SMALLER_SEQUENCES: Final = "give a smaller finetune.micro_batch_size (the result stays the same)"
"""What to do where a batch does not fit, in pre-training and in fine-tuning."""


@contextmanager
def explain_failures(output: Path, smaller: str = SMALLER_WINDOWS) -> Iterator[None]:
    """Say of a run that failed what is left of it and how to go on.

    Parameters
    ----------
    output : Path
        The run's folder.
    smaller : str
        What to do where a batch does not fit.

    Raises
    ------
    InputError
        When the loss was no number, the memory did not suffice, or the disk is full. Other errors pass as they are.
    """
    try:
        yield
    except TrainingStoppedError as error:
        raise InputError(f"{output}: {error}; {_left(output, error.spoilt_from)}") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise InputError(
                f"{output}: a batch did not fit into the memory ({one_line(error, 160)}); {smaller}; {_left(output)}"
            ) from error
        if not PartialState().is_main_process and any(text in str(error) for text in _ALONE):
            raise InputError("another process has stopped; it says why") from None
        if (isinstance(error, OSError) and error.errno in _FULL) or _is_not_written(error):
            raise InputError(
                f"{output}: cannot be written, the disk is full ({one_line(error, 160)}); make room and give --resume; "
                f"{_left(output)}"
            ) from error
        raise


def is_out_of_memory(error: Exception) -> bool:
    """Tell an error of too little memory, of an accelerator or of this machine, from others."""
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def _is_not_written(error: Exception) -> bool:
    kinds = (RuntimeError, OSError)
    return (isinstance(error, kinds) or type(error).__name__ == "SafetensorError") and any(
        text in str(error) for text in _NOT_WRITTEN
    )


def _left(output: Path, before: float = math.inf) -> str:
    checkpoint = last_checkpoint(output, before)
    if checkpoint is None:
        return "no checkpoint was saved yet" if before == math.inf else "there is no checkpoint from before that"
    return f"the last {'good ' * (before != math.inf)}checkpoint is {checkpoint}"
