"""Exports and counts of a genome against plain loops over its frequencies."""

import gzip
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.genome.build import build_genome
from mutbert.genome.export import export_genome, summarise_genome
from mutbert.genome.format import ARRAYS, FREQUENCY_ONE
from mutbert.genome.store import ProbabilisticGenome
from mutbert.regions import Region

SEQUENCES = {"chr1": "ACGTNNNNRYAC" * 11, "chr2": "GATTACA" * 9}
RECORDS = [
    ("1", 1, "A", "G,T", "0.25,0.5"),  # the most frequent base is an alternate
    ("1", 2, "C", "T", 0.5),  # a tie that the reference wins
    ("1", 3, "G", "A,C,T", "0.25,0.25,0.25"),  # four bases
    ("1", 9, "A", "G,T", "0.4,0.4"),  # the FASTA has R; a tie without the reference
    ("1", 12, "C", "A", 0.5),  # a tie that the reference wins, though A is stored one unit higher
    ("1", 132, "C", "A,G", "0.3,0.2"),  # three bases, at the contig's end
    ("2", 1, "G", "A", 0.03),
    ("2", 60, "T", "C", 1),
    ("2", 61, "A", "T", 1 / 3),
]


@pytest.fixture(scope="module")
def genome(tmp_path_factory, write_fasta, write_vcf):
    folder = tmp_path_factory.mktemp("genome")
    fasta = write_fasta(folder / "x.fa", SEQUENCES)
    vcf = write_vcf(folder / "x.vcf", RECORDS)
    return ProbabilisticGenome.open(build_genome(fasta, folder / "x.genome", vcf, min_frequency=0)["path"])


def read_fasta(path):
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    sequences, name = {}, ""
    for line in text.splitlines():
        if line.startswith(">"):
            name = line[1:]
            assert name not in sequences
            sequences[name] = []
        else:
            sequences[name].append(line)
    for lines in sequences.values():
        assert all(len(line) == 60 for line in lines[:-1])
        assert 1 <= len(lines[-1]) <= 60
    return {name: "".join(lines) for name, lines in sequences.items()}


def expected_letter(letter, row, kind, min_frequency):
    """What one position becomes, from its frequencies alone."""
    unit = 1.01 / FREQUENCY_ONE
    if letter == "N" or kind == "reference":
        return letter
    shown = [base for base, value in zip("ACGT", row, strict=True) if value > 0 and value >= min_frequency - unit]
    if kind == "iupac" and shown:
        shares = [float(base in shown) / len(shown) for base in "ACGT"]
        return alphabet.IUPAC[int(np.abs(alphabet.DISTRIBUTIONS - shares).sum(axis=1).argmin())]
    tied = [base for base, value in zip("ACGT", row, strict=True) if value >= max(row) - unit]
    return letter if letter in tied else tied[0]


@st.composite
def stores(draw):
    """Contigs as name -> (sequence, {position: counts of A, C, G, T}); ties are likely, and codes that vary."""
    contigs = {}
    for index in range(draw(st.integers(1, 3))):
        sequence = draw(st.text("ACGTACGTACGTNNRYBacgtnrb", min_size=1, max_size=140))
        places = draw(st.lists(st.integers(0, len(sequence) - 1), unique=True, max_size=12))
        counts = st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any)
        contigs[f"chr{index + 1}"] = (sequence, {place: draw(counts) for place in places})
    return contigs


@given(
    stores(),
    st.sampled_from(["reference", "consensus", "iupac"]),
    st.sampled_from([0, 0.25, 1 / 3, 0.5, 1]),
    st.booleans(),
)
def test_every_letter_equals_a_plain_loop(tmp_path_factory, write_genome, contigs, kind, min_frequency, soft_mask):
    folder = tmp_path_factory.mktemp("store")
    variants = {
        name: {place: np.array(counts) / sum(counts) for place, counts in here.items()}
        for name, (_, here) in contigs.items()
    }
    write_genome(folder, {name: sequence for name, (sequence, _) in contigs.items()}, variants)
    minimum = min_frequency if kind == "iupac" else 0
    export_genome(folder, folder / "x.fa", kind, min_frequency=minimum, soft_mask=soft_mask)
    found = read_fasta(folder / "x.fa")
    for name, (sequence, variants) in contigs.items():
        expected = list(sequence.upper())
        for place, counts in variants.items():
            row = [count / sum(counts) for count in counts]
            expected[place] = expected_letter(expected[place], row, kind, minimum)
        pairs = zip(sequence, expected, strict=True)
        assert found[name] == "".join(b.lower() if soft_mask and a.islower() else b for a, b in pairs)


def test_a_genome_of_an_exported_reference_is_the_same(tmp_path, write_fasta, as_version_1):
    fasta = write_fasta(tmp_path / "x.fa", {name: text[:7] + text[7:].lower() for name, text in SEQUENCES.items()})
    store = build_genome(fasta, tmp_path / "x.genome")["path"]
    export_genome(store, tmp_path / "y.fa", "reference", soft_mask=True)
    again = build_genome(tmp_path / "y.fa", tmp_path / "y.genome")["path"]
    for name in ARRAYS:
        assert (again / name).read_bytes() == (store / name).read_bytes()
    with pytest.raises(InputError, match="keeps no soft mask; build it again"):
        export_genome(as_version_1(store), tmp_path / "z.fa", "reference", soft_mask=True)


def test_regions_come_as_asked_for(tmp_path, genome):
    wanted = ["2:59-62", Region("1", 2, 10), "chr1:3-10", "chr2"]
    report = export_genome(genome, tmp_path / "x.fa", "consensus", regions=wanted)
    whole = SEQUENCES["chr2"][:59] + "CA" + SEQUENCES["chr2"][61:]
    assert list(read_fasta(tmp_path / "x.fa").items()) == [
        ("chr2:59-62", whole[58:62]),
        ("chr1:3-10", "GTNNNNGY"),
        ("chr2", whole),
    ]
    counts = {"regions": 3, "bases": 4 + 8 + 63, "variants": 2 + 2 + 3, "changed": 1 + 1 + 1}
    assert report == {"path": tmp_path / "x.fa", "kind": "consensus", **counts}


def expected_rows(genome, regions=None):
    """Every position that varies, from the dense frequencies."""
    for name, length in genome.lengths.items():
        dense = genome.frequencies(name, 0, length)
        plain = alphabet.DISTRIBUTIONS[alphabet.encode(SEQUENCES[name])]
        for place in range(length):
            if (dense[place] != plain[place]).any() and (regions is None or (name, place) in regions):
                yield name, place, SEQUENCES[name][place], dense[place].tolist()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_text_tables_hold_every_variant(tmp_path, genome, suffix):
    bed, tsv = tmp_path / f"x.bed{suffix}", tmp_path / f"x.tsv{suffix}"
    report = export_genome(genome, bed)
    assert (report["kind"], report["variants"], report["changed"]) == ("bed", 9, 0)
    export_genome(genome, tsv)
    lines = {}
    for path in (bed, tsv):
        content = path.read_bytes()
        # All of it is one BGZF file, so that tabix can index it.
        assert suffix == "" or content[12:14] == b"BC"
        lines[path] = (gzip.decompress(content) if suffix else content).decode().split("\n")
        assert lines[path].pop() == ""
    names = ["A>G,T", "C>T", "G>A,C,T", "R>A,G,T", "C>A", "C>A,G", "G>A", "T>C", "A>T"]
    rows = list(expected_rows(genome))
    scores = [750, 500, 750, 1000, 500, 500, 30, 1000, 333]
    assert lines[bed] == [
        f"{name}\t{place}\t{place + 1}\t{change}\t{score}\t.\t{place}\t{place + 1}\t0\t1\t1\t0\t"
        + "\t".join(f"{value:.6f}" for value in row)
        for (name, place, _, row), change, score in zip(rows, names, scores, strict=True)
    ]
    assert lines[tsv] == ["chrom\tpos\tref\tA\tC\tG\tT"] + [
        "\t".join([name, str(place + 1), letter, *(f"{value:.6f}" for value in row)])
        for name, place, letter, row in rows
    ]


def test_parquet_is_read_back(tmp_path, genome):
    pq = pytest.importorskip("pyarrow.parquet")
    export_genome(genome, tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    kinds = {"chrom": "string", "pos": "int64", "ref": "string"} | dict.fromkeys("ACGT", "float")
    assert {field.name: str(field.type) for field in table.schema} == kinds
    rows = [(row[0], row[1] - 1, row[2], list(row[3:])) for row in zip(*table.to_pydict().values(), strict=True)]
    assert rows == list(expected_rows(genome))


def test_a_contig_of_several_pieces_is_one(tmp_path, write_genome):
    """Longer than what is in memory at once; every 10th base varies, and half of each 1,000 is in lower case."""
    letters = np.resize(np.frombuffer(b"ACGTAACCNR", np.uint8), 2_100_010)
    letters[np.arange(len(letters)) % 1000 >= 500] |= 32
    contigs = {"chr1": letters.tobytes().decode()}
    variants = dict.fromkeys(range(0, len(letters), 10), np.array([0.25, 0, 0.75, 0]))
    store = write_genome(tmp_path / "x.genome", contigs, {"chr1": variants})
    export_genome(store, tmp_path / "x.fa", "reference", soft_mask=True)
    assert read_fasta(tmp_path / "x.fa") == contigs
    export_genome(store, tmp_path / "x.tsv")
    lines = (tmp_path / "x.tsv").read_text().splitlines()
    row = "A\t0.250004\t0.000000\t0.749996\t0.000000"
    assert lines[1:] == [f"chr1\t{place + 1}\t{row}" for place in variants]


def test_a_table_has_each_position_once(tmp_path, genome):
    wanted = ["chr2:60-62", "1:1-2", "2:1-60", "chr1:2-9"]
    report = export_genome(genome, tmp_path / "x.tsv", regions=wanted)
    covered = {("chr1", place) for place in range(9)} | {("chr2", place) for place in range(62)}
    found = [tuple(line.split("\t")[:3]) for line in (tmp_path / "x.tsv").read_text().splitlines()[1:]]
    assert found == [(name, str(place + 1), letter) for name, place, letter, _ in expected_rows(genome, covered)]
    assert (report["regions"], report["bases"], report["variants"]) == (2, 71, len(found))
    # Regions that touch are one, regions with a base between them two.
    report = export_genome(genome, tmp_path / "x.tsv", regions=["1:3-4", "1:1-2", "1:6"], force=True)
    assert (report["regions"], report["bases"]) == (2, 5)


@pytest.mark.parametrize(
    ("name", "kind", "options", "message"),
    [
        ("x.fa", None, {}, "there is no kind 'fa'; give --as with one of reference, consensus"),
        ("x.fa", "genbank", {}, "there is no kind 'genbank'; give --as with one of reference, consensus"),
        ("x.tsv", "parquet", {}, "its suffix is not that of parquet"),
        ("x.parquet.gz", None, {}, "its suffix is not that of parquet"),
        ("x.parquet", None, {}, r"mutbert\[all\]"),
        ("x.fa", "consensus", {"min_frequency": 0.1}, "is for iupac alone"),
        ("x.bed", None, {"soft_mask": True}, "soft mask: is for FASTA alone"),
        ("x.fa", "iupac", {"min_frequency": float("nan")}, "is not between 0 and 1"),
        ("x.fa", "iupac", {"regions": ["chr3"]}, "no such contig; there are chr1, chr2"),
        ("x.fa", "iupac", {"regions": [Region("chr1", 0, 133)]}, "not within chr1:1-132"),
        ("x.fa", "iupac", {"regions": []}, "no region was given"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch, genome, name, kind, options, message):
    # Only Parquet needs pyarrow.
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises((InputError, MissingExtraError), match=message):
        export_genome(genome, tmp_path / name, kind, **options)
    assert list(tmp_path.iterdir()) == []
    export_genome(genome, tmp_path / "x.bed")


# ---- in numbers


@pytest.fixture
def counted(tmp_path, write_fasta, write_vcf):
    records = [
        ("1", 1, "A", "G", 0.05),
        ("1", 2, "C", "T,A", "0.25,0.051"),
        ("1", 4, "T", "A", 1),
        ("2", 3, "A", "G", 0.5),
    ]
    fasta = write_fasta(tmp_path / "x.fa", {"chr1": "AcgTNNnn", "chr2": "ACR", "chr3": "nn"})
    vcf = write_vcf(tmp_path / "x.vcf", [*records, ("2", 3, "A", "G", 0.5)])
    return ProbabilisticGenome.open(build_genome(fasta, tmp_path / "x.genome", vcf)["path"])


def test_everything_is_counted(counted):
    found = summarise_genome(counted)
    # A>G and C>T against C>A and T>A; where the reference is R, there is no telling.
    names = ("name", "length", "known", "soft_masked", "variants", "alternates", "transitions", "transversions")
    assert found["contigs"].select(names).rows() == [
        ("chr1", 8, 4, 4, 3, 4, 2, 2),
        ("chr2", 3, 3, 0, 1, 1, 0, 0),
        ("chr3", 2, 0, 2, 0, 0, 0, 0),
    ]
    assert found["contigs"]["per_kilobase"].to_list() == [750, pytest.approx(1000 / 3), 0]
    assert [found[name] for name in names[1:]] == [13, 7, 6, 4, 5, 2, 2]
    assert (found["known_share"], found["soft_masked_share"], found["multi_allelic"], found["ti_tv"]) == (
        7 / 13, 6 / 13, 1, 1,
    )  # fmt: skip
    assert found["bytes_per_base"] == sum(file.stat().st_size for file in counted.path.glob("[!.]*")) / 13
    frequencies = [0.05, 0.25, 0.051, 1, 0.5]
    assert found["mean_alternate_frequency"] == pytest.approx(np.mean(frequencies), abs=1 / FREQUENCY_ONE)
    # Bins have their upper edges: 0.05, 0.051, 0.25, 0.5, 1.
    assert np.flatnonzero(found["spectrum"]).tolist() == [0, 1, 4, 9, 19]
    assert found["doubling_spectrum"] == [0] * 11 + [2, 0, 1, 1, 1]
    alone = summarise_genome(counted.reference())
    assert (alone["ti_tv"], alone["mean_alternate_frequency"], alone["diversity_per_kilobase"]) == (None, None, 0)
    assert sum(alone["spectrum"]) == sum(alone["doubling_spectrum"]) == alone["alternates"] == 0


def test_diversity_is_the_chance_that_two_chromosomes_differ(counted):
    found = summarise_genome(counted)
    by_contig = {}
    for name, length in counted.lengths.items():
        rows = counted.frequencies(name, 0, length)[counted.variants(name).position].tolist()
        by_contig[name] = sum(row[a] * row[b] for row in rows for a in range(4) for b in range(4) if a != b)
    expected = [1000 * by_contig["chr1"] / 4, 1000 * by_contig["chr2"] / 3, 0]
    assert found["contigs"]["diversity_per_kilobase"].to_list() == pytest.approx(expected)
    assert found["diversity_per_kilobase"] == pytest.approx(1000 * sum(by_contig.values()) / 7)
