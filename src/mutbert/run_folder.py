"""The names of what a training run's folder holds, for who writes it and who reads it."""

from __future__ import annotations

from typing import Final

RECIPE: Final = "recipe.yaml"
"""Every setting of the run; in the run's folder, in its model's and in each checkpoint."""
PROVENANCE: Final = "provenance.json"
"""Versions, commit and genomes that the run is made with; likewise."""
MODEL: Final = "model"
"""The trained model's folder."""
GENOMES: Final = "genomes.json"
"""In the model's folder: the manifests of the genomes that it was trained on, by name."""
HELD_OUT: Final = "held_out.json"
"""The held-out table and the calibration."""
EVALUATED: Final = "held_out_windows.tsv"
"""The held-out windows and their targets."""
METRICS: Final = "metrics.json"
"""What a fine-tuned model reaches."""
PREDICTIONS: Final = "predictions.tsv"
"""What it says of the test data, and what is so."""
REPORT: Final = "report.html"
"""The page to look at."""
WRITING: Final = ".writing"
"""Where a checkpoint is until it is complete."""
HISTORY: Final = "history.json"
"""The measures of each step."""
RUN_FILES: Final = (
    RECIPE, PROVENANCE, HELD_OUT, EVALUATED, METRICS, PREDICTIONS, REPORT, HISTORY, f"{MODEL}/*", f"{WRITING}/*",
    "checkpoints/*", "tensorboard/*", "best.safetensors", "best.json",
)  # fmt: skip
"""Every file of a run, as patterns: a directory that holds others is not replaced."""
