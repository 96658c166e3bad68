"""Regions as people and BED files write them; contig names in either naming."""

import gzip
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.regions import Region, match_contig, merge_regions, read_bed, subtract_regions

LENGTHS = {"chr22": 1000, "chrM": 50, "HLA-A*01:01": 30, "7": 10}


@pytest.mark.parametrize(
    ("text", "lengths", "found"),
    [
        ("chr22", LENGTHS, Region("chr22", 0, 1000)),
        ("MT:5", LENGTHS, Region("chrM", 4, 5)),
        ("HLA-A*01:01", LENGTHS, Region("HLA-A*01:01", 0, 30)),
        ("HLA-A*01:01:2-3", LENGTHS, Region("HLA-A*01:01", 1, 3)),
        ("chr7:1-10", LENGTHS, Region("7", 0, 10)),
        ("chr9:1-5", LENGTHS, "no such contig; there are chr22, chrM"),
        ("", LENGTHS, "no such contig"),
        ("chr22:0-5", LENGTHS, "positions are 1-based"),
        ("chr22:5-4", LENGTHS, "not within chr22:1-1000"),
        ("chr22:1-1001", LENGTHS, "not within chr22:1-1000"),
        ("chr22:101-200", None, Region("chr22", 100, 200)),
        ("22:1,001", None, Region("22", 1000, 1001)),
        ("HLA-A*01:01:2-3", None, Region("HLA-A*01:01", 1, 3)),
        *((text, None, text) for text in ("chr22", ":1-2", "chr22:0-5", "chr22:5-4", "chr22:a-b")),
    ],
)
def test_text_is_parsed_or_refused(text, lengths, found):
    if isinstance(found, Region):
        assert Region.parse(text, lengths) == found
    else:
        with pytest.raises(InputError, match=found):
            Region.parse(text, lengths)


def test_names_match_under_either_naming():
    for name, available, found in (
        ("chr22", ["22"], "22"), ("22", ["chr22"], "chr22"), ("22", ["chr22", "22"], "22"),
        ("CHR22", ["chr22"], "chr22"), ("chrM", ["MT"], "MT"), ("MT", ["chrM"], "chrM"), ("x", ["chrX"], "chrX"),
        ("chr2", ["chr22"], None), ("chr", ["chr1"], None), ("scaffold_1", ["Scaffold_1"], None),
    ):  # fmt: skip
        assert match_contig(name, available) == found


BED = "# comment\ntrack name=x\nbrowser position\nchr22\t0\t10\tfirst\n\n22 5 6\nMT\t0\t50\t\t+\r\n"


@pytest.mark.parametrize("packed", [False, True])
def test_bed_is_read(tmp_path, packed):
    path = tmp_path / ("x.bed.gz" if packed else "x.bed")
    path.write_bytes(gzip.compress(BED.encode()) if packed else BED.encode())
    assert read_bed(path, LENGTHS) == [Region("chr22", 0, 10, "first"), Region("chr22", 5, 6), Region("chrM", 0, 50)]


@pytest.mark.parametrize(
    ("columns", "name", "strand"),
    [
        ("a\t0\t-", "a", "-"),
        ("a\t0\t+", "a", "+"),
        ("a\t0\t.", "a", "."),
        (".\t.\t-\t3\t4", "", "-"),
        ("a\t0", "a", "."),
    ],
)
def test_bed_has_names_and_strands(tmp_path, columns, name, strand):
    path = tmp_path / "x.bed"
    path.write_text(f"chr22\t3\t9\t{columns}\n")
    assert read_bed(path, LENGTHS) == [Region("chr22", 3, 9, name, strand)]
    assert merge_regions(read_bed(path, LENGTHS), LENGTHS) == [Region("chr22", 3, 9)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# comment\nchr22\t0\t10\nchr22\t1\n", "x.bed, line 3: expected contig, start, end"),
        (b"chr22\tone\t2\n", "line 1: expected contig, start, end"),
        (b"chr9\t1\t2\n", "no contig 'chr9'"),
        (b"chr22\t5\t5\n", "not within the contig's 0 to 1000"),
        (b"chr22\t-1\t5\n", "not within the contig's 0 to 1000"),
        (b"chr22\t1\t1001\n", "not within the contig's 0 to 1000"),
        (b"chr22\t1\t5\tx\t0\tpELS\n", r"line 1: the strand, column 6, is 'pELS'; write \+, - or \."),
        (b"# nothing\n", "holds no regions"),
        (gzip.compress(BED.encode(), mtime=0)[:-12], "cannot be read as BED"),
        (b"\xff\xfe\x00", "cannot be read as BED"),
    ],
)
def test_what_is_no_bed_is_refused(tmp_path, content, message):
    path = tmp_path / ("x.bed.gz" if content.startswith(b"\x1f") else "x.bed")
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_bed(path, LENGTHS)


PLACES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 12)), max_size=5)


@given(PLACES, PLACES)
def test_merging_and_subtracting_are_those_of_sets_of_positions(first, second):
    def positions(regions):
        return [(one.contig, position) for one in regions for position in range(one.start, one.end)]

    sides = [[Region(contig, start, start + length) for contig, start, length in side] for side in (first, second)]
    kept, holes = (merge_regions(side, "ab") for side in sides)
    assert positions(kept) == sorted(set(positions(sides[0])))
    assert all(a.contig < b.contig or a.end < b.start for a, b in itertools.pairwise(kept))
    assert positions(subtract_regions(kept, holes)) == sorted({*positions(kept)} - {*positions(holes)})
