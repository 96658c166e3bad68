"""Putting a trained model to use."""

# Imported first, so that without torch the message names the extra that has it.
import mutbert.model  # noqa: F401
