"""Every SNV of a genome, or of regions of it, with scores: a forward pass a position serves its three alternates.

Shape suffixes: C contigs, S spans, K parts, P positions, A alternate alleles, three a position.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.arrays import Int64, list_ranges
from mutbert.effects import records as files
from mutbert.effects.alleles import ALLELE, MASKED_SHARE, Alleles, Kind
from mutbert.effects.score import ScoreReport, ScoreRun, check_outputs, join_processes
from mutbert.effects.scores import Scorer, ScoreSettings, TokenScorer, compare_bases
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import place_windows
from mutbert.encoders.peers import PeerEncoder
from mutbert.errors import InputError
from mutbert.files import atomic_directory, atomic_file
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference import run
from mutbert.inference.bases import known_bases
from mutbert.inference.classifier import open_classifier
from mutbert.inference.parts import was_stopped
from mutbert.inference.track_files import TRACK_FORMATS, check_bigwig, write_track
from mutbert.model import MutBertForMaskedLM
from mutbert.progress import Advance, progress_bar, scaled
from mutbert.regions import Region, merge_regions, read_bed
from mutbert.settings import listed

_OTHERS: Final = np.array([[alt for alt in range(4) if alt != ref] for ref in range(4)], dtype=np.uint8)


def score_all_snvs(
    model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome, output: str | Path, *,
    scores: Sequence[str] = ("llr",), context: int | None = None, windows: str = "centred", strands: str | None = None,
    surroundings: str = "reference", sample: str | None = None, person_vcf: str | Path | None = None,
    calibration: str | Path | None = None, table: str | Path | None = None, prefix: str = "MUTBERT",
    batch_size: int = 32, precision: str = "fp32", rope_scaling: Mapping[str, Any] | None = None,
    region: Sequence[str] | str | None = None, bed: str | Path | None = None, part_records: int = 1 << 14,
    resume: bool = False, force: bool = False, progress: bool = False,
) -> ScoreReport:  # fmt: skip
    """Score every single-nucleotide variant of a genome, or of regions of it, by one forward pass a position.

    Numbers are those of `score_variants` for a VCF of all of them. Processes that ``torchrun`` starts share the work.

    Parameters
    ----------
    model, genome
        A checkpoint, run on a GPU if there is one (in Python also a loaded model), or Caduceus or a Nucleotide
        Transformer; a genome store.
    output
        ``.vcf.gz``, ``.vcf`` or ``.bcf``: a record a position, with its three alternates; ``.tsv``, ``.tsv.gz`` or
        ``.parquet``: a row per alternate; ``.bw``, ``.bigwig``, ``.bedgraph`` or ``.bedgraph.gz``: the lowest LLR at
        each position (without LLR, ULLR); without a suffix a directory, with a Parquet file a contig.
    scores
        ``llr``, ``unmasked`` or both; each costs a forward pass a position.
    region, bed
        Such as ``chr22:101-200``, one or several; a BED file instead. By default all contigs.
    part_records
        Positions per part; a stopped run loses at most one part, and processes share parts.
    context, windows, strands, surroundings, sample, person_vcf, calibration, table, prefix
        As for `score_variants`.
    batch_size, precision, rope_scaling, resume, force, progress
        As for the other commands that run a model.

    Returns
    -------
    ScoreReport
        Its `without_snvs` counts the positions where the genome has N or another ambiguous code.

    Raises
    ------
    InputError
        A region that is not in the genome or is all N, a model without likelihoods of bases, an output that exists.

    Examples
    --------
    >>> report = mutbert.score_all_snvs("model", "population.genome", "snvs.parquet", region="chr1:1-20", context=20)
    >>> report.records, report.scored
    (20, {'snv': 60})
    """
    settings = ScoreSettings(scores, context, windows, strands, batch_size=batch_size, precision=precision,
                             rope_scaling=rope_scaling)  # fmt: skip
    if "distance" in settings.scores:
        raise InputError("a distance takes a forward pass an alternate; of every SNV there are llr and unmasked")
    output, regions, paths = Path(output), listed(region or ()), (table, person_vcf, calibration, bed)
    second, person, background, chosen = (None if path is None else Path(path) for path in paths)
    formats, inputs = (*files.VCFS, *files.TABLES, *TRACK_FORMATS, ""), (model, genome, *paths[1:])
    check_outputs(output, second, inputs, formats, prefix, force=force or (resume and was_stopped(output)))
    known = None if background is None else files.Calibration(background)
    if settings.windows == "shared" and known:
        raise InputError("windows are shared, so that no background of other variants serves; choose centred")
    if chosen is not None and regions:
        raise InputError(f"{chosen}: regions are named as well as a BED file; choose one or the other")
    store = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    lengths, names = store.lengths, list(store.lengths)
    check_bigwig(output, lengths)
    asked = read_bed(chosen, lengths) if chosen else [Region.parse(one, lengths) for one in regions or names]
    spans = [(names.index(one.contig), one.start, one.end) for one in merge_regions(asked, names)]
    span_S3 = np.array(spans, dtype=np.int64)
    if not (bases := known_bases(store, span_S3)):
        raise InputError(f"{output}: all bases that are asked for are N, so there is nothing to score")
    how: dict[str, Any] = {"surroundings": surroundings, "person_vcf": person, "sample": sample}
    with ExitStack() as stack:
        processes = join_processes(stack)
        progress = progress and processes[0] == 0
        contigs = {names[number] for number, *_ in spans}
        seen = run.open_surroundings(store, surroundings, person, sample, contigs=contigs, progress=progress)
        snvs = _SnvRun(_open(model, store, settings, seen), known, prefix, run.model_name(model))
        snvs.span_S3, snvs.bases = span_S3, bases
        how |= {"calibration": background, "region": chosen or ",".join(regions) or None, "part_records": part_records}
        bar = progress_bar("scoring", bases, unit="positions", work=snvs.work, show=progress)
        pieces = snvs.pieces(part_records)
        return snvs.carry_out(pieces, output, second, how, bar, processes, resume=resume, force=force)


def _open(model: Any, genome: ProbabilisticGenome, settings: ScoreSettings, seen: run.Surroundings) -> Scorer:
    """Return the scorer of MutBERT, or of a peer that has likelihoods."""
    encoder = None
    if open_classifier(model, seen, settings):
        raise InputError(f"{model}: a classifier takes a forward pass an alternate; use --vcf, or mutbert mutagenesis")
    # Whoever reads it next raises what is wrong.
    with suppress(InputError):
        encoder = open_encoder(model) if isinstance(model, str | Path) else None
    if not isinstance(encoder, PeerEncoder):
        return Scorer(run.open_model(model, MutBertForMaskedLM), genome, seen, settings)
    if seen.kind != "reference" or not encoder.likelihood:
        what = "allele frequencies; use --surroundings reference" if encoder.likelihood else "single bases; use another"
        raise InputError(f"{model}: reads tokens, not {what}")
    return TokenScorer(encoder, genome, settings)


class _SnvRun(ScoreRun):
    """What scores the SNVs of spans of a genome."""

    span_S3: Int64  # a contig's number, and 0-based start and end; in order, and merged
    bases: int  # of the spans, but for N

    @property
    def work(self) -> str:
        """What a model has to do, in words."""
        context, settings = self.scorer.context, self.scorer.settings
        stride = max(context // 2, 1) if settings.windows == "shared" else 1
        passes = {"llr": -(-stride // max(int(context * MASKED_SHARE), 1)), "unmasked": 1}
        windows = -(-self.bases // stride) * sum(passes[name] for name in set(settings.scores))
        return f"{self.bases:,} positions, about {windows:,} windows"

    def size(self, piece: Any) -> int:
        """Return how many bases of a part are not N."""
        return known_bases(self.scorer.genome, piece)

    def pieces(self, size: int) -> Iterator[Int64]:
        """Yield parts of about so many positions as spans, (S, 3); those of a shared window are in one part."""
        length_C, contig_S = self.scorer.genome.slots[:, 1], self.span_S3[:, 0]
        # Positions of the whole genome, one contig after the other.
        before_C = np.cumsum(length_C) - length_C
        start_S, end_S = before_C[contig_S] + self.span_S3[:, 1:].T
        until_S = np.cumsum(end_S - start_S)
        rank_K = np.arange(0, until_S[-1], size)
        span_K = np.searchsorted(until_S, rank_K, "right")
        contig_K = contig_S[span_K]
        cut_K = (end_S - until_S)[span_K] + rank_K - before_C[contig_K]
        if self.scorer.settings.windows == "shared":
            stride = max(self.scorer.context // 2, 1)
            # Back to the first cell of the grid with the same window, which at a contig's end several have.
            cell_4K = np.maximum(cut_K // stride - np.arange(4)[:, None], 0) * stride
            window_4K, _ = place_windows(cell_4K, length_C[contig_K], self.scorer.context, "shared")
            cut_K = np.where(window_4K == window_4K[0], cell_4K, cut_K).min(axis=0)
        for first, last in pairwise([*np.unique(before_C[contig_K] + cut_K).tolist(), int(end_S[-1])]):
            rows = slice(*np.searchsorted(end_S, [first], "right"), *np.searchsorted(start_S, [last]))
            ends = np.clip([start_S[rows], end_S[rows]], first, last) - before_C[contig_S[rows]]
            yield np.column_stack([contig_S[rows], *ends])

    def write(self, advance: Advance, piece: Any, path: Path) -> None:
        """Write a part's rows, as of a VCF with a record a position."""
        scorer, genome = self.scorer, self.scorer.genome
        span_P, position_P = list_ranges(piece[:, 1], piece[:, 2])
        contig_P = piece[span_P, 0]
        code_P = genome.bases_at(contig_P, position_P)
        own = np.flatnonzero(code_P < len(alphabet.BASES))
        advance(np.count_nonzero(code_P != alphabet.UNKNOWN) - len(own))
        one: Alleles = np.zeros(len(own), dtype=ALLELE).view(np.recarray)
        one.kind_A, one.contig_A, one.reference_A = Kind.SNV, contig_P[own], code_P[own]
        one.start_A, one.end_A, one.alternate_A = position_P[own], position_P[own] + 1, _OTHERS[code_P[own], 0]
        one.removed, one.inserted = (list(alphabet.decode(codes)) for codes in (one.reference_A, one.alternate_A))
        every: Alleles = one.repeat(3)
        every.alternate_A = _OTHERS[one.reference_A].reshape(-1)
        columns = dict.fromkeys(scorer.fields, np.full(len(every), np.nan))
        groups = set(scorer.settings.scores)
        for name in groups:
            logit_P4 = scorer.logits(one, scaled(advance, 1 / len(groups)), masked=name == "llr")
            columns |= compare_bases(name, logit_P4.repeat(3, axis=0), every.reference_A, every.alternate_A)
        columns = {name: value_A.astype(np.float32).astype(np.float64) for name, value_A in columns.items()}
        if self.known is not None:
            columns |= self.known.percentages(columns, every.kind_A)
        names, letters = pl.Series(list(genome.lengths)), pl.Series(list(alphabet.BASES))
        rows = pl.DataFrame({
            "record": np.arange(len(every)) // 3, "chrom": names.gather(every.contig_A), "pos": every.start_A + 1,
            "ref": letters.gather(every.reference_A), "alt": letters.gather(every.alternate_A),
        })  # fmt: skip
        rows.with_columns(*scorer.columns(every, columns), id=pl.lit(".")).write_parquet(path)

    def count(self, parts: list[Path]) -> dict[str, Any]:
        """Return counts of `ScoreReport`."""
        counts = super().count(parts)
        records, bases = counts["alleles"] // 3, int(np.diff(self.span_S3[:, 1:]).sum())
        without = {"unknown_reference": bases - self.bases, "ambiguous_reference": self.bases - records}
        without = {name: number for name, number in without.items() if number}
        return counts | {"records": records, "without_snvs": without}

    def source(self, parts: list[Path]) -> tuple[bytes, Collection[str], Iterator[bytes]]:
        """Return the header and records of a VCF of a record a position, as `ScoreRun` does."""
        lengths = self.scorer.genome.lengths
        contigs = "".join(f"##contig=<ID={name},length={length}>\n" for name, length in lengths.items())
        header = f"##fileformat=VCFv4.2\n{contigs}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        line = pl.format("{}\t{}\t.\t{}\t{}\t.\t.\t.", "chrom", "pos", "ref", "alt")
        firsts = pl.col("chrom", "pos", "ref").first(), pl.col("alt").str.join(",")
        records = (pl.read_parquet(part).group_by("record", maintain_order=True).agg(firsts) for part in parts)
        return header.encode(), lengths, (text.encode() for one in records for text in one.select(line).to_series())

    def write_outputs(
        self, path: Path, table: Path | None, parts: list[Path], made_by: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write the outputs, as `ScoreRun` does."""
        lengths, field, chrom = self.scorer.genome.lengths, next(iter(self.scorer.fields)), pl.col("chrom")
        if path.name.endswith(TRACK_FORMATS):
            lowest = chrom.first().alias("contig"), pl.col("pos").first().alias("position") - 1, pl.col(field).min()
            scans = [pl.scan_parquet(part).group_by("record", maintain_order=True).agg(lowest) for part in parts]
            with atomic_file(path, force=True) as aside:
                write_track(aside, scans, field, lengths)
        elif not path.suffix:
            own: dict[str, list[Path]] = {}
            for part in parts:
                for name in pl.read_parquet(part, columns=["chrom"])["chrom"].unique(maintain_order=True):
                    own.setdefault(name, []).append(part)
            with atomic_directory(path, force=True) as folder:
                for name, some in own.items():
                    files.write_table(folder / f"{quote(name, '')}.parquet", some, list(self.fields), chrom == name)
        return super().write_outputs(path, table, parts, made_by)
