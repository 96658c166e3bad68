"""How extreme a score is among a background's, against NumPy, SciPy and plain counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert.effects.records import Calibration, percentage_below, quantiles
from mutbert.errors import InputError


@given(st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=60), st.lists(st.floats(-30, 30), max_size=20))
def test_of_few_values_the_percentage_is_a_rank(background, asked):
    # As many quantiles as values, which are the values themselves: the middle of the ranks from 0 to n - 1.
    ordered = np.sort(background)
    np.testing.assert_array_equal(quantiles(np.array(background)), ordered)
    asked = np.array([*asked, *background])
    for value, percentage in zip(asked, percentage_below(ordered, asked), strict=True):
        below, same = int(np.sum(ordered < value)), int(np.sum(ordered == value))
        rank = below + (same - 1) / 2
        if not same:
            low, high = ordered[max(below - 1, 0)], ordered[min(below, len(ordered) - 1)]
            rank = min(max(below - 1 + (0 if low == high else (value - low) / (high - low)), 0), len(ordered) - 1)
        assert percentage == pytest.approx(100 * rank / (len(ordered) - 1), abs=1e-9)


def test_of_many_values_it_is_the_inverse_of_numpys_quantile():
    background = np.random.default_rng(0).standard_normal(5000)
    found = quantiles(background)
    np.testing.assert_allclose(found, np.quantile(background, np.arange(1001) / 1000, method="linear"), rtol=1e-6)
    at = np.linspace(0, 1, 777)
    np.testing.assert_allclose(percentage_below(found, np.quantile(background, at)), 100 * at, atol=0.1)
    np.testing.assert_allclose(percentage_below(found, found), np.arange(1001) / 10, atol=1e-9)


@pytest.fixture(scope="module")
def background(write, score, contigs, tmp_path_factory):
    """A background of every SNV of a stretch, and its file; too few indels."""
    folder = tmp_path_factory.mktemp("background")
    lines = [
        f"chr1\t{position}\t.\t{base}\t{','.join(other for other in 'ACGT' if other != base)}\t.\t.\t."
        for position, base in enumerate(contigs["chr1"][100:150], start=101)
    ]
    lines.append(f"chr1\t300\t.\t{contigs['chr1'][299:302]}\t{contigs['chr1'][299]}\t.\t.\t.")
    vcf, few = (write(folder / f"{name}.vcf", some) for name, some in (("common", lines), ("few", lines[:20])))
    report = score(vcf, folder / "common.calibration.json", calibrate=True, scores=("llr", "distance"))
    assert report.scored == {"indel": 1, "snv": 150}
    with pytest.raises(InputError, match=r"few\.vcf: has 60 scored alleles of a kind; a background needs 100"):
        score(few, folder / "few.json", calibrate=True)
    assert {path.name for path in folder.iterdir()} == {"common.calibration.json", "common.vcf", "few.vcf"}
    return vcf, report.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 20, "scores": ("llr", "distance")}, "is of other scores: context was 30 and is 20"),
        ({"scores": ("unmasked",)}, "has no ULLR"),
    ],
)
def test_a_background_of_other_scores_is_refused(background, score, tmp_path, settings, message):
    vcf, path = background
    with pytest.raises(InputError, match=message):
        score(vcf, tmp_path / "out.tsv", calibration=path, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "else"}', '{"format": "mutbert calibration", "version": 1}']
)
def test_what_is_no_background_is_refused(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"c\.json: is no background that can be read \(.*\); make it by --calibrate$"):
        Calibration(path)
