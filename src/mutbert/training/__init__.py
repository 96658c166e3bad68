"""From a recipe to a trained model."""

from __future__ import annotations

from importlib.util import find_spec

from mutbert.errors import MissingExtraError

for _library in ("torch", "transformers", "accelerate", "tensorboard", "yaml"):
    if find_spec(_library) is None:
        raise MissingExtraError(_library, "train")
