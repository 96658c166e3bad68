"""What scores depend on, in words that differ where they do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import torch

import mutbert
from mutbert.publishing import sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mutbert.effects.scores import Scorer
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.model import MutBertForMaskedLM

# Of a configuration, what says where it is from and not what it does.
_NOT_OF_A_MODEL: Final = {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}


def model_hash(model: MutBertForMaskedLM) -> str:
    """Compute the SHA-256 of a model's weights and configuration, in whatever files they were."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_OF_A_MODEL}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def genome_hash(genome: ProbabilisticGenome) -> str:
    """Compute the SHA-256 of what a store's manifest says of its arrays, their checksums among it, and contigs."""
    said = [genome.manifest["arrays"], genome.manifest["contigs"]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def what_scores_depend_on(scorer: Scorer, vcf: Path, others: Mapping[str, Any]) -> dict[str, Any]:
    """Put together all that the results of a run depend on.

    Of the VCF it is a checksum of all its bytes: reading them takes a second where scoring them takes minutes, a copy
    on another machine is the same file, and a change anywhere in it is not overlooked. The number of windows a batch is
    left out, as it changes results by no more than rounding does.

    Parameters
    ----------
    scorer : Scorer
        Model, genome and settings.
    vcf : Path
        The records.
    others : mapping
        Further settings, as JSON holds them.

    Returns
    -------
    dict
        As `mutbert.effects.parts.Run.made_of`.
    """
    settings = asdict(scorer.settings)
    settings.pop("batch_size")
    return {
        "mutbert": mutbert.__version__,
        "vcf": sha256_of(vcf),
        "model": model_hash(scorer.model),
        "genome": genome_hash(scorer.genome),
        "settings": json.loads(json.dumps({**settings, **others})),
    }
