"""DNA language models that know how a population varies.

Importing this package is quick, and every name below is loaded when it is first used. Once `transformers` is imported,
before or after, its Auto classes know these models.
"""

from __future__ import annotations

import ast
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from mutbert.download import download_data as download_data
    from mutbert.effects.score import ScoreReport as ScoreReport
    from mutbert.effects.score import score_variants as score_variants
    from mutbert.effects.scores import ScoreSettings as ScoreSettings
    from mutbert.effects.scores import score_alleles as score_alleles
    from mutbert.effects.snvs import score_all_snvs as score_all_snvs
    from mutbert.errors import InputError as InputError
    from mutbert.errors import MissingExtraError as MissingExtraError
    from mutbert.evaluation.run import GridRequest as GridRequest
    from mutbert.evaluation.run import run_benchmark as run_benchmark
    from mutbert.evaluation.summary import report_benchmark as report_benchmark
    from mutbert.evaluation.vep import evaluate_variant_effects as evaluate_variant_effects
    from mutbert.evaluation.vep_table import VepColumns as VepColumns
    from mutbert.examples.table import Columns as Columns
    from mutbert.explorer import explore as explore
    from mutbert.export import export_model as export_model
    from mutbert.genome.build import build_genome as build_genome
    from mutbert.genome.build import merge_genomes as merge_genomes
    from mutbert.genome.export import export_genome as export_genome
    from mutbert.genome.export import summarise_genome as summarise_genome
    from mutbert.genome.simulate import simulate_population as simulate_population
    from mutbert.genome.store import ProbabilisticGenome as ProbabilisticGenome
    from mutbert.genome.verify import verify_genome as verify_genome
    from mutbert.inference.bases import PredictionSettings as PredictionSettings
    from mutbert.inference.bases import mutate_region as mutate_region
    from mutbert.inference.bases import write_tracks as write_tracks
    from mutbert.inference.embeddings import embed as embed
    from mutbert.inference.embeddings import embed_sequences as embed_sequences
    from mutbert.inference.predictions import predict_sequences as predict_sequences
    from mutbert.inference.predictions import predict_table as predict_table
    from mutbert.inference.predictions import score_sequences as score_sequences
    from mutbert.model import MutBertConfig as MutBertConfig
    from mutbert.model import MutBertForMaskedLM as MutBertForMaskedLM
    from mutbert.model import MutBertForSequenceClassification as MutBertForSequenceClassification
    from mutbert.model import MutBertForTokenClassification as MutBertForTokenClassification
    from mutbert.model import MutBertModel as MutBertModel
    from mutbert.model import MutBertPreTrainedModel as MutBertPreTrainedModel
    from mutbert.model import MutBertTokenizer as MutBertTokenizer
    from mutbert.model.checkpoints import convert_checkpoint as convert_checkpoint
    from mutbert.regions import Region as Region
    from mutbert.reports.benchmark import BenchmarkReport as BenchmarkReport
    from mutbert.reports.folder import report as report
    from mutbert.reports.mutagenesis_figures import draw_mutagenesis as draw_mutagenesis
    from mutbert.training.finetune import finetune as finetune
    from mutbert.training.folder import RunResult as RunResult
    from mutbert.training.pretrain import pretrain as pretrain
    from mutbert.training.recipe import FinetuneRecipe as FinetuneRecipe
    from mutbert.training.recipe import PretrainRecipe as PretrainRecipe

# The imports above are the one list of public names, read here as type checkers read it.
_HOME = {
    alias.name: node.module
    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mutbert.")
    for alias in node.names
}
__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 - all of it is text


class _OnImport:
    """Finds `transformers` for `import`, and makes its Auto classes know these models once it is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "transformers":
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                sys.meta_path.remove(self)
                _register()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _register() -> None:
    # Without torch there are no models.
    with suppress(ImportError):
        import_module("mutbert.model")


if sys.modules.get("transformers"):
    _register()
else:
    sys.meta_path.insert(0, _OnImport())


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("mutbert")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
