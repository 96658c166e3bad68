"""Compare a genome with its sources, from which polars derives it again by the rules of ``docs/genome.md``.

It shares only the text of htslib with the builder. Shape suffixes: L bases, R alleles, V variants, U of either side.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.arrays import UInt8
from mutbert.errors import InputError
from mutbert.files import sha256_of
from mutbert.genome import sources as inputs
from mutbert.genome.format import FREQUENCY_ONE
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import read_genotypes, read_records
from mutbert.progress import progress_bar
from mutbert.regions import ContigNames

_TEXTS: Final = 4  # differences of a contig that are described: of its bases, and of its variants
_LARGEST_DISTANCE: Final = 1 / FREQUENCY_ONE + 2e-6  # the fixed point's, and that of six digits
_WHAT: Final = "VCF file {}: {}"
_LOWER: Final = np.uint8(ord("a") ^ ord("A"))
_LARGEST_SUM: Final = 1 + 1e-3  # by rounding, the alternates of a position may sum to a little above 1
_NUMBERS: Final = {"file": pl.UInt32, "record": pl.UInt32, "position": pl.Int64}
_RECORD: Final = pl.Schema(_NUMBERS | dict.fromkeys(("ref", "alt", "above", "below"), pl.String))


def verify_genome(
    genome: str | Path, fasta: inputs.Sources, vcf: inputs.Sources = (), *, samples: str | Path | None = None,
    population: str | None = None, sample: str | None = None, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Re-derive a genome from its sources with independent code, and compare.

    The settings are those of the genome's manifest. The exit status of the command is 1 where anything differs.

    Parameters
    ----------
    genome, fasta, vcf : path, path or sequence of paths
        The store, whose checksums are verified first; the reference, as in the build; the variants, in the same order.
    samples, population, sample, progress : path, str, str, bool, optional
        The samples that were counted; their population in a panel; the one sample; show progress on standard error.

    Returns
    -------
    dict
        Whether the checksum of each of the `sources` is in the manifest, which decides nothing by itself; the numbers
        of `contigs`, `bases` and `variants` on both sides and of the sources' `records`; the `largest_difference` of a
        frequency; how much is `differing` and some of the `differences`, described; whether all `agrees`.

    Raises
    ------
    InputError
        A store or a source that cannot be read, and samples other than those of the build.

    Examples
    --------
    >>> mutbert.verify_genome("population.genome", "ref.fa", "panel.vcf")["agrees"]
    True
    """
    store = ProbabilisticGenome.open(genome, check=True)
    fastas, vcfs, settings = inputs.parse_sources(fasta), inputs.parse_sources(vcf), store.manifest.get("settings")
    if not settings:
        raise InputError(f"{store.path}: has no settings of a build; verify a genome of 'mutbert genome build'")
    people = inputs.read_samples(samples, population, sample)
    if inputs.describe_samples(people) != settings.get("samples"):
        raise InputError(f"{store.path}: was built from other samples; use the same --samples, --population, --sample")
    files = inputs.find_calls(vcfs, settings["frequency_field"], people, settings.get("filter", inputs.FILTERS))
    names = [source.name(name) for source in fastas for name, _ in inputs.read_sequences(source.path)]
    selected = ContigNames(filter(ContigNames(settings["contigs"] or names).find, names))
    known = {entry["sha256"] for entry in store.manifest.get("sources") or []}
    sources = {str(one.path): sha256_of(one.path) in known for one in (*fastas, *vcfs)}
    numbers = dict.fromkeys(("contigs", "bases", "variants", "records", "largest_difference", "differing"), 0)
    report: dict[str, Any] = {"path": store.path, "sources": sources, **numbers, "differences": []}
    parts, counts, lengths = defaultdict[str, list[Path]](list), Counter[str](), dict[str, int]()
    with tempfile.TemporaryDirectory(prefix="mutbert-verify-") as folder:
        with progress_bar("Reading the variants", None, unit="records", show=progress and bool(vcfs)) as advance:
            for name, records in _read_records(files, selected, counts):
                parts[name].append(Path(folder, f"{sum(map(len, parts.values()))}"))
                records.write_ipc(parts[name][-1])
                advance(len(records))
        with progress_bar("Comparing", sum(store.lengths.values()), unit="bases", show=progress) as advance:
            contigs = ((one.name(name), text) for one in fastas for name, text in inputs.read_sequences(one.path))
            for name, letters in ((name, text) for name, text in contigs if name in selected):
                # As they are in the FASTA, but for U.
                letter_L = np.frombuffer(letters.encode().translate(bytes.maketrans(b"Uu", b"Tt")), np.uint8)
                records = pl.concat([pl.DataFrame(schema=_RECORD), *map(pl.read_ipc, parts[name])])
                alleles = _find_alleles(records, letter_L)
                # As numbers of 24 bits, decimals are a little more or less.
                is_common = pl.col("total").is_between(settings["min_frequency"] * (1 + 2**-23), _LARGEST_SUM, "right")
                alleles = alleles.filter(is_common, pl.col("frequency") > 0)
                for file, used in alleles.group_by("file").agg(pl.col("record").n_unique()).iter_rows():
                    counts[_WHAT.format(file + 1, "used")] += used
                lengths[name] = len(letter_L)
                if name in store.contigs:
                    _compare_contig(report, store, name, letter_L, alleles)
                advance(len(letter_L))
    _compare_numbers(report, store, lengths, counts)
    return report | {"agrees": not report["differing"]}


def _read_records(
    files: Sequence[inputs.Calls], selected: ContigNames, counts: Counter[str]
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the records (`_RECORD`) that pass, by contigs that are selected, and count all."""
    for file, (source, filters, names, samples) in enumerate(files):
        fields, read = [f"INFO/{name}" for name in names], _WHAT.format(file + 1, "read")
        below = fields[1] if len(fields) > 1 else pl.lit("1")
        blocks = read_records(source.path, fields) if samples is None else read_genotypes(source.path, samples)
        for records in blocks:
            passing = [one for one in records["filter"].unique() if {*filters} & {"any", *one.split(";")}]
            every = records.with_row_index("record", counts[read]).with_columns(file=file, above=fields[0], below=below)
            counts[read] += len(records)
            for (name,), part in every.filter(pl.col("filter").is_in(passing)).group_by("contig", maintain_order=True):
                if (contig := selected.find(source.name(str(name)))) is not None:
                    yield contig, part.select(*_RECORD).cast(_RECORD)


def _find_alleles(records: pl.DataFrame, letter_L: UInt8) -> pl.DataFrame:
    """Return the bases that alleles change, if these agree with the contig and earlier ones; `total` of a position."""
    ref, alt, value, frequency = map(pl.col, ("ref", "alt", "value", "frequency"))
    before, after, offset, position = map(pl.col, ("before", "after", "offset", "position"))
    alts, values = alt.str.to_uppercase().str.split(","), pl.col("above").str.split(",")
    alike = pl.when(pl.col("above") == ".").then(pl.lit(".")).otherwise(pl.lit("none")).repeat_by(alts.list.len())
    values = pl.when(values.list.len() == alts.list.len()).then(values).otherwise(alike)
    rows = records.with_columns(ref.str.to_uppercase(), alt=alts, value=values).explode("alt", "value")
    # What is no number is impossible, and what is missing is missing.
    number = pl.when(value != ".").then(value.cast(pl.Float64, strict=False).fill_null(-1))
    below = pl.col("below").cast(pl.Float64, strict=False)
    rows = rows.with_columns(frequency=(number / pl.when(below > 0).then(below)).fill_nan(None))
    is_possible = frequency.is_between(0, 1).all() & (frequency.sum() <= _LARGEST_SUM)
    of_length = alt.str.len_bytes() == ref.str.len_bytes()
    rows = rows.filter(is_possible.over("file", "record"), alt.str.contains("^[A-Z]+$"), of_length, alt != ref)
    letters = {"before": ref.str.split(""), "after": alt.str.split(""), "offset": pl.int_ranges(ref.str.len_bytes())}
    rows = rows.with_row_index("row").with_columns(frequency.cast(pl.Float32).cast(pl.Float64), **letters)
    rows = rows.explode(*letters)
    # An allele of several nucleotides is known by all that it changes.
    changed = offset.filter(before != after)
    first, last = changed.min().over("row"), changed.max().over("row")
    trimmed = (text.str.slice(first, last - first + 1) for text in (ref, alt))
    whole = pl.when(first < last).then(pl.concat_str(position + first, *trimmed, separator=" "))
    bases = [letter.cast(pl.Enum([*alphabet.BASES]), strict=False) for letter in (before, after)]
    alleles = rows.with_columns(position + offset, *bases, whole=whole).drop_nulls(["before", "after", "frequency"])
    position_R = alleles["position"].to_numpy()
    inside_R = position_R.clip(0, len(letter_L) - 1)
    code_R = alphabet.CODE_OF_BYTE[letter_L[inside_R]]
    agrees_R = alphabet.DISTRIBUTIONS[code_R, alleles["before"].to_physical().to_numpy()] > 0
    agrees_R &= position_R == inside_R
    alleles = alleles.with_columns(agrees=agrees_R, is_known=code_R != alphabet.UNKNOWN)
    # REF has to agree as a whole.
    alleles = alleles.filter(pl.col("agrees").all().over("row")).filter("is_known", before != after)
    # The earliest allele says which base of an IUPAC code is the reference; of equal alleles the earliest counts.
    alleles = alleles.filter(before == before.first().over("position"))
    alleles = alleles.unique(["position", "before", "after", "whole"], keep="first", maintain_order=True)
    return alleles.with_columns(total=frequency.sum().over("position"))


def _compare_contig(
    report: dict[str, Any], store: ProbabilisticGenome, name: str, letter_L: UInt8, alleles: pl.DataFrame
) -> None:
    """Compare bases and variants; REF has what the alternates leave of 1."""
    shared = min(len(letter_L), store.lengths[name])
    stored_L = alphabet.BYTE_OF_CODE[store.bases(name, 0, shared)]
    stored_L |= store.soft_masked(name, 0, shared) * _LOWER
    # A store of version 1 does not keep the mask.
    letter_L = letter_L[:shared] & ~(_LOWER * np.uint8(store.manifest["version"] == 1))
    wrong = np.flatnonzero(letter_L != stored_L)
    texts = [f"{name}:{at + 1}: {letter_L[at]:c} in the FASTA, {stored_L[at]:c} in the genome" for at in wrong[:_TEXTS]]

    bases, before, rest = [*alphabet.BASES], pl.col("before").first(), (1 - pl.col("total").first()).clip(0)
    given = {base: pl.col("frequency").filter(pl.col("after") == base).sum() for base in bases}
    shares = [pl.when(before == base).then(rest).otherwise(share).alias(base) for base, share in given.items()]
    sites = alleles.group_by("position").agg(shares).with_columns(pl.col(bases) / pl.sum_horizontal(bases))
    position, _, frequency_V4 = store.variants(name)
    stored = pl.DataFrame({"position": position, **dict(zip(bases, frequency_V4.T.astype(float), strict=True))})
    both = sites.join(stored, on="position", how="full", coalesce=True).sort("position")
    is_shared_U = both.select(pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    row_U8 = both.drop("position").fill_null(0).to_numpy()
    distance_U = abs(row_U8[:, :4] - row_U8[:, 4:]).max(axis=1, initial=0)
    different = np.flatnonzero(distance_U > _LARGEST_DISTANCE)
    for at in different[:_TEXTS].tolist():
        ours, theirs = row_U8[at].round(5).reshape(2, 4).tolist()
        texts.append(f"{name}:{both['position'][at] + 1}: A, C, G, T are {ours} by the VCF, {theirs} in the genome")
    for what, number in (("contigs", 1), ("bases", shared), ("variants", int(is_shared_U.sum()))):
        report[what] += number
    report["differing"] += len(wrong) + len(different)
    report["differences"] += texts
    report["largest_difference"] = float(distance_U[is_shared_U].max(initial=report["largest_difference"]))


def _compare_numbers(
    report: dict[str, Any], store: ProbabilisticGenome, lengths: Mapping[str, int], counts: Mapping[str, int]
) -> None:
    derived, stored = dict[str, Any](counts), dict[str, Any]()
    for number, entry in enumerate(store.manifest.get("records") or [], 1):
        stored |= {_WHAT.format(number, what): entry[what] for what in ("read", "used")}
    for side, of in ((derived, lengths), (stored, store.lengths)):
        side |= {f"contig {name}": f"{length:,} bases" for name, length in of.items()}
        order = [name for name in of if name in lengths and name in store.lengths]
        side |= {f"contig number {number}": name for number, name in enumerate(order, 1)}
    pairs = {what: (derived.get(what) or "none", stored.get(what) or "none") for what in derived | stored}
    texts = [f"{what}: {one} by the sources, {two} in the genome" for what, (one, two) in pairs.items() if one != two]
    report["records"] = sum(value for what, value in counts.items() if what.endswith("read"))
    report["differing"] += len(texts)
    report["differences"] = [*texts, *report["differences"]][:40]
