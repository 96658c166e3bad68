"""Variant calls in, the same records with scores out."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mutbert
from mutbert.effects.alleles import LONGEST
from mutbert.effects.calibration import read_calibration
from mutbert.effects.chunk_scores import ChunkScorer, check_frequency_field
from mutbert.effects.fingerprint import Fingerprint
from mutbert.effects.processes import this_world
from mutbert.effects.pseudo_likelihood import FLANK
from mutbert.effects.records import RecordFile
from mutbert.effects.score_report import ScoreReport
from mutbert.effects.score_run import Place, ScoreRun
from mutbert.effects.scores import ScoreSettings, open_scorer
from mutbert.effects.vcf_header import refuse_declared
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.model import MutBertForMaskedLM

__all__ = ["ScoreReport", "score_variants"]

_PREFIX: Final = re.compile(r"[A-Za-z_][0-9A-Za-z_.]*")


def score_variants(
    model: str | Path | MutBertForMaskedLM,
    genome: str | Path | ProbabilisticGenome,
    vcf: str | Path,
    output: str | Path,
    *,
    scores: tuple[str, ...] = ("llr",),
    context: int | None = None,
    windows: str = "centred",
    strands: str = "both",
    surroundings: str = "reference",
    sample: str | None = None,
    person_vcf: str | Path | None = None,
    flank: int = FLANK,
    longest: int = LONGEST,
    distance_bases: int | None = None,
    frequency_field: str | None = None,
    calibration: str | Path | None = None,
    calibrate: bool = False,
    table: str | Path | None = None,
    prefix: str = "MUTBERT",
    batch_size: int = 32,
    precision: str = "fp32",
    rope_scaling: Mapping[str, Any] | None = None,
    shard: tuple[int, int] = (1, 1),
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> ScoreReport:
    """Score the alternate alleles of a VCF.

    The work lies in ``NAME.parts`` beside the output until it is whole. Where `torchrun` starts several processes, each
    calls this and does its part of one output.

    REF is compared with the genome before anything is scored. A file of which more than half of at least 100 compared
    records differ is of another assembly, and refused; of more than a tenth of at least 20 it may be, and the report's
    `warnings` say so, as does a line on standard error where progress is shown.

    Of ``.bcf``, what the records have is compared with what BCF would keep of it, again before anything is scored, and
    refused where that is less; rounded to six digits, a number counts as kept.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, read to a GPU where there is one; or a loaded model, which runs where it is.
    genome : str, Path or ProbabilisticGenome
        The store of the assembly that the VCF is of.
    vcf : str or Path
        VCF or BCF: plain, gzip or bgzip.
    output : str or Path
        The file to write; its suffix chooses the format.

        ``.vcf.gz``, ``.vcf``, ``.bcf``: the same records, with ``MUTBERT_LLR`` and so on in INFO, and ``MUTBERT_WHY``
        where an alternate has no score. The first and last get an index.

        ``.tsv``, ``.tsv.gz``, ``.parquet``: a row an alternate, with ``chrom``, ``pos``, ``id``, ``ref``, ``alt``,
        ``kind``, each field and ``why``; what is missing is empty.

        ``.json``, with `calibrate`: a background.
    scores, context, windows, strands, flank, longest, distance_bases, batch_size, precision, rope_scaling
        As for `mutbert.effects.scores.ScoreSettings`.
    surroundings : {"reference", "population", "person"}
        What stands around the variants.
    sample : str, optional
        The person's name.
    person_vcf : str or Path, optional
        Has the person's genotypes; `vcf` where it is left out.
    frequency_field : str, optional
        An INFO field with frequencies of alternate alleles: adds AFLLR, LLR + ln((f_alt + ε) / (f_ref + ε)) with
        ε = 1e-4 and f_ref = 1 − Σ f_alt, of SNVs.
    calibration : str or Path, optional
        A background: adds ``LLR_PCT`` and so on, the percentage of it that is less extreme. It needs centred windows,
        as scores of shared ones depend on the other variants of a file.
    calibrate : bool
        Make a background of the VCF, such as of a population's common variants: quantiles of each score.
    table : str or Path, optional
        A second file, a table.
    prefix : str
        What stands before the names of INFO fields.
    shard : tuple of int
        Do only which part of how many, from 1, and leave it in the folder ``OUTPUT.shard-1-of-4`` for
        `mutbert.merge_scores`.
    resume : bool
        Go on with a run that was stopped, which is refused where anything that results depend on has changed.
    force : bool
        Replace the output where it exists; without `resume`, start an unfinished run anew.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    ScoreReport
        What became of the records. Of several processes, the first has that of all, others of what they did.

    Raises
    ------
    InputError
        When an input cannot be used, or does not fit the run that is to be gone on with.
    MissingExtraError
        When pyarrow is needed and not installed.
    """
    vcf = Path(vcf)
    place = Place(Path(output), None if table is None else Path(table), shard, calibrate=calibrate)
    person = None if person_vcf is None else Path(person_vcf)
    background = None if calibration is None else Path(calibration)
    place.refuse([path for path in (vcf, person, background) if path is not None], resume=resume, force=force)
    if _PREFIX.fullmatch(prefix) is None:
        raise InputError(f"prefix is {prefix!r}; give letters, digits, _ and . that begin with a letter or _")
    if calibrate and (background is not None or frequency_field is not None):
        raise InputError(
            "a background has scores alone; leave out --calibration and --frequency-field with --calibrate"
        )
    if windows == "shared" and (calibrate or background is not None):
        raise InputError(
            "windows are shared, so that scores depend on how close a file's variants are to each other, and no "
            "background serves another file; choose centred"
        )
    if person is not None and surroundings != "person":
        raise InputError(
            f"--person-vcf is given, but the surroundings are the {surroundings}; give --surroundings person for it"
        )
    settings = ScoreSettings(
        tuple(scores), context, windows, strands, flank, longest, distance_bases, batch_size, precision, rope_scaling
    )
    world = this_world()
    file = RecordFile(vcf)
    if frequency_field is not None:
        check_frequency_field(file, frequency_field, settings.scores)
    if surroundings == "person" and person is None and sample is not None and sample not in file.samples:
        raise InputError(
            f"{vcf}: has no sample {sample} (its samples: {names_text(file.samples)}); give the file with the person's "
            "genotypes by --person-vcf, or another sample"
        )
    known = None if background is None else read_calibration(background)
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    around = vcf if surroundings == "person" and person is None else person
    scorer = open_scorer(
        model,
        genome,
        surroundings=surroundings,
        person_vcf=around,
        sample=sample,
        settings=settings,
        progress=progress and world.rank == 0,
    )
    chunk_scorer = ChunkScorer(scorer, frequency_field, known)
    refuse_declared(file.header, chunk_scorer.names(prefix))
    others = {
        "surroundings": surroundings,
        "sample": sample,
        "frequency_field": frequency_field,
        "prefix": prefix,
        "kinds": place.kinds,
        "records_a_part": chunk_scorer.cuts.size,
        "passes_a_part": chunk_scorer.cuts.passes,
    }
    fingerprint = Fingerprint(scorer, vcf, around, background, others)
    declare = partial(_declarations, model, chunk_scorer, prefix)
    run = ScoreRun(place, file, chunk_scorer, fingerprint, declare, prefix, show=progress and world.rank == 0)
    return run.begin(world, resume=resume, force=force) if world.rank == 0 else run.help(world)


def _declarations(
    model: str | Path | MutBertForMaskedLM, chunk_scorer: ChunkScorer, prefix: str, made_of: Mapping[str, Any]
) -> list[str]:
    """Write the header lines of the new fields, and one of how they were made."""
    lines = [
        f'##INFO=<ID={prefix}_{field.name},Number=A,Type=Float,Description="{_plain(field.description)}">'
        for field in chunk_scorer.fields
    ]
    lines.append(
        f"##INFO=<ID={prefix}_WHY,Number=.,Type=String,"
        'Description="Why an alternate allele has no score; . where it has">'
    )
    name = model if isinstance(model, str | Path) else model.config.name_or_path or type(model).__name__
    settings = {
        name: value for name, value in made_of["settings"].items() if name not in _NOT_SAID and value is not None
    }
    said = {
        "ID": prefix,
        "Version": mutbert.__version__,
        "Model": f'"{_plain(Path(name).name)}"',
        "ModelSHA256": made_of["model"],
        "Genome": f'"{_plain(chunk_scorer.scorer.genome.path.name)}"',
        "GenomeSHA256": made_of["genome"],
        "Settings": f'"{_plain("; ".join(f"{name}={_word(value)}" for name, value in settings.items()))}"',
    }
    return [*lines, f"##mutbert_score=<{','.join(f'{name}={value}' for name, value in said.items())}>"]


# What is not said of the settings: how the work was cut up, and the prefix, which is the line's ID.
_NOT_SAID: Final = {"kinds", "records_a_part", "passes_a_part", "prefix"}


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return ":".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _plain(text: str) -> str:
    """Take out what would end a quoted text of a VCF header."""
    return re.sub(r'["\\\n\r]', "_", text)
