"""Pre-training and fine-tuning, from a recipe to a trained model."""

from importlib.util import find_spec

from mutbert.errors import MissingExtraError

for _library in ("torch", "transformers", "accelerate", "tensorboard"):
    if find_spec(_library) is None:
        raise MissingExtraError(_library, "all")
