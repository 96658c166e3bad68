"""What scores depend on, in words that differ where they do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

import mutbert
from mutbert.files import sha256_of
from mutbert.progress import progress_bar

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


@dataclass(frozen=True)
class Fingerprint:
    """All that the results of a run depend on, as `mutbert.effects.parts.Run.made_of` has it.

    Of files it has checksums of all their bytes: reading these takes a second where scoring them takes minutes, a copy
    on another machine is the same file, and a change anywhere in it is not overlooked. The number of windows a batch is
    left out, as it changes results by no more than rounding does.

    Parameters
    ----------
    scorer : Scorer
        Model, genome and settings.
    vcf : Path
        The records.
    person_vcf, calibration : Path or None
        Further files.
    others : mapping
        Further settings, as JSON holds them.
    """

    scorer: Scorer
    vcf: Path
    person_vcf: Path | None
    calibration: Path | None
    others: Mapping[str, Any]

    def take(self, *, show: bool) -> dict[str, Any]:
        """Read the files, each once though it be named several times; `show` has progress on standard error."""
        paths = [path for path in (self.vcf, self.person_vcf, self.calibration) if path is not None]
        by_file = {path.resolve(): path for path in paths}
        total = sum(path.stat().st_size for path in by_file.values())
        with progress_bar("checking files", total, unit="bytes", show=show) as advance:
            found = {file: sha256_of(path, advance) for file, path in by_file.items()}
        sums = {path: found[path.resolve()] for path in paths}
        return self._put_together(
            sums[self.vcf],
            None if self.person_vcf is None else sums[self.person_vcf],
            None if self.calibration is None else sums[self.calibration],
        )

    def take_without_files(self, first: Mapping[str, Any]) -> dict[str, Any]:
        """Take the files as another process of the same call has read them."""
        settings = first["settings"]
        return self._put_together(
            first["vcf"],
            None if self.person_vcf is None else settings["person_vcf"],
            None if self.calibration is None else settings["calibration"],
        )

    def _put_together(self, vcf: str, person_vcf: str | None, calibration: str | None) -> dict[str, Any]:
        settings = asdict(self.scorer.settings) | dict(self.others)
        settings |= {"person_vcf": person_vcf, "calibration": calibration}
        settings.pop("batch_size")
        return {
            "mutbert": mutbert.__version__,
            "vcf": vcf,
            "model": model_hash(self.scorer.model),
            "genome": genome_hash(self.scorer.genome),
            "settings": json.loads(json.dumps(settings)),
        }
