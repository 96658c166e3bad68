"""Random populations: the builder and `verify` against a slow reader of text, and the builder against itself.

A population is species with their contigs, and VCF files with all that may be in one: several alternates, lines and
files of a site, missing calls, any ploidy, either case and naming, insertions, deletions and symbols.
"""

import gzip
import json
import re
import shutil
from collections import Counter, namedtuple
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pysam
import pysam.bcftools
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mutbert import ProbabilisticGenome, build_genome, verify_genome
from mutbert.errors import InputError
from mutbert.genome.format import FREQUENCY_ONE
from mutbert.genome.variants import REASONS

MEMBERS = {"R": "AG", "Y": "CT", "N": ""} | {base: base for base in "ACGT"}
HEADER = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="">
##INFO=<ID=DB,Number=0,Type=Flag,Description="">
##FORMAT=<ID=GT,Number=1,Type=String,Description="">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="">
##FILTER=<ID=low,Description="">
##FILTER=<ID=q10,Description="">"""
KINDS = ("plain", "gzip", "bgzip", "index", "bcf", "bcf index")
MISSING, IMPOSSIBLE, DIFFERS = None, Fraction(-1), "reference base differs from the FASTA"


Record = namedtuple("Record", "chrom pos ref alts state values keys calls")


def line_of(record):
    chrom, pos, ref, alts, state, values, keys, calls = record
    info = "DB" if values == ("none",) else f"AF={','.join(values)}"
    return "\t".join(map(str, [chrom, pos, ".", ref, ",".join(alts), ".", state, info, keys, *calls]))


class File(NamedTuple):
    """A VCF file of a species, and how it is wrapped."""

    species: str
    samples: tuple[str, ...]
    records: tuple[Record, ...]
    kind: str
    declared: bool  # whether the header lists the contigs, as BCF needs it

    def write(self, path):
        """Write it; gives the path, as the wrapping may change the name."""
        chroms = dict.fromkeys(record.chrom for record in self.records)
        declared = [f"##contig=<ID={chrom}>" for chrom in chroms if self.declared or self.kind.startswith("bcf")]
        columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *self.samples]
        lines = [HEADER, *declared, "\t".join(columns), *map(line_of, self.records)]
        path.write_text("".join(f"{line}\n" for line in lines))
        if self.kind == "gzip":
            path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        elif self.kind in ("bgzip", "index"):
            packed = path.with_suffix(".vcf.gz")
            pysam.tabix_compress(str(path), str(packed), force=True)
            path = packed
        elif self.kind != "plain":
            binary = path.with_suffix(".bcf")
            pysam.bcftools.view("--no-version", "-Ob", "-o", str(binary), str(path), catch_stdout=False)
            path = binary
        # A record at position 0 can be in no index.
        if "index" in self.kind and all(record.pos for record in self.records):
            pysam.bcftools.index("--force", str(path), catch_stdout=False)
        return path


class Population(NamedTuple):
    """Sequences by species and contig, and the files."""

    sequences: dict[tuple[str, str], str]
    files: tuple[File, ...]

    def write(self, folder, *, reverse=False, kinds=None):
        """Write all; gives what --fasta and --vcf take."""
        folder.mkdir()
        order = list(self.sequences.items())[:: -1 if reverse else 1]
        fastas, vcfs = [], []
        for species in dict.fromkeys(key[0] for key, _ in order):
            path = folder / f"{species}.fa"
            path.write_text("".join(f">{key[1]}\n{text}\n" for key, text in order if key[0] == species))
            fastas.append(f"{species}={path}" if species else path)
        for number, file in enumerate(self.files):
            path = file._replace(kind=kinds[number] if kinds else file.kind).write(folder / f"{number}.vcf")
            vcfs.append(f"{file.species}={path}" if file.species else path)
        return fastas, vcfs


def name_of(species, contig):
    return f"{species}.{contig}" if species else contig


def calls_of(count):
    """Genotypes of a site with so many alternates; most have none, so that a position seldom sums above 1."""
    some = [f"{a}{sep}{b}" for a in (0, ".") for b in range(1, count + 1) for sep in "|/"]
    both = [f"{min(count, 1)}|{min(count, 1)}"]
    return st.sampled_from([*["0|0", "0/0", "0", "0/0/0"] * 4, *some, f"{count}", "./.", ".", f"0/0|{count}", *both])


@st.composite
def records(draw, sequence, chrom, pos, samples):
    size = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
    given = sequence[max(pos - 1, 0) :][:size].upper() or "A"
    ref = "".join(draw(st.sampled_from(MEMBERS[base] or "A")) for base in given)
    ref = draw(st.sampled_from([ref] * 20 + [ref.lower()] * 3 + ["A", "N", given]))
    single = [ref[:i] + base + ref[i + 1 :] for i in range(len(ref)) for base in "ACGTc"]
    several = ["".join(draw(st.permutations("ACGT"))[: len(ref)]) for _ in range(3)]
    alt = st.sampled_from([*single, *several, *several, "N", "*", "<DEL>", "AT", "GTT", "A."])
    alts = draw(st.lists(alt, min_size=1, max_size=3, unique=True) | st.just(["."]))
    value = st.sampled_from([".", "0", "0.005", "0.01", "0.02", "0.0200001", "0.07", "0.25"])
    values = draw(st.tuples(*[value] * len(alts)) | st.sampled_from([(".",), ("none",)]))
    keys = draw(st.sampled_from(["GT", "GT", "GT:DP", "DP"]))
    call, depth = calls_of(len(alts) * (alts != ["."])), st.sampled_from(["", ":12", ":."] if ":" in keys else [""])
    calls = ["7" if keys == "DP" else draw(call) + draw(depth) for _ in samples]
    state = draw(st.sampled_from(["PASS", "PASS", "PASS", ".", "low", "low;q10"]))
    return Record(chrom, pos, ref, tuple(alts), state, tuple(values), keys, tuple(calls))


SEQUENCES = st.text("ACGTACGTACGTacgtNRY", min_size=3, max_size=16)


@st.composite
def populations(draw, most_files=3):
    species = draw(st.sampled_from([[""], [""], ["human", "mouse"]]))
    sequences = {(one, f"chr{i}"): draw(SEQUENCES) for one in species for i in range(1, draw(st.integers(2, 3)))}
    files = []
    for _ in range(draw(st.integers(1, most_files))):
        one = draw(st.sampled_from(species))
        samples = tuple(draw(st.lists(st.sampled_from("stuvw"), min_size=1, max_size=4, unique=True)))
        rows = []
        for contig in draw(st.permutations(["chr1", "chr2", "chr9"])):
            sequence = sequences.get((one, contig), "ACGT")
            chrom = contig.removeprefix(draw(st.sampled_from(["", "chr"])))
            for pos in sorted(draw(st.lists(st.integers(0, len(sequence) + 2), max_size=8))):
                rows.append(draw(records(sequence, chrom, pos, samples)))
                if draw(st.integers(0, 5)) == 0:
                    rows.append(rows[-1])
        if rows:
            files.append(File(one, samples, tuple(rows), draw(st.sampled_from(KINDS)), draw(st.booleans())))
    assume(files)
    return Population(sequences, tuple(files))


@st.composite
def choices(draw, population):
    """Options of a build: where frequencies are from, which filters pass, and the minimum."""
    there = sorted({name for file in population.files for name in file.samples})
    chosen = draw(st.lists(st.sampled_from(there), min_size=1, unique=True)) if draw(st.booleans()) else None
    if chosen is not None:
        # A file with none of the chosen samples is refused.
        assume(all(set(chosen) & set(file.samples) for file in population.files))
    return {
        "frequency_field": "GT" if chosen else draw(st.sampled_from(["AF", "GT"])),
        "samples": chosen,
        "filters": draw(st.sampled_from([("PASS", "."), ("PASS", "."), ("PASS",), ("low", "."), ("q10",), ("any",)])),
        "min_frequency": draw(st.sampled_from([0, 0.01, 0.02, 0.1])),
    }


def read_slowly(population, *, frequency_field, samples, filters, min_frequency):
    """Read a population line by line, allele by allele, base by base, in exact fractions.

    Returns the rows, as {(contig, position): {base: frequency}}; the records by reason, and how many were taken apart,
    for each file. Or a set of words, of which a build that has to stop says some.
    """
    reasons, seen, references, refusals = [], {}, {}, set()
    matched, every = False, set()
    for number, file in enumerate(population.files):
        reasons.append([])
        bare = {key[1].removeprefix("chr"): key for key in population.sequences if key[0] == file.species}
        sites = {}
        for record in file.records:
            sites.setdefault((record.chrom, record.pos), []).append(record)
        compared, mismatched, furthest = 0, 0, set()
        for line, record in enumerate(file.records):
            key = bare.get(record.chrom.removeprefix("chr"))
            matched |= key is not None
            if key is None:
                reasons[-1].append(["contig not in the FASTA"])
                continue
            names = ["."] if record.state == "." else record.state.split(";")
            if "any" not in filters and not set(names) & set(filters):
                reasons[-1].append(["filtered"])
                continue
            lines = sites[record.chrom, record.pos]
            values = frequencies_of(record, lines, file.samples, frequency_field, samples)
            found, sequence = [], population.sequences[key]
            for alt, value in zip(record.alts, values, strict=True):
                found += read_allele(key, sequence, record, alt, value, (number, line), seen, references)
            compared += "compared" in found
            mismatched += "mismatched" in found
            furthest |= set(found)
            reasons[-1].append([reason for reason in found if reason in REASONS])
        every |= furthest
        if not compared and "outside the contig" in furthest:
            refusals.add("lie outside")
        if mismatched > max(1, Fraction("0.01") * compared):
            refusals.add("REF differs from the FASTA")
    if not matched and any(file.records for file in population.files):
        refusals.add("no contig is in the FASTA")
    if "frequency missing" in every and "compared" not in every:
        refusals.add("has a frequency")
    totals = Counter()
    for (key, place, *_), (frequency, _) in seen.items():
        totals[key, place] += frequency
    for (key, place, *_), (_, (number, line)) in seen.items():
        if totals[key, place] > Fraction("1.001"):
            at = reasons[number][line].index("frequency not above the minimum")
            reasons[number][line][at] = "impossible frequency"
    rows = {
        (name_of(*key), place): Counter({references[key, place]: max(1 - total, 0)})
        for (key, place), total in totals.items()
        if Fraction(str(min_frequency)) < total <= Fraction("1.001")
    }
    decomposed = [set() for _ in population.files]
    for (key, place, _, after, whole), (frequency, (number, line)) in seen.items():
        row = rows.get((name_of(*key), place))
        if row is not None and frequency:
            row[after] += frequency
            reasons[number][line].append("used")
            if whole:
                decomposed[number].add(line)
    counts = [Counter(max(found, key=REASONS.index) for found in file) for file in reasons]
    if any(count["impossible frequency"] > Fraction("0.01") * count.total() for count in counts):
        refusals.add("have no frequency")
    return refusals or (rows, counts, [len(lines) for lines in decomposed])


def frequencies_of(record, lines, names, field, chosen):
    """Frequencies of a record's alternates; genotypes are counted over the lines of its position."""
    if field == "AF":
        if record.values in ((".",), ("none",)):
            return [MISSING] * len(record.alts)
        values = [MISSING if value == "." else Fraction(value) for value in record.values]
        known = [value for value in values if value is not MISSING]
        is_possible = all(0 <= value <= 1 for value in known) and sum(known) <= Fraction("1.001")
        return values if is_possible and len(values) == len(record.alts) else [IMPOSSIBLE] * len(record.alts)
    people = [at for at, name in enumerate(names) if chosen is None or name in chosen]
    own, *others = (
        {
            (at, place): allele
            for at in people
            if line.keys.startswith("GT")
            for place, allele in enumerate(re.split("[|/]", line.calls[at].split(":")[0]))
            if allele != "."
        }
        for line in [record, *lines]
    )
    # Lines of two calls a person are complete.
    total = len(own.keys() | set().union(*others) if any(len(one) != 2 * len(people) for one in others) else own)
    counts = Counter(own.values())
    if any(allele != "0" and int(allele) > len(record.alts) for allele in counts):
        return [IMPOSSIBLE] * len(record.alts)
    return [Fraction(counts[str(i)], total) if own else MISSING for i in range(1, len(record.alts) + 1)]


def read_allele(key, sequence, record, alt, value, line, seen, references):
    if alt == ".":
        return ["no alternate allele"]
    if alt == "*":
        return ["overlapping deletion (*)"]
    if not alt.isalpha():
        return ["symbolic or structural"]
    if len(record.ref) != len(alt):
        return ["insertion or deletion"]
    ref, alt = record.ref.upper(), alt.upper()
    places = [i for i in range(len(ref)) if ref[i] != alt[i]]
    if not places:
        return ["alternate is the reference"]
    first, last = places[0], places[-1] + 1
    whole = (record.pos + first, ref[first:last], alt[first:last]) if places[1:] else ()
    states = [state_of(sequence, record.pos - 1 + i, ref[i], alt[i], value) for i in range(len(ref))]
    # All of REF has to agree, so that an allele comes no further than its last base that does not.
    wrong = [state for state in states if state in ("outside the contig", DIFFERS)]
    found = ["compared"] * (DIFFERS in states or "used" in states) + ["mismatched"] * (DIFFERS in states)
    for i in places:
        place, allele = record.pos - 1 + i, (key, record.pos - 1 + i, ref[i], alt[i], whole)
        state = min([states[i], *wrong[-1:]], key=REASONS.index)
        if state != "used":
            found.append(state)
        elif references.setdefault((key, place), ref[i]) != ref[i]:
            found.append("conflicts with an earlier record")
        elif allele in seen:
            found.append("duplicate record" if seen[allele][0] == value else "conflicts with an earlier record")
        else:
            seen[allele] = value, line
            found.append("frequency not above the minimum")
    return found


def state_of(sequence, place, before, after, value):
    base = sequence[place].upper() if 0 <= place < len(sequence) else ""
    for state, is_so in (
        ("impossible frequency", value is IMPOSSIBLE and after in "ACGT"),
        ("reference base unknown", before not in "ACGT"),
        ("alternate base not A, C, G or T", after not in "ACGT"),
        ("frequency missing", value is MISSING),
        ("outside the contig", not base),
        ("reference base unknown", base == "N"),
        (DIFFERS, before not in MEMBERS.get(base, "")),
    ):
        if is_so:
            return state
    return "used"


def variants_of(path):
    """Read the rows of a store back as {(contig, position): frequencies}."""
    genome = ProbabilisticGenome.open(path, check=True)
    found = {name: zip(*(one.tolist() for one in genome.variants(name)), strict=True) for name in genome.contigs}
    return {(name, place): row for name, rows in found.items() for place, _, row in rows}


def assert_rows(found, expected):
    assert sorted(found) == sorted(expected)
    for place, row in expected.items():
        total = sum(row.values())
        wanted = [float(row.get(base, 0) / total) for base in "ACGT"]
        np.testing.assert_allclose(found[place], wanted, atol=1.01 / FREQUENCY_ONE, err_msg=str(place))


# ---- the slow reader, and what the result does not depend on


def outcome(*arguments, **options):
    """Build; gives the arrays' bytes, the rows and the report, or what was refused."""
    try:
        report = build_genome(*arguments, **options)
    except InputError as error:
        return str(error), None, None
    counts = [(one["read"], one["used"], one["decomposed"], dict(one["not_used"])) for one in report["records"]]
    arrays = {path.name: path.read_bytes() for path in sorted(report["path"].glob("*.npy"))}
    manifest = json.loads((report["path"] / "manifest.json").read_text())
    names = report["contig_names"], sorted(report["only_in_vcf"])
    return [arrays, manifest], variants_of(report["path"]), (counts, names)


def check(folder, population, kinds, **options):
    """Build, and compare with the slow reader; nor do workers, other wrapping and another order change anything."""
    fastas, vcfs = population.write(folder / "in")
    expected = read_slowly(population, **options)
    found, rows, report = plain = outcome(fastas, folder / "x.genome", vcfs, **options)
    assert outcome(fastas, folder / "y.genome", vcfs, workers=3, **options) == plain
    others = population.write(folder / "other", reverse=True, kinds=kinds)
    other = outcome(others[0], folder / "z.genome", others[1], workers=2, **options)
    assert other[1:] == plain[1:]
    if isinstance(expected, set):
        assert re.search("|".join(expected), found)
        assert isinstance(other[0], str)
        return
    expected_rows, expected_counts, decomposed = expected
    for (read, used, of_several, not_used), wanted, number, file in zip(
        report[0], expected_counts, decomposed, population.files, strict=True
    ):
        assert {"used": used, **not_used} == {"used": 0, **wanted}
        assert (read, of_several) == (len(file.records), number)
    assert_rows(rows, expected_rows)
    genome = ProbabilisticGenome.open(folder / "x.genome")
    for key, sequence in population.sequences.items():
        masked = genome.soft_masked(name_of(*key), 0, len(sequence))
        assert masked.tolist() == [letter.islower() for letter in sequence]
    names = folder / "samples.txt"
    names.write_text("".join(f"{name}\n" for name in options["samples"] or ()))
    verified = verify_genome(genome.path, fastas, vcfs, samples=names if options["samples"] else None)
    assert verified["agrees"], verified["differences"]


@given(st.data(), populations())
def test_builds_equal_a_slow_reader_and_depend_on_nothing_else(tmp_path_factory, data, population):
    folder = tmp_path_factory.mktemp("population")
    kinds = data.draw(st.tuples(*[st.sampled_from(KINDS)] * len(population.files)))
    check(folder, population, kinds, **data.draw(choices(population)))
    shutil.rmtree(folder)


def site(pos, ref, alt, value):
    return Record("chr1", pos, ref, (alt,), "PASS", (str(value),), "GT", ("0|0",))


FROM_AF = {"frequency_field": "AF", "samples": None, "filters": ("PASS",), "min_frequency": 0.02}


@pytest.mark.parametrize(
    ("sequence", "files"),
    [
        # Alleles of several nucleotides that are alike but for where they begin.
        ("CGAGACGT", [("plain", [site(1, "CGA", "GTG", 0.1), site(3, "AGA", "GTG", 0.2)])]),
        # A record that conflicts is no earlier one for those that agree.
        ("RACGT", [("plain", [site(1, "A", "C", 0.1), site(1, "G", "T", 0.1), site(1, "A", "T", 0.2)])]),
        # The order of the files counts, not which of them has an index.
        ("ACGT", [("plain", [site(1, "A", "C", 0.1)]), ("bcf index", [site(1, "A", "C", 0.3)])]),
    ],
)
def test_what_random_populations_seldom_show(tmp_path, sequence, files):
    population = Population(
        {("", "chr1"): sequence}, tuple(File("", ("s",), tuple(rows), kind, declared=True) for kind, rows in files)
    )
    check(tmp_path, population, ["plain"] * len(files), **FROM_AF)


def test_regions_of_a_large_file_make_the_same_genome(tmp_path):
    """A file that its index cuts into regions, with alleles that reach over their borders."""
    generator, vcf, fasta = np.random.default_rng(5), tmp_path / "x.vcf", tmp_path / "x.fa"
    text = '##fileformat=VCFv4.2\n##INFO=<ID=AF,Number=A,Type=Float,Description="">\n'
    text += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    lengths = {"chr1": 2_000_003, "2": 300_001, "chr3": 5}
    fasta.write_text("".join(f">{name}\n{('ACGT' * length)[:length]}\n" for name, length in lengths.items()))
    for name, length in lengths.items():
        kinds = generator.choice(["A\tC", "ACGTA\tCCGTT", "A\tAT"], length // 4, p=[0.6, 0.3, 0.1]).tolist()
        values = generator.choice(["0.01", "0.3"], length // 4).tolist()
        rows = enumerate(zip(kinds, values, strict=True))
        text += "".join(f"{name}\t{4 * row + 1}\t.\t{kind}\t.\t.\tAF={value}\n" for row, (kind, value) in rows)
    vcf.write_text(text)
    expected = outcome(fasta, tmp_path / "x.genome", vcf)
    indexed = pysam.tabix_index(str(vcf), preset="vcf", keep_original=True)
    for number in (1, 4):
        found = outcome(fasta, tmp_path / f"{number}.genome", indexed, workers=number)
        assert found[0][0] == expected[0][0]
        assert found[1:] == expected[1:]


# ---- bcftools


def bcftools(path, *commands):
    """Text of the last of some commands of bcftools, each of which reads what the one before has written."""
    for number, (verb, *words) in enumerate(commands):
        written = path.with_name(f"{number}.vcf")
        getattr(pysam.bcftools, verb)(*words, "-o", str(written), str(path), catch_stdout=False)
        path = written
    return path.read_text()


@given(st.data(), populations(most_files=1))
def test_frequencies_are_those_of_bcftools(tmp_path_factory, data, population):
    """Frequencies are AC/AN as bcftools counts them, of the places at which it takes alleles apart.

    What it says nothing of, or something else by definition, is left to the slow reader: records that overlap (it adds
    nothing up over lines), IUPAC codes of a FASTA (all N to it), REF and ALT of different lengths, star alleles, and a
    REF of several bases that is not all the contig's.
    """
    (file,) = population.files
    options = data.draw(choices(population)) | {"frequency_field": "GT"}
    sequences = {key: re.sub("[^ACGT]", "N", text.upper()) for key, text in population.sequences.items()}
    bare = {key[1].removeprefix("chr"): key for key in sequences if key[0] == file.species}

    def is_whole(record):
        start, size = record.pos - 1, len(record.ref)
        there = sequences.get(bare.get(record.chrom.removeprefix("chr")), "")[max(start, 0) :][:size]
        agrees = (one in ("N", base) for one, base in zip(there, record.ref.upper(), strict=False))
        return size == 1 or (start >= 0 and len(there) == size and all(agrees))

    file = file._replace(records=tuple(filter(is_whole, without_overlaps(file.records))))
    population = Population(sequences, (file,))
    folder = tmp_path_factory.mktemp("population")
    fastas, vcfs = population.write(folder / "in")
    # INFO/AF is not looked at, and bcftools wants it to have as many values as there are alternates.
    bare_records = tuple(record._replace(values=("none",)) for record in file.records)
    plain = file._replace(kind="plain", declared=True, records=bare_records).write(folder / "plain.vcf")
    filters = ",".join(options["filters"])
    chosen = [name for name in options["samples"] or file.samples if name in file.samples]
    text = bcftools(
        plain,
        # Choosing samples, be it all, counts AC and AN anew.
        ("view", *([] if filters == "any" else ["--apply-filters", filters]), "--samples", ",".join(chosen)),
        ("norm", "--multiallelics", "-any"),
        ("view", "--include", "strlen(REF)=strlen(ALT)"),
        ("norm", "--atomize"),
        ("query", "--format", "%CHROM\t%POS\t%REF\t%ALT\t%AC\t%AN\n"),
    )
    rows, references = {}, {}
    for line in text.splitlines():
        chrom, pos, ref, alt, count, number = line.upper().split("\t")
        key, place = bare.get(chrom.lower().removeprefix("chr")), int(pos) - 1
        is_there = place >= 0 and sequences.get(key, "")[place : place + 1] == ref != alt
        if is_there and re.fullmatch("[ACGT]{2}", ref + alt) and number not in ("0", "."):
            references[name_of(*key), place] = ref
            rows.setdefault((name_of(*key), place), Counter())[alt] += Fraction(count) / Fraction(number)
    found = outcome(fastas, folder / "x.genome", vcfs, **options)
    if isinstance(found[0], str):
        too_much = any(row.total() > Fraction("1.001") for row in rows.values())
        assert too_much if "have no frequency" in found[0] else not rows or "REF differs" in found[0]
        return
    minimum = Fraction(str(options["min_frequency"]))
    expected = {place: row for place, row in rows.items() if row.total() > minimum}
    for place, row in expected.items():
        row[references[place]] += max(1 - row.total(), 0)
    assert_rows(found[1], expected)
    shutil.rmtree(folder)


def without_overlaps(records):
    """Leave out the records that reach into the one before, and those with an alternate that comes twice."""
    kept, ends = [], {}
    for record in records:
        if record.pos > ends.get(record.chrom, -1) and len({alt.upper() for alt in record.alts}) == len(record.alts):
            kept.append(record)
            ends[record.chrom] = record.pos + len(record.ref) - 1
    return tuple(kept)
