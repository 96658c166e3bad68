"""28,998 records of 1000 Genomes: all come back, with scores or reasons, and bcftools finds nothing to warn of."""

import subprocess
import sys

import pysam
import pytest

from mutbert import build_genome, score_variants

# In a process of its own, so that what htslib prints is seen. bcftools is part of pysam.
BCFTOOLS = "import sys; from pysam import bcftools; sys.stdout.write(getattr(bcftools, sys.argv[1])(*sys.argv[2:]))"
FIELDS = ("LLR", "ENT", "PLLR", "WHY")


def bcftools(*words):
    done = subprocess.run(
        [sys.executable, "-c", BCFTOOLS, *map(str, words)], check=True, capture_output=True, text=True
    )
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def real(shared, model_folders, tmp_path_factory):
    """The sites of 1 Mb of chromosome 20, and what scoring made of them."""
    folder = tmp_path_factory.mktemp("real")
    data = shared / "data" / "human_grch37"
    build_genome(data / "chr20_1000001-2000000.fa.gz", folder / "z.genome")
    vcf = data / "chr20_1000001-2000000.1000g_phase3.sites.vcf.gz"
    report = score_variants(
        model_folders["mutbert"],
        folder / "z.genome",
        vcf,
        folder / "out.vcf.gz",
        strands="forward",
        windows="shared",
        context=30,
        flank=2,
        batch_size=512,
    )
    return vcf, folder / "out.vcf.gz", report


@pytest.mark.slow
@pytest.mark.shared
def test_every_allele_has_a_score_or_a_reason(real):
    _, output, report = real
    assert report.records == 28_998
    assert sum(report.scored.values()) + sum(report.missing.values()) == report.alleles
    assert report.scored["snv"] > 27_000
    assert report.missing.keys() <= {"symbolic", "too_long"}
    with pysam.VariantFile(str(output)) as file:
        for record in file:
            info = record.info
            found = [info.get(f"MUTBERT_{name}", (None,) * len(record.alts)) for name in ("LLR", "PLLR")]
            why = info.get("MUTBERT_WHY", (".",) * len(record.alts))
            for llr, pllr, word in zip(*found, why, strict=True):
                assert (llr is None) + (pllr is None) + (word in {None, "."}) == 2


@pytest.mark.slow
@pytest.mark.shared
def test_without_the_new_fields_the_records_are_the_input_and_bcftools_has_nothing_to_say(real):
    vcf, output, _ = real
    fields = ",".join(f"INFO/MUTBERT_{name}" for name in FIELDS)
    found, warnings = bcftools("annotate", "-x", fields, output)
    expected, _ = bcftools("view", "-H", vcf)
    assert "".join(line for line in found.splitlines(keepends=True) if line[0] != "#") == expected
    assert expected.count("\n") == 28_998
    by_index, more = bcftools("view", "-H", "-r", "z:500000-510000", output)
    assert len(by_index.splitlines()) > 100
    assert warnings == more == bcftools("stats", output)[1] == ""
