"""Alleles counted in genotype columns, against a reader that splits every column."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert.genome.genotypes import columns_of, count_alleles


def count_slowly(columns, keys, alternates, samples, chosen):
    """Split columns, genotypes and alleles; `None` where that shows something that is no genotype of the record."""
    if keys.split(":")[0] != "GT":
        return [0] * alternates, 0
    cells = columns.split("\t")
    if len(cells) != samples:
        return None
    calls = Counter()
    for number in range(samples) if chosen is None else chosen:
        genotype = cells[number].split(":")[0]
        if not re.fullmatch(r"[|/]?(\.|\d+)([|/](\.|\d+))*", genotype):
            return None
        calls.update(re.split(r"[|/]", genotype.lstrip("|/")))
    del calls["."]
    if any(int(allele) > alternates for allele in calls):
        return None
    return [calls[str(allele)] for allele in range(1, alternates + 1)], calls.total()


def count(columns, keys, alternates, samples, chosen):
    try:
        return count_alleles(columns.encode(), keys.encode(), alternates, samples, columns_of(chosen))
    except ValueError:
        return None


@st.composite
def lines(draw):
    """Columns, FORMAT, alternates, samples and chosen columns; with a wrong allele or column now and then."""
    alternates = draw(st.sampled_from([1, 1, 2, 3, 8, 9, 10, 11, 25, 120]))
    samples = draw(st.integers(1, 7))
    keys = draw(st.sampled_from(["GT", "GT", "GT:DP", "GT:DP:GQ", "DP", "DP:GQ", "GTX"]))
    most = draw(st.sampled_from([alternates] * 6 + [alternates + 1, 10 * alternates + 1]))
    allele = st.integers(0, most).map(str) | st.just("0") | st.just(".")
    ploidies = draw(st.sampled_from([(2,), (1,), (1, 2), (1, 2, 3, 4)]))
    cells = []
    for _ in range(samples):
        own = draw(st.lists(allele, min_size=(size := draw(st.sampled_from(ploidies))), max_size=size))
        separator = draw(st.sampled_from("|/"))
        rest = draw(st.sampled_from(["", ":7", ":.", ":10", ":3:99", ":1:2"])) if ":" in keys else ""
        cells.append(separator.join(own) + rest)
    if draw(st.integers(0, 9)) == 0:
        cells = draw(st.sampled_from([cells[1:] or ["0", "0"], [*cells, "0|0"]]))
    chosen = draw(st.none() | st.sets(st.integers(0, samples - 1), min_size=1).map(sorted))
    return "\t".join(cells), keys, alternates, samples, chosen


@given(lines())
def test_counts_equal_those_of_split_columns(line):
    assert count(*line) == count_slowly(*line)


@pytest.mark.parametrize(
    ("columns", "alternates", "counts"),
    [
        ("0|1\t1/1", 1, ([3], 4)),
        ("./1\t.|.\t.", 1, ([1], 1)),
        ("1\t0|1|1\t0/0", 1, ([3], 6)),
        # The form of VCF 4.4, in which the first allele has a separator too.
        ("|0|1\t/1/1", 1, ([3], 4)),
        ("10|2\t0/11\t.", 11, ([0, 1, *[0] * 7, 1, 1], 4)),
        ("0:7:9\t1|1:3\t.:.:.", 1, ([2], 3)),
    ],
)
def test_every_form_of_a_genotype_counts(columns, alternates, counts):
    keys = b"GT:DP:GQ" if ":" in columns else b"GT"
    assert count_alleles(columns.encode(), keys, alternates, columns.count("\t") + 1) == counts


@pytest.mark.parametrize("columns", ["0|2", "10", "11|0", "1|01", "0|x", "a", "-1", "0|1;1", "0|1 ", "0,1", "0|+1"])
@pytest.mark.parametrize("chosen", [None, [0]])
def test_what_is_no_genotype_of_the_record_is_refused(columns, chosen):
    with pytest.raises(ValueError):
        count_alleles(columns.encode(), b"GT", 1, 1, columns_of(chosen))


@pytest.mark.parametrize("columns", ["0|12", "0|x", "11|.2x", "1e1"])
def test_the_same_of_sites_with_many_alternates(columns):
    with pytest.raises(ValueError):
        count_alleles(columns.encode(), b"GT", 11, 1)


@pytest.mark.parametrize("columns", ["0|0", "0|0\t0|0\t0|0", "", "0|0\t0|0\t"])
@pytest.mark.parametrize("keys", [b"GT", b"GT:DP"])
def test_a_wrong_number_of_columns_is_refused(columns, keys):
    with pytest.raises(ValueError):
        count_alleles(columns.encode(), keys, 1, 2)


def test_a_panel_of_thousands_counts_as_few_do():
    genotypes = np.random.default_rng(0).integers(0, 3, (2504, 2))
    columns = "\t".join(f"{a}|{b}" for a, b in genotypes.tolist())
    chosen = np.arange(1, 2504, 7)
    for own, counted in ((None, genotypes), (chosen, genotypes[chosen])):
        expected = [int((counted == allele).sum()) for allele in (1, 2)]
        assert count_alleles(columns.encode(), b"GT", 2, 2504, own) == (expected, counted.size)
        assert count_alleles(columns.replace("\t", ":1\t").encode(), b"GT:DP", 2, 2504, own) == (expected, counted.size)
