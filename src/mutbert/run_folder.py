"""The names of what a training run's folder holds, for who writes it and who reads it."""

from __future__ import annotations

from typing import Final

RECIPE: Final = "recipe.yaml"
"""Every setting of the run; in the run's folder and in its model's."""
MODEL: Final = "model"
"""The trained model's folder."""
GENOME: Final = "genome.json"
"""In the model's folder: the manifest of the genome that it was trained on."""
HELD_OUT: Final = "held_out.json"
"""The held-out table."""
WRITING: Final = ".writing"
"""Where a checkpoint is until it is complete."""
