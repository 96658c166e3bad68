"""Putting a trained model to use."""

from __future__ import annotations

# Imported first, so that without torch the message names the extra that has it.
import mutbert.model  # noqa: F401
