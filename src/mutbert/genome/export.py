"""What a genome holds: FASTA in three readings, its variants (V) as BED, TSV or Parquet, and all in numbers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pysam

from mutbert import __version__, alphabet
from mutbert.arrays import Int64, UInt8
from mutbert.errors import InputError, require
from mutbert.files import atomic_file, check_output
from mutbert.genome.format import FREQUENCY_ONE
from mutbert.genome.sources import LINE_BASES, fasta_lines
from mutbert.genome.store import ProbabilisticGenome, Variants
from mutbert.progress import progress_bar
from mutbert.regions import Region, merge_regions
from mutbert.settings import listed

# Edges of bins that double. A population of constant size without selection has about as many alleles in each
# (Fu 1995, Theor. Popul. Biol. 48:172), so that rare and common ones show.
DOUBLING_EDGES: Final = (0.0, *(2.0**power for power in range(-15, 1)))

_TABLES: Final = ("bed", "tsv", "parquet")
_FASTA: Final = ("reference", "consensus", "iupac")
_PIECE_BASES: Final = LINE_BASES << 14  # of memory at once; every piece but the last ends a line
# A set of bases (bit 0 is A, bit 3 is T) less one, to its IUPAC base code.
_CODES: Final = np.array([(row > 0) @ [1, 2, 4, 8] for row in alphabet.DISTRIBUTIONS]).argsort()


def export_genome(
    genome: str | Path | ProbabilisticGenome, output: str | Path, kind: str | None = None, *,
    regions: Sequence[str | Region] | None = None, min_frequency: float = 0.0, soft_mask: bool = False,
    force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a probabilistic genome, or regions of it, in an open format.

    FASTA has the ``reference``, the ``consensus`` (the most frequent base where the genome varies) or the ``iupac``
    codes of the bases that occur there. Tables have a row for each position that varies: ``bed`` with the 12 columns of
    BED before the frequencies, ``tsv`` and ``parquet`` with 1-based positions. ``docs/genome.md`` has all details.

    Parameters
    ----------
    genome, output : path
        The store, which may be open; the file to write, compressed by bgzip if it ends in ``.gz``.
    kind : str, optional
        ``reference``, ``consensus`` or ``iupac``; ``bed``, ``tsv`` or ``parquet``, which the suffix alone implies too.
    regions : sequence of str or Region, optional
        Such as ``chr22:101-200``; every contig by default. A FASTA has them in this order, a table in the genome's.
    min_frequency, soft_mask, force, progress : float, bool, bool, bool
        The lowest frequency of a base, for ``iupac``; lower case where the genome is soft-masked, for FASTA; replace
        the output where it exists; show progress on standard error.

    Returns
    -------
    dict
        The `path`, the `kind`, and the numbers of `regions` (of a table merged, as `bases` are), of `variants` and of
        `changed` letters, which are not the reference's.

    Raises
    ------
    InputError
        A region that is not in the genome, an unknown format, an output that exists.

    Examples
    --------
    >>> report = mutbert.export_genome("population.genome", "consensus.fa", "consensus", regions=["chr1:1-100"])
    >>> report["bases"], report["changed"]
    (100, 0)
    """
    output = Path(output)
    kind = _find_kind(output, kind)
    if kind == "parquet":
        require("pyarrow")
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    check_output(output, force=force, inputs=[genome.path])
    lengths = genome.lengths
    asked = listed(lengths if regions is None else regions)
    for is_wrong, problem in (
        (not 0 <= min_frequency <= 1, f"minimum frequency {min_frequency:g}: is not between 0 and 1"),
        (min_frequency and kind != "iupac", f"minimum frequency: is for iupac alone; leave it out for {kind}"),
        (soft_mask and kind in _TABLES, f"soft mask: is for FASTA alone; leave it out for {kind}"),
        (soft_mask and genome.manifest.get("version") == 1, f"{genome.path}: keeps no soft mask; build it again"),
        (not asked, f"{genome.path}: no region was given; give at least one, or leave them out for all"),
    ):
        if is_wrong:
            raise InputError(problem)
    # The same region twice would be two records of one name; a Region is validated as its text is.
    chosen = list(dict.fromkeys(Region.parse(str(one), lengths) for one in asked))
    if kind in _TABLES:
        chosen = merge_regions(chosen, lengths)
    bases, variants, changed = sum(map(len, chosen)), 0, 0
    with (
        atomic_file(output, force=force) as file,
        progress_bar(f"Writing {kind}", bases, unit="bases", show=progress) as advance,
        _open_output(file, kind, genome.path.name) as write,
    ):
        for region in chosen:
            name = region.contig if len(region) == lengths[region.contig] else str(region)
            if kind in _FASTA:
                write(f">{name}\n".encode())
            for start in range(region.start, region.end, _PIECE_BASES):
                place = region.contig, start, min(start + _PIECE_BASES, region.end)
                found = genome.variants(*place)
                if kind in _FASTA:
                    code_L, code_V = genome.bases(*place), _find_codes(found, kind, min_frequency)
                    changed += int((code_V != found.reference).sum())
                    code_L[found.position - start] = code_V
                    letter_L = alphabet.BYTE_OF_CODE[code_L]
                    if soft_mask:
                        letter_L |= genome.soft_masked(*place) * np.uint8(ord("a") ^ ord("A"))
                    write(fasta_lines(letter_L))
                else:
                    write(_frame_of(region.contig, found))
                variants += len(found.position)
                advance(place[2] - start)
    counts = {"regions": len(chosen), "bases": bases, "variants": variants, "changed": changed}
    return {"path": output, "kind": kind, **counts}


def _find_kind(output: Path, kind: str | None) -> str:
    """Return the wanted kind, or that of the suffix, with which it has to agree."""
    suffix = output.name.removesuffix(".gz").rpartition(".")[2]
    chosen, kinds = kind or suffix, (*_FASTA, *_TABLES)
    if chosen not in kinds:
        raise InputError(f"{output}: there is no kind {chosen!r}; give --as with one of {', '.join(kinds)}")
    others = {*_TABLES, *(["fa", "fasta", "fna"] if chosen in _TABLES else [])} - {chosen}
    if suffix in others or (chosen == "parquet" and output.suffix == ".gz"):
        raise InputError(f"{output}: its suffix is not that of {chosen}; choose another name or another kind")
    return chosen


@contextmanager
def _open_output(file: Path, kind: str, genome: str) -> Iterator[Callable[[Any], object]]:
    """Yield a function that writes FASTA as bytes, and variants as frames."""
    if kind == "parquet":
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        about = {"created_by": f"mutbert {__version__}", "genome": genome, "pos": "1-based"}
        about |= {"frequencies": "of A, C, G, T in the population; kept to 1/65535"}
        kinds = {"chrom": pa.string(), "pos": pa.int64(), "ref": pa.string()}
        schema = pa.schema(kinds | dict.fromkeys(alphabet.BASES, pa.float32()))
        # Without its own schema in the file, strings are read as those of any other program.
        with ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
            writer.add_key_value_metadata(about)
            yield lambda frame: writer.write_table(frame.to_arrow().cast(schema))
        return
    with pysam.BGZFile(str(file), "wb") if file.suffix == ".gz" else file.open("wb") as text:
        if kind == "tsv":
            text.write("\t".join(["chrom", "pos", "ref", *alphabet.BASES]).encode() + b"\n")
        yield text.write if kind in _FASTA else lambda frame: text.write(_lines_of(frame, kind))


def _find_codes(variants: Variants, kind: str, min_frequency: float) -> UInt8:
    """Return the base code to write at each position that varies, (V,)."""
    if kind == "reference":
        return variants.reference
    fixed_V4 = np.rint(variants.frequency * np.float64(FREQUENCY_ONE))
    # Equal frequencies may be stored one unit apart: half and half are 32768 and 32767. Of these, the reference wins.
    is_most_V4 = fixed_V4 >= fixed_V4.max(axis=1, keepdims=True) - 1
    code_V = (is_most_V4 * (1 + (variants.reference[:, None] == np.arange(4)))).argmax(axis=1)
    if kind == "iupac":
        is_shown_V4 = (fixed_V4 > 0) & (fixed_V4 > min_frequency * FREQUENCY_ONE - 1)
        set_V = is_shown_V4 @ np.array([1, 2, 4, 8])
        code_V = np.where(set_V > 0, _CODES[set_V - 1], code_V)
    return np.where(variants.reference == alphabet.UNKNOWN, alphabet.UNKNOWN, code_V).astype(np.uint8)


def _frame_of(contig: str, variants: Variants) -> pl.DataFrame:
    """Return variants with their frequencies to full precision again, so that they round as stored."""
    frequency_4V = np.rint(variants.frequency.T * np.float64(FREQUENCY_ONE)) / FREQUENCY_ONE
    columns = {"pos": variants.position + 1, "ref": pl.Series([*alphabet.IUPAC])[variants.reference]}
    frame = pl.DataFrame(columns | dict(zip(alphabet.BASES, frequency_4V, strict=True)))
    return frame.select(pl.lit(contig).alias("chrom"), pl.all())


def _lines_of(frame: pl.DataFrame, kind: str) -> bytes:
    """Return the lines of BED or TSV."""
    start, end, reference = pl.col("pos") - 1, pl.col("pos"), pl.col("ref")
    others = {base: pl.when(reference != base).then(pl.col(base)).otherwise(0) for base in alphabet.BASES}
    names = [pl.when(frequency > 0).then(pl.lit(base)) for base, frequency in others.items()]
    name = reference + ">" + pl.concat_str(names, separator=",", ignore_nulls=True)
    score = (pl.sum_horizontal(others.values()) * 1000).round().cast(pl.Int64)
    # Browsers read columns 7 to 12 as whole numbers, so that what is ours can only stand after them.
    twelve = (pl.col("chrom"), start, end, name, score, pl.lit("."), start, end, *map(pl.lit, (0, 1, 1, 0)))
    bed = [*(column.alias(str(number)) for number, column in enumerate(twelve)), *alphabet.BASES]
    lines = frame.select(bed) if kind == "bed" else frame
    return lines.write_csv(include_header=False, separator="\t", quote_style="never", float_precision=6).encode()


def summarise_genome(genome: ProbabilisticGenome) -> dict[str, Any]:
    """Return the numbers of a genome by name, as ``mutbert genome inspect`` shows them.

    Parameters
    ----------
    genome : ProbabilisticGenome
        An opened store.

    Returns
    -------
    dict
        A frame of its `contigs`, and numbers of the whole. Spectra are counts of alternate alleles, in bins that are
        open below. Diversity is the mean heterozygosity 1 - Σ p² of known bases (Nei 1973, PNAS 70:3321).

    Raises
    ------
    OSError
        A store that was removed since it was opened.

    Examples
    --------
    >>> genome = mutbert.ProbabilisticGenome.open("population.genome")
    >>> mutbert.summarise_genome(genome)["variants"]
    36
    """
    alleles_U = np.zeros(FREQUENCY_ONE + 1, dtype=np.int64)
    counts = pl.DataFrame([_count_contig(genome, name, alleles_U) for name in genome.contigs])
    shares = (
        (scale * pl.col(part) / pl.when(pl.col(whole) > 0).then(pl.col(whole))).alias(name)
        for name, scale, part, whole in (
            ("known_share", 1, "known", "length"), ("soft_masked_share", 1, "soft_masked", "length"),
            ("per_kilobase", 1000, "variants", "known"), ("diversity_per_kilobase", 1000, "differences", "known"),
            ("mean_alternate_frequency", 1, "frequencies", "alternates"), ("ti_tv", 1, "transitions", "transversions"),
        )
    )  # fmt: skip
    # The last row is the whole genome.
    rows = pl.concat([counts, counts.sum()]).with_columns(shares)
    rows = rows.with_columns(pl.col("^.*per_kilobase$").fill_null(0.0)).drop("differences", "frequencies")
    whole = rows.drop("name").row(-1, named=True)
    # An edge that is rounded up is still in its bin.
    edges = np.arange(21) / 20, np.array(DOUBLING_EDGES)
    even, doubling = (np.diff(alleles_U.cumsum()[np.ceil(some * FREQUENCY_ONE).astype(int)]).tolist() for some in edges)
    only_whole = ("known_share", "soft_masked_share", "mean_alternate_frequency", "ti_tv", "multi_allelic")
    size = sum(file.stat().st_size for file in genome.path.glob("[!.]*"))
    numbers = {"spectrum": even, "doubling_spectrum": doubling, "bytes_on_disk": size} | whole
    return {"contigs": rows[:-1].drop(only_whole), **numbers, "bytes_per_base": size / whole["length"]}


def _count_contig(genome: ProbabilisticGenome, name: str, alleles_U: Int64) -> dict[str, Any]:
    """Return a contig's numbers, and add its alternate alleles to those of each frequency in fixed point."""
    masked = genome.arrays["soft_mask.npy"][slice(*genome.contigs[name].soft_mask)]
    _, reference_V, frequency_V4 = genome.variants(name)
    # Where the reference is an ambiguous code, its likeliest base stands for it.
    is_code_V = reference_V > 3
    allele_V4 = frequency_V4 > 0
    allele_V4[np.arange(len(reference_V)), np.where(is_code_V, frequency_V4.argmax(axis=1), reference_V)] = False
    row_A, base_A = np.nonzero(allele_V4)
    # Base codes A C G T are 0 1 2 3, so that XOR 2 is the transition.
    change_A = (reference_V[row_A] ^ base_A)[~is_code_V[row_A]]
    frequency_A = frequency_V4[allele_V4].astype(np.float64)
    alleles_U += np.bincount(np.rint(frequency_A * FREQUENCY_ONE).astype(np.int64), minlength=len(alleles_U))
    return {
        "name": name,
        "length": genome.lengths[name],
        "known": int(np.diff(genome.known_runs(name, 0, genome.lengths[name])).sum()),
        "soft_masked": int(masked["length"].sum(dtype=np.int64)),
        "variants": len(reference_V),
        "alternates": len(row_A),
        "multi_allelic": int((allele_V4.sum(axis=1) > 1).sum()),
        "transitions": int((change_A == 2).sum()),
        "transversions": int((change_A != 2).sum()),
        "differences": float((1 - np.square(frequency_V4, dtype=np.float64).sum(axis=1)).sum()),
        "frequencies": float(frequency_A.sum()),
    }
