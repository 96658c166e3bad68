"""DNA language models that know how a population varies.

Importing this package is quick and has no side effects; every name below is loaded when it is first used.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutbert.effects.score import score_variants as score_variants
    from mutbert.evaluation.run import run_benchmark as run_benchmark
    from mutbert.evaluation.summary import report_benchmark as report_benchmark
    from mutbert.evaluation.vep import evaluate_variant_effects as evaluate_variant_effects
    from mutbert.evaluation.vep_table import VepColumns as VepColumns
    from mutbert.export import export_model as export_model
    from mutbert.genome.build import build_genome as build_genome
    from mutbert.genome.build import merge_genomes as merge_genomes
    from mutbert.genome.export import export_genome as export_genome
    from mutbert.genome.simulate import simulate_population as simulate_population
    from mutbert.genome.store import ProbabilisticGenome as ProbabilisticGenome
    from mutbert.genome.verify import verify_genome as verify_genome
    from mutbert.inference.bases import mutate_region as mutate_region
    from mutbert.inference.bases import write_tracks as write_tracks
    from mutbert.inference.embeddings import embed as embed
    from mutbert.inference.predictions import predict_table as predict_table
    from mutbert.model import MutBertConfig as MutBertConfig
    from mutbert.model import MutBertForMaskedLM as MutBertForMaskedLM
    from mutbert.model import MutBertForSequenceClassification as MutBertForSequenceClassification
    from mutbert.model import MutBertForTokenClassification as MutBertForTokenClassification
    from mutbert.model import MutBertModel as MutBertModel
    from mutbert.model import MutBertTokenizer as MutBertTokenizer
    from mutbert.model.checkpoints import convert_checkpoint as convert_checkpoint
    from mutbert.regions import Region as Region
    from mutbert.reports.folder import report as report
    from mutbert.reports.mutagenesis_figures import draw_mutagenesis as draw_mutagenesis
    from mutbert.training.finetune import finetune as finetune
    from mutbert.training.pretrain import pretrain as pretrain

__version__ = "0.1.0"

# The imports above are the one list of public names, read here as type checkers read it.
_HOME = {
    alias.name: node.module
    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mutbert.")
    for alias in node.names
}
__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 - all of it is text


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
