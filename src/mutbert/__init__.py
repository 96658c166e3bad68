"""DNA language models that know how a population varies.

Importing this package is quick and has no side effects; every name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutbert.effects.score import score_variants
    from mutbert.evaluation.run import run_benchmark
    from mutbert.evaluation.summary import report_benchmark
    from mutbert.evaluation.vep import evaluate_variant_effects
    from mutbert.evaluation.vep_table import VepColumns
    from mutbert.export import export_model
    from mutbert.genome.build import build_genome
    from mutbert.genome.export import export_genome
    from mutbert.genome.merge import merge_genomes
    from mutbert.genome.simulate import simulate_population
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.genome.verify import verify_genome
    from mutbert.inference.bases import mutate_region, write_tracks
    from mutbert.inference.embeddings import embed
    from mutbert.inference.predictions import predict_table
    from mutbert.model import (
        MutBertConfig,
        MutBertForMaskedLM,
        MutBertForSequenceClassification,
        MutBertForTokenClassification,
        MutBertModel,
        MutBertTokenizer,
    )
    from mutbert.model.checkpoints import convert_checkpoint
    from mutbert.regions import Region
    from mutbert.reports.mutagenesis_figures import draw_mutagenesis
    from mutbert.training.finetune import finetune
    from mutbert.training.pretrain import pretrain

__version__ = "0.1.0"

_HOME = {
    "MutBertConfig": "mutbert.model",
    "MutBertForMaskedLM": "mutbert.model",
    "MutBertForSequenceClassification": "mutbert.model",
    "MutBertForTokenClassification": "mutbert.model",
    "MutBertModel": "mutbert.model",
    "MutBertTokenizer": "mutbert.model",
    "ProbabilisticGenome": "mutbert.genome.store",
    "Region": "mutbert.regions",
    "VepColumns": "mutbert.evaluation.vep_table",
    "build_genome": "mutbert.genome.build",
    "convert_checkpoint": "mutbert.model.checkpoints",
    "draw_mutagenesis": "mutbert.reports.mutagenesis_figures",
    "embed": "mutbert.inference.embeddings",
    "evaluate_variant_effects": "mutbert.evaluation.vep",
    "export_genome": "mutbert.genome.export",
    "export_model": "mutbert.export",
    "finetune": "mutbert.training.finetune",
    "merge_genomes": "mutbert.genome.merge",
    "mutate_region": "mutbert.inference.bases",
    "predict_table": "mutbert.inference.predictions",
    "pretrain": "mutbert.training.pretrain",
    "report_benchmark": "mutbert.evaluation.summary",
    "run_benchmark": "mutbert.evaluation.run",
    "score_variants": "mutbert.effects.score",
    "simulate_population": "mutbert.genome.simulate",
    "verify_genome": "mutbert.genome.verify",
    "write_tracks": "mutbert.inference.bases",
}

__all__ = [
    "MutBertConfig",
    "MutBertForMaskedLM",
    "MutBertForSequenceClassification",
    "MutBertForTokenClassification",
    "MutBertModel",
    "MutBertTokenizer",
    "ProbabilisticGenome",
    "Region",
    "VepColumns",
    "__version__",
    "build_genome",
    "convert_checkpoint",
    "draw_mutagenesis",
    "embed",
    "evaluate_variant_effects",
    "export_genome",
    "export_model",
    "finetune",
    "merge_genomes",
    "mutate_region",
    "predict_table",
    "pretrain",
    "report_benchmark",
    "run_benchmark",
    "score_variants",
    "simulate_population",
    "verify_genome",
    "write_tracks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
