"""Names of the files of a training run's folder.

``metrics.json`` holds all numbers and facts of the report: its ``kind`` is "pretrain" or "finetune", its ``version`` 2.
``history.json`` is a list of ``{step, loss, grad_norm, learning_rate}`` and ``{step, eval_loss, eval_METRIC...}``.
"""

from __future__ import annotations

from typing import Final

RECIPE: Final = "recipe.yaml"
"""Every setting; also in the model's folder and in each checkpoint."""
PROVENANCE: Final = "provenance.json"
"""Versions, commit and checksums of the inputs; likewise."""
MODEL: Final = "model"
"""Folder of the trained model."""
GENOMES: Final = "genomes.json"
"""In the model's folder: the manifests of the genomes that it was trained on, by name."""
EVALUATED: Final = "held_out_windows.tsv"
"""Held-out windows and their targets, of pre-training."""
METRICS: Final = "metrics.json"
HISTORY: Final = "history.json"
PREDICTIONS: Final = "predictions.parquet"
"""Labels and scores of the test data, or else of the validation data, of fine-tuning."""
REPORT: Final = "report.html"
CHECKPOINTS: Final = "checkpoints"
WRITING: Final = ".writing"
"""Where a checkpoint is until it is complete."""
RUN_FILES: Final = (
    RECIPE, PROVENANCE, EVALUATED, METRICS, PREDICTIONS, REPORT, HISTORY, f"{MODEL}/*", f"{WRITING}/*",
    f"{CHECKPOINTS}/*", "tensorboard/*",
)  # fmt: skip
"""Patterns of every file of a run: `force` replaces no folder with others."""
