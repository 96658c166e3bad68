"""One page that shows a stretch of a genome in a browser, with all that it needs inside: no server, no network.

What the page holds is in ``docs/explorer.md``. Shape suffixes: L positions of a region, V variants, 4 bases.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.errors import InputError, require
from mutbert.files import check_input, check_output
from mutbert.genome.format import FREQUENCY_ONE
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import count_by_index, read_header, read_records
from mutbert.progress import progress_bar
from mutbert.regions import ContigNames, Region, merge_regions, names_text
from mutbert.settings import listed

if TYPE_CHECKING:
    from mutbert.arrays import UInt16
    from mutbert.inference.bases import PredictionSettings
    from mutbert.model import MutBertForMaskedLM

MOST_BASES: Final = 1_000_000
UNIT: Final = 0.001  # nats: probabilities are kept as -ln P in this unit
MISSING: Final = 0xFFFF  # of a base that is N
_MARGIN: Final = 100  # bases on either side of what a VCF covers
_FORMATS: Final = {"gff3": "gff3", "gff": "gff3", "gtf": "gtf"}
_WHOLE: Final = {"region", "chromosome", "scaffold", "supercontig", "contig", "biological_region"}  # would hide genes
_IGV: Final = Path(__file__).parent / "reports" / "igv" / "igv.min.js.gz"


def explore(
    genome: str | Path | ProbabilisticGenome, output: str | Path, *,
    model: str | Path | MutBertForMaskedLM | None = None, vcf: str | Path | None = None,
    regions: Sequence[str | Region] = (), annotation: str | Path | None = None, mask_every: int = 8,
    settings: PredictionSettings | None = None, force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write one HTML page, which opens without a network, to browse a genome and what a model makes of it.

    It shows the reference, allele frequencies and their entropy; with a model its entropy and best alternate; variants
    that were scored, as tracks and as a table to sort and filter; genes; and base by base sequence logos.

    Parameters
    ----------
    genome : str, Path or ProbabilisticGenome
        A genome store.
    output : str or Path
        The page, an ``.html`` file.
    model, vcf : optional
        A checkpoint, run on a GPU if there is one (in Python also a loaded model); a VCF or BCF by ``mutbert score``.
    regions : sequence of str or Region
        Such as ``chr22:101-200``, 1-based and inclusive, or ``chr22``; up to a million bases in all. By default what
        the VCF covers, and without one the beginning of the first contig.
    annotation, mask_every : optional
        Genes as ``.gff3`` or ``.gtf``, also ``.gz``; of so many bases one is masked at a time, as for `write_tracks`.
    settings, force, progress : optional
        How the model is run; replace the output where it exists; show progress.

    Returns
    -------
    dict
        The `output`, its `regions`, and the numbers of `bases`, `variants` (positions that vary in the population),
        scored `alleles`, and lines of `annotation`.

    Raises
    ------
    InputError
        When a file cannot be read, or regions are unknown or too long.

    Examples
    --------
    >>> import mutbert
    >>> mutbert.explore("human.genome", "page.html", regions="chr22:17000001-17100000")  # doctest: +SKIP
    """
    require("jinja2")
    from mutbert.reports.page import write_page

    output = Path(output)
    if output.suffix.lower() != ".html":
        raise InputError(f"{output}: the page is HTML; choose a name that ends in .html")
    if mask_every < 0:
        raise InputError(f"mask_every is {mask_every}; it is 0 for none, 1 for one base at a time, or more")
    check_output(output, force=force, inputs=(genome, model, vcf, annotation))
    genome = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    chosen = merge_regions((Region.parse(str(one), genome.lengths) for one in listed(regions)), genome.lengths)
    _check_length(output, chosen)
    alleles, chosen = (None, chosen) if vcf is None else _read_variants(Path(vcf), genome, chosen)
    if not chosen:
        first, length = next(iter(genome.lengths.items()))
        chosen = [Region(first, 0, min(length, MOST_BASES))]
    names = _plain_names(region.contig for region in chosen)
    genes = None if annotation is None else _read_annotation(Path(annotation), genome, chosen, names)
    predicted, facts = (None, {}) if model is None else _predict(model, genome, chosen, mask_every, settings, progress)
    shown = [_region_data(genome, region, names[region.contig]) for region in chosen]
    for number, region in enumerate(shown):
        region["probability"] = predicted and _pack(predicted[number])
    codes = {letter: row.tolist() for letter, row in zip(alphabet.IUPAC, alphabet.DISTRIBUTIONS, strict=True)}
    data = {
        "regions": shown, "codes": codes, "unit": UNIT, "missing": MISSING, "frequency_one": FREQUENCY_ONE,
        "genome": genome.path.name, "annotation": genes and _annotation_data(*genes),
        "variants": None if alleles is None else _variant_data(alleles),
    }  # fmt: skip
    files = {"variants": vcf, "annotation": annotation}
    sources = {"genome": genome.path.name, **facts, **{name: Path(one).name for name, one in files.items() if one}}
    # Scripts run by this number alone, so that no name in the data can be one. It differs with the data.
    nonce = hashlib.sha256(repr((data, sources)).encode()).hexdigest()[:32]
    title = f"{genome.path.name}: {names_text(map(str, chosen), 3)}"
    write_page(
        output, title, ", ".join(f"{name} {text}" for name, text in sources.items()), template="explorer.html.j2",
        data=data, igv=base64.b64encode(_IGV.read_bytes()).decode(), nonce=nonce, force=force,
    )  # fmt: skip
    counts = {"bases": sum(map(len, chosen)), "variants": sum(region["variants"] for region in shown)}
    counts |= {"alleles": 0 if alleles is None else len(alleles), "annotation": len(genes[1]) if genes else 0}
    return {"output": output, "regions": chosen, **counts}


def _check_length(what: Path, regions: Sequence[Region]) -> None:
    if (bases := sum(map(len, regions))) > MOST_BASES:
        part = replace(regions[0], end=min(regions[0].start + MOST_BASES, regions[0].end))
        more = f"{bases:,} bases are too many for a page of up to {MOST_BASES:,}"
        raise InputError(f"{what}: {more}; choose less, such as --region {part}")


def _plain_names(contigs: Iterable[str]) -> dict[str, str]:
    """Return names for igv.js, which puts them into HTML and ends them at a colon; the table shows the true ones."""
    plain = {contig: re.sub(r"[^\w.*|-]", "_", contig, flags=re.ASCII) for contig in contigs}
    return {name: one if one == name else f"{one}_{number}" for number, (name, one) in enumerate(plain.items())}


def _pack(values: Any) -> str:
    """Return text, or an array in little-endian order, compressed by gzip and in base64."""
    raw = values.encode() if isinstance(values, str) else values.astype(values.dtype.newbyteorder("<")).tobytes()
    squeeze = zlib.compressobj(6, wbits=31)
    return base64.b64encode(squeeze.compress(raw) + squeeze.flush()).decode()


def _region_data(genome: ProbabilisticGenome, region: Region, name: str) -> dict[str, Any]:
    """Return a region's letters, and its positions that vary with frequencies of A, C, G, T in units of 1/65535."""
    place = region.contig, region.start, region.end
    found = genome.variants(*place)
    fixed_V4 = np.rint(found.frequency * np.float64(FREQUENCY_ONE)).astype(np.uint16)
    return {
        "contig": region.contig, "name": name, "start": region.start, "end": region.end,
        "variants": len(found.position), "sequence": _pack(genome.sequence(*place)),
        "position": _pack((found.position - region.start).astype(np.uint32)), "frequency": _pack(fixed_V4),
    }  # fmt: skip


def _annotation_data(kind: str, lines: list[str]) -> dict[str, Any]:
    """Return lines, and the attribute that names features; without one igv.js looks for it."""
    named = {"name": "gene_name"} if kind == "gtf" and any("gene_name" in line for line in lines) else {}
    return {"format": kind, "text": _pack("".join(lines)), **named}


def _variant_data(alleles: pl.DataFrame) -> dict[str, Any]:
    """Return the columns of alleles: numbers by region and position, texts, and a list of the scores that any has."""
    data = {name: _pack("\n".join(alleles[name])) for name in ("ID", "ref", "alt", "why")}
    data |= {name: _pack(alleles[name].cast(pl.UInt32).to_numpy()) for name in ("region", "position")}
    scores = (column for column in alleles if column.dtype == pl.Float32 and column.count())
    packed = [(column.name, _pack(column.fill_null(np.nan).to_numpy())) for column in scores]
    return {"count": len(alleles), **data, "scores": packed}


def _predict(
    model: Any, genome: ProbabilisticGenome, regions: Sequence[Region], mask_every: int,
    settings: PredictionSettings | None, progress: bool,
) -> tuple[list[UInt16], dict[str, str]]:  # fmt: skip
    """Return −ln P of A, C, G, T at each position, uint16 (L, 4) in units of `UNIT`, and how it was computed."""
    from mutbert.inference import bases, run

    predictor = bases.BasePredictor(model, genome.reference(), settings or bases.PredictionSettings())
    stride = 1 if mask_every == 1 else max(predictor.context // 2, 1)
    at_once = predictor.windows_at_once(mask_every) * stride
    known = sum(int(np.diff(genome.known_runs(one.contig, one.start, one.end)).sum()) for one in regions)
    work, found = f"{known:,} bases, about {-(-known // stride) * max(mask_every, 1):,} windows", []
    columns = [f"probability_{base}" for base in alphabet.BASES]
    with progress_bar("predicting", known, unit="bases", work=work, show=progress) as advance:
        for region in regions:
            every_P, number = np.arange(region.start, region.end), list(genome.lengths).index(region.contig)
            parts = np.split(every_P, range(at_once, len(region), at_once))
            scores = [predictor.predict(np.full_like(one, number), one, mask_every, advance) for one in parts]
            probability_L4 = pl.concat(scores).select(columns).to_numpy().astype(np.float64)
            with np.errstate(divide="ignore"):
                unit_L4 = np.rint(-np.log(probability_L4) / UNIT)
            found.append(np.nan_to_num(unit_L4.clip(0, MISSING - 1), nan=MISSING).astype(np.uint16))
    # Of a folder its last two names, as those of the Hub have.
    name = "/".join(run.model_name(model).split("/")[-2:])
    return found, {"model": f"{name} (context {predictor.context}, strands {predictor.settings.strands})"}


def _read_variants(
    path: Path, genome: ProbabilisticGenome, regions: list[Region]
) -> tuple[pl.DataFrame, list[Region]]:  # fmt: skip
    """Return a row per scored allele in the regions, and the regions, or where there are none what the VCF covers."""
    info = read_header(path).info
    if not (prefixes := tuple(name.removesuffix("WHY") for name in info if name.endswith("_WHY"))):
        raise InputError(f"{path}: has no scores (INFO field MUTBERT_WHY); score it first, by 'mutbert score --vcf'")
    fields = [f"INFO/{name}" for name in info if name.startswith(prefixes)]
    names, contigs, covered = ContigNames(genome.lengths), dict[str, str | None](), list[Region]()
    texts = dict.fromkeys(("contig", "ID", "ref", "alt", *fields), pl.String())
    frames = [pl.DataFrame(schema={"position": pl.Int64(), **texts})]
    pairs = ((name, one) for name in count_by_index(path) or () for one in regions)
    asked: Any = [(name, one.start, one.end) for name, one in pairs if names.find(name) == one.contig]
    for frame in read_records(path, ["ID", *fields], region=asked or None):
        contigs |= {name: names.find(name) for name in frame["contig"].unique()}
        frame = frame.with_columns(pl.col("contig").replace_strict(contigs, return_dtype=pl.String))
        frames.append(_within(frame.select(frames[0].columns), regions).select(frames[0].columns))
        if not regions:
            ends = pl.col("position").min().alias("start"), pl.col("position").max().alias("end") + 1
            covered = [Region(*row) for row in pl.concat(frames).group_by("contig").agg(ends).iter_rows()]
            _check_length(path, covered)
    if contigs and not any(contigs.values()):
        what = f"its contigs ({names_text(contigs)}) are none of the genome's ({names_text(genome.lengths)})"
        raise InputError(f"{path}: {what}; use the genome that it was scored with")
    if covered:
        wide = ((one.contig, max(one.start - _MARGIN, 0), one.end + _MARGIN) for one in covered)
        regions = merge_regions((Region(*one[:2], min(one[2], genome.lengths[one[0]])) for one in wide), genome.lengths)
    # One dot stands for all alternates.
    every = pl.lit(".").repeat_by(pl.col("alt").str.count_matches(",", literal=True) + 1)
    lists = (pl.when(pl.col(name) != ".").then(pl.col(name).str.split(",")).otherwise(every) for name in fields)
    rows = _within(pl.concat(frames), regions).sort("region", "position", maintain_order=True)
    rows = rows.with_columns(pl.col("alt").str.split(","), *lists).explode("alt", *fields)
    whys = [name for name in fields if name.endswith("_WHY")]
    reason = pl.concat_str(pl.col(whys).replace(".", None), separator=", ", ignore_nulls=True)
    prefix = f"INFO/{prefixes[0] if len(prefixes) == 1 else ''}"
    scores = (pl.col(name).cast(pl.Float32, strict=False).alias(name.removeprefix(prefix)) for name in fields)
    columns = rows.select("region", "position", "ID", "ref", "alt", *scores, why=reason)
    return columns.drop([name.removeprefix(prefix) for name in whys]), regions


def _within(records: pl.DataFrame, regions: Sequence[Region]) -> pl.DataFrame:
    """Return the records whose POS lies in a region, with the region's number; without regions all on known contigs."""
    cases = (
        pl.when(pl.col("contig") == one.contig, pl.col("position").is_between(one.start, one.end - 1)).then(number)
        for number, one in enumerate(regions)
    )
    number = pl.coalesce(*cases) if regions else pl.when(pl.col("contig").is_not_null()).then(0)
    return records.with_columns(region=number.cast(pl.UInt32)).drop_nulls("region")


def _read_annotation(
    path: Path, genome: ProbabilisticGenome, regions: Sequence[Region], names: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Return the format that igv.js knows and the lines that overlap a region, with its plain name of the contig."""
    kind = _FORMATS.get(path.name.lower().removesuffix(".gz").rpartition(".")[2])
    if kind is None:
        raise InputError(f"{path}: the suffix names the format; it must be one of {', '.join(_FORMATS)}, also with .gz")
    packed, known, contigs, kept = check_input(path, "annotation"), ContigNames(genome.lengths), dict[str, Any](), []
    try:
        with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as file:
            for number, line in enumerate(takewhile(lambda one: not one.startswith("##FASTA"), file), start=1):
                name, *columns = line.rstrip("\r\n").split("\t")
                if line.startswith("#") or not line.strip():
                    continue
                if name not in contigs:
                    contigs[name] = known.find(name)
                if len(columns) != 8 or not (columns[2] + columns[3]).isdecimal():
                    what = "expected nine columns separated by tabs, with start and end in the fourth and fifth"
                    raise InputError(f"{path}, line {number}: {what}; check that it is {kind.upper()}")
                place, start, end = contigs[name], int(columns[2]) - 1, int(columns[3])
                overlaps = any(one.contig == place and start < one.end and one.start < end for one in regions)
                if overlaps and columns[1] not in _WHOLE:
                    kept.append("\t".join([names[place], *columns]) + "\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as {kind.upper()} ({error}); copy it again") from None
    if not any(contigs.values()):
        what = f"its contigs ({names_text(contigs)}) are none of the genome's ({names_text(genome.lengths)})"
        raise InputError(f"{path}: {what}; use the annotation of this assembly")
    return kind, kept
