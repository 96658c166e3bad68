"""Build a probabilistic genome from FASTA and VCF files, or of stores of its parts: published in one step."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mutbert import __version__
from mutbert.errors import InputError, reading
from mutbert.files import atomic_directory, check_output, settle, write_json
from mutbert.genome import format as store
from mutbert.genome import sources as inputs
from mutbert.genome.population import Population
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.variants import NO_CONTIG, NO_FREQUENCY, NOT_SELECTED, REASONS, USED
from mutbert.genome.vcf import GENOTYPES, older_index
from mutbert.progress import progress_bar
from mutbert.regions import ContigNames, names_text
from mutbert.settings import listed


def build_genome(
    fasta: inputs.Sources, output: str | Path, vcf: inputs.Sources = (), *, min_frequency: float | None = None,
    frequency_field: str = "AF", samples: str | Path | Sequence[str] | None = None, population: str | None = None,
    sample: str | None = None, filters: Sequence[str] = ("PASS", "."), contigs: Sequence[str] | None = None,
    workers: int = 1, resume: bool = False, force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Build a probabilistic genome from a reference and a population's variants.

    At a position where the alternate single-nucleotide alleles of all records together have a frequency above
    `min_frequency`, the distribution is theirs, and REF has the rest; everywhere else it is the reference's.
    ``docs/genome.md`` says what counts and lists every reason for which a record does not.

    Parameters
    ----------
    fasta, vcf : path or sequence of paths
        Reference, plain, gzip or bgzip; variants, VCF or BCF. ``PREFIX=FILE`` prefixes the contigs' names
        (``human.chr1``), so that one genome can hold several species.
    output, min_frequency : path, float, optional
        The store to write, by convention ``NAME.genome``; keep positions that vary more often than this (by default the
        published 0.02, and 0 for one person's genome).
    frequency_field : str
        INFO field with a frequency per alternate allele, a quotient such as ``AC/AN``, or ``GT`` to count the
        genotypes. Without a declared ``AF``, ``AC/AN`` is used, and after that the genotypes.
    samples, population, sample : path or sequence of str, str, str, optional
        Count the genotypes of these samples: names, or a file with one per line, or a panel with their populations;
        only this population's samples of a panel; one sample, for its diploid genome.
    filters, contigs, workers : sequence of str, sequence of str, int
        FILTER names that pass, ``.`` for an empty FILTER, ``any`` for all; contigs of the FASTA to keep, with or
        without ``chr``, all by default; how many parts of the VCF files are read at once.
    resume, force, progress : bool
        Go on with a stopped build, and keep a finished one; replace the output; show progress on standard error.

    Returns
    -------
    dict
        `path`; `lengths` by contig; `variants`, how many positions vary; `records`, what became of those of each VCF
        file (``docs/format.md``); `contig_names`, the VCF's by the genome's; contigs `only_in_fasta` (of the selected)
        and `only_in_vcf`; `notes` on the input.

    Raises
    ------
    InputError
        A file that cannot be used, with its line; a VCF of another assembly; an output that exists.

    Examples
    --------
    >>> report = mutbert.build_genome("ref.fa", "new.genome", "panel.vcf")
    >>> report["lengths"], report["variants"]
    ({'chr1': 400, 'chr2': 150, 'chr3': 20}, 36)
    """
    fastas, vcfs = inputs.parse_sources(fasta), inputs.parse_sources(vcf)
    output, filters = Path(output), listed(filters)
    # 0.02 is the published minimum (Long et al. 2025, bioRxiv 2025.01.23.634452).
    minimum = min_frequency if min_frequency is not None else 0.02 if sample is None else 0.0
    is_chosen, is_panel = (sample or samples) is not None, isinstance(samples, (str, Path))
    both = "samples are chosen, so genotypes are counted; use only one of both"
    for is_wrong, problem in (
        (not 0 <= minimum < 1, f"minimum frequency {minimum:g}: is not at least 0 and below 1"),
        (workers < 1, f"{workers} workers: use at least one"),
        (not fastas, "no FASTA was given; name at least one"),
        (sample and samples, f"sample {sample}: one sample and a list of them were given; use one of both"),
        (population and not is_panel, f"population {population}: needs a panel file with populations (--samples)"),
        (is_chosen and frequency_field not in {"AF", GENOTYPES}, f"frequency field {frequency_field}: {both}"),
        (is_chosen and not vcfs, "samples are chosen, but no VCF was given; name one with genotypes"),
    ):
        if is_wrong:
            raise InputError(problem)
    inputs.check_sources(fastas, vcfs)
    chosen = inputs.read_samples(samples, population, sample)
    calls = inputs.find_calls(vcfs, frequency_field, chosen, filters)
    wanted = None if contigs is None else list(listed(contigs))
    settings = {
        "min_frequency": minimum, "frequency_field": frequency_field if chosen is None else GENOTYPES,
        "contigs": wanted, "filter": list(filters), "samples": inputs.describe_samples(chosen),
    }  # fmt: skip
    paths = [source.path for source in (*fastas, *vcfs)]
    work = output.with_name(f"{output.name}.partial") / "work"
    if not resume and not force and any(work.glob("parts/[!.]*.npz")):
        raise InputError(f"{work.parent}: has a stopped build; use --resume to go on with it, or remove it")
    is_finished = resume and (output / store.MANIFEST).exists()
    if not is_finished:
        check_output(output, force=force, directory=True, inputs=paths)
    with progress_bar("Checksums", sum(path.stat().st_size for path in paths), unit="bytes", show=progress) as advance:
        sources = [one.describe(kind, advance) for kind, some in (("fasta", fastas), ("vcf", vcfs)) for one in some]
    origin = {"created_by": f"mutbert {__version__}", "version": store.FORMAT_VERSION, "sources": sources}
    plan = {**origin, "settings": settings}
    if is_finished and plan.items() <= ProbabilisticGenome.open(output).manifest.items():
        settle(output)
        return _read_report(output, vcfs)
    begun = resume and (work / "plan.json").exists()
    with reading(work / "plan.json", f"remove {work.parent}"):
        is_other = begun and plan != json.loads((work / "plan.json").read_text(encoding="utf-8"))
    if is_other:
        why = "cannot be resumed, as its files, its settings or this program have changed"
        raise InputError(f"{output}: {why}; use the same as before, or remove {work.parent}")
    with atomic_directory(output, force=force, resume=begun, keep=lambda: any(work.glob("parts/[!.]*.npz"))) as folder:
        work.mkdir(exist_ok=True)
        write_json(work / "plan.json", plan, force=True)
        reference, not_selected = _write_reference(folder, fastas, wanted, progress=progress)
        arrays = {name: np.asarray(np.load(folder / name, mmap_mode="r")) for name in store.SEQUENCE_ARRAYS}
        genome = ProbabilisticGenome(output, reference, {}, arrays)
        found = Population(work, calls, genome, not_selected, workers)
        found.read(minimum, progress=progress)
        written = store.write_variants(folder, reference, found.variants())
        store.write_manifest(folder, written, **plan, **_describe(found, written, vcfs))
    return _read_report(output, vcfs)


def merge_genomes(
    genomes: Sequence[str | Path], output: str | Path, *, force: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Concatenate stores of different contigs, such as the parts of a build on a cluster.

    Parameters
    ----------
    genomes, output : sequence of paths, path
        The stores, in the order of their contigs and built with the same settings, of which no two have a contig in
        common; the store to write, with the same arrays as one build of all.
    force, progress : bool
        Replace the output where it exists; show progress on standard error.

    Returns
    -------
    dict
        As from `build_genome`.

    Raises
    ------
    InputError
        Stores of different settings, or with a contig in common.

    Examples
    --------
    >>> for contig in ("chr1", "chr2"):
    ...     report = mutbert.build_genome("ref.fa", f"{contig}.genome", contigs=[contig])
    >>> mutbert.merge_genomes(["chr1.genome", "chr2.genome"], "merged.genome")["lengths"]
    {'chr1': 400, 'chr2': 150}
    """
    output, genomes = Path(output), listed(genomes)
    if not genomes:
        raise InputError(f"{output}: no genome was given; name at least one")
    check_output(output, force=force, directory=True, inputs=genomes)
    parts = [ProbabilisticGenome.open(path, check=True) for path in genomes]
    with reading(f"manifest.json of {names_text(map(str, genomes))}", "build them again"):
        provenance = _merge_provenance(parts)
    found: dict[str, ProbabilisticGenome] = {}
    for part, name in ((one, name) for one in parts for name in one.contigs):
        if name in found:
            raise InputError(f"{part.path}: contig {name} is in {found[name].path} too; leave out one of them")
        found[name] = part

    def rows_of(name: str, kind: str, array: str) -> Any:
        return found[name].arrays[array][slice(*getattr(found[name].contigs[name], kind))]

    def sequences() -> Iterator[tuple[str, Any, Any]]:
        for name, part in found.items():
            yield name, part.bases(name, 0, part.lengths[name]), rows_of(name, "soft_mask", "soft_mask.npy")
            advance(part.contigs[name].length)

    variants = ((name, *(rows_of(name, "variants", array) for array in store.VARIANT_ARRAYS)) for name in found)
    total = sum(sum(part.lengths.values()) for part in parts)
    with (
        atomic_directory(output, force=force) as folder,
        progress_bar("Merging", total, unit="bases", show=progress) as advance,
    ):
        written = store.write_variants(folder, store.write_reference(folder, sequences()), variants)
        store.write_manifest(folder, written, **provenance)
    return _read_report(output)


def _write_reference(
    folder: Path, fastas: Sequence[inputs.Source], wanted: Sequence[str] | None, *, progress: bool
) -> tuple[dict[str, store.Contig], list[str]]:
    """Write the reference; return its contigs, and the names of those that are not selected."""
    selected, seen = ContigNames(wanted or ()), dict[str, Path]()

    def read() -> Iterator[tuple[str, Any, Any]]:
        for source in fastas:
            for own_name, code_L, soft_mask in inputs.read_fasta(source.path):
                advance(len(code_L))
                if (name := source.name(own_name)) in seen:
                    raise InputError(f"{source.path}: contig {name} is in {seen[name]} too; use PREFIX=FILE for each")
                seen[name] = source.path
                if wanted is None or selected.find(name) is not None:
                    yield name, code_L, soft_mask

    with progress_bar("Reading the reference", None, unit="bases", show=progress) as advance:
        contigs = store.write_reference(folder, read())
    there, not_selected = ContigNames(contigs), [name for name in seen if name not in contigs]
    missing = [name for name in wanted or [] if there.find(name) is None]
    if missing or not contigs:
        files, known = names_text(str(source.path) for source in fastas), names_text([*contigs, *not_selected])
        raise InputError(f"{files}: no contig {names_text(missing)}; there are {known}")
    return contigs, not_selected


def _describe(found: Population, contigs: Mapping[str, store.Contig], vcfs: Sequence[inputs.Source]) -> dict[str, Any]:
    """Return what the manifest holds of what became of the records; nothing depends on when or where it was built."""
    records = []
    for calls, tally in zip(found.calls, found.tallies, strict=True):
        counts = {text: tally["reason", text] for text in REASONS if tally["reason", text]}
        read, used, decomposed = sum(counts.values()), counts.pop(REASONS[USED], 0), tally["reason", "decomposed"]
        file = {"file": calls.source.path.name, "frequency_from": calls.frequencies}
        records.append(file | {"read": read, "used": used, "decomposed": decomposed, "not_used": counts})
    vcf_name = {name: found.names[name] for name in contigs if name in found.names}
    only_in_fasta = [name for name in contigs if vcfs and name not in vcf_name]
    names = {"vcf_name": vcf_name, "only_in_fasta": only_in_fasta, "only_in_vcf": list(found.unmatched)}
    return {"records": records, "contig_names": names}


def _read_report(output: Path, vcfs: Sequence[inputs.Source] = ()) -> dict[str, Any]:
    """Return the report of a finished store."""
    genome = ProbabilisticGenome.open(output)
    records, names = genome.manifest["records"], genome.manifest["contig_names"]
    note = "is older than its file, so it was not used; index the file anew to read it by regions"
    notes = [f"{index}: {note}" for source in vcfs if (index := older_index(source.path))]
    notes += [
        f"{one['file']}: none of its records is used, as none that could be has a call or a frequency"
        for one in records
        # The last reason, in their order, is how far any record came.
        if not one["used"] and [*one["not_used"]][-1:] == [REASONS[NO_FREQUENCY]]
    ]
    report = {"path": output, "lengths": dict(genome.lengths), "variants": len(genome.arrays[store.VARIANT_ARRAYS[0]])}
    return {**report, "records": records, "contig_names": names.pop("vcf_name"), **names, "notes": notes}


def _merge_provenance(parts: Sequence[ProbabilisticGenome]) -> dict[str, Any]:
    """Return what the manifest holds of sources, settings, records and names; raise where settings differ."""
    manifests = [{"settings": {}, "sources": [], "records": [], "contig_names": {}, **one.manifest} for one in parts]
    first, names = manifests[0]["settings"], [manifest["contig_names"] for manifest in manifests]
    sources, by_file = dict[str, Any](), defaultdict[str, list[Any]](list)
    for part, manifest in zip(parts, manifests, strict=True):
        settings = manifest["settings"]
        for key in (first.keys() | settings.keys()) - {"contigs"}:
            if first.get(key) != settings.get(key):
                other = f"{parts[0].path} with {first.get(key)}; build the parts with the same settings"
                raise InputError(f"{part.path}: was built with {key} {settings.get(key)}, and {other}")
        texts = [json.dumps(source) for source in manifest["sources"]]
        sources |= zip(texts, manifest["sources"], strict=True)
        vcfs = [text for text in texts if sources[text]["kind"] == "vcf"]
        for text, counts in zip(vcfs, manifest["records"], strict=True):
            by_file[text].append(counts)
    wanted = [manifest["settings"].get("contigs") for manifest in manifests]
    vcf_name = {contig: name for one in names for contig, name in one.get("vcf_name", {}).items()}
    # What one part did not have in its FASTA, another may have.
    unmatched = dict.fromkeys(name for one in names for name in one.get("only_in_vcf", []))
    only_in_vcf = [name for name in unmatched if name not in vcf_name.values()]
    only_in_fasta = [contig for one in names for contig in one.get("only_in_fasta", [])]
    contig_names = {"vcf_name": vcf_name, "only_in_fasta": only_in_fasta, "only_in_vcf": only_in_vcf}
    records, no_contig, not_selected = [], REASONS[NO_CONTIG], REASONS[NOT_SELECTED]
    # Each part has counted all records of a file, also of the others' contigs.
    for every in by_file.values():
        sums = sum((Counter(one["not_used"]) for one in every), Counter[str]())
        used, decomposed = (sum(one[key] for one in every) for key in ("used", "decomposed"))
        # What is not of a contig that a part has is in none of their FASTA files, or else not selected.
        rest = every[0]["read"] - used - sums.total() + sums[no_contig] + sums[not_selected]
        sums[no_contig] = min(rest, *(one["not_used"].get(no_contig, 0) for one in every))
        sums[not_selected] = rest - sums[no_contig]
        not_used = {text: sums[text] for text in REASONS if sums[text]}
        records.append({**every[0], "used": used, "decomposed": decomposed, "not_used": not_used})
    contigs = None if None in wanted else [name for some in wanted for name in some]
    origin = {"created_by": f"mutbert {__version__}", "sources": [*sources.values()]}
    return {**origin, "settings": {**first, "contigs": contigs}, "records": records, "contig_names": contig_names}
