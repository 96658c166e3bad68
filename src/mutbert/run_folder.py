"""Names of the files of a training run's folder.

``metrics.json`` holds all numbers and facts of the report: its ``kind`` is "pretrain" or "finetune", its ``version`` 2.
``history.json`` is a list of ``{step, loss, grad_norm, learning_rate}`` and ``{step, eval_loss, eval_METRIC...}``.
"""

from typing import Final

RECIPE: Final = "recipe.yaml"  # every setting; also in the model's folder and in each checkpoint
PROVENANCE: Final = "provenance.json"  # versions, commit and checksums of the inputs; likewise
MODEL: Final = "model"  # folder of the trained model
GENOMES: Final = "genomes.json"  # in the model's folder: the manifests of the genomes that it was trained on, by name
EVALUATED: Final = "held_out_windows.tsv"  # held-out windows and their targets, of pre-training
METRICS: Final = "metrics.json"
HISTORY: Final = "history.json"
PREDICTIONS: Final = "predictions.parquet"  # of fine-tuning: labels and scores of the test or else the validation data
REPORT: Final = "report.html"
CHECKPOINTS: Final = "checkpoints"
WRITING: Final = ".writing"  # where a checkpoint is until it is complete
RUN_FILES: Final = (
    RECIPE, PROVENANCE, EVALUATED, METRICS, PREDICTIONS, REPORT, HISTORY, f"{MODEL}/*", f"{MODEL}.partial/*",
    f"{WRITING}/*", f"{CHECKPOINTS}/*", "tensorboard/*",
)  # fmt: skip
"""Patterns of every file of a run: `force` replaces no folder with others."""
