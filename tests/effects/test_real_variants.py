"""28,998 records of 1000 Genomes: all come back, with scores or reasons, and bcftools finds nothing to warn of."""

import pysam
import pysam.bcftools
import pytest

from mutbert import build_genome, score_variants

FIELDS = ("LLR", "ENT", "PLLR", "WHY")


@pytest.mark.shared
def test_sites_of_1_mb_of_chromosome_20(shared, model_folders, tmp_path, capfd, records_of):
    data, genome, output = shared / "data" / "human_grch37", tmp_path / "z.genome", tmp_path / "out.vcf.gz"
    build_genome(data / "chr20_1000001-2000000.fa.gz", genome)
    vcf = data / "chr20_1000001-2000000.1000g_phase3.sites.vcf.gz"
    settings = {"strands": "forward", "windows": "shared", "context": 30, "flank": 2, "batch_size": 512}
    report = score_variants(model_folders["mutbert"], genome, vcf, output, **settings)
    assert report.records == 28_998
    assert sum(report.scored.values()) + sum(report.missing.values()) == report.alleles
    assert report.scored["snv"] > 27_000
    assert report.missing.keys() <= {"symbolic", "too_long"}
    with pysam.VariantFile(str(output)) as file:
        for record in file:
            none = (None,) * len(record.alts)
            found = [record.info.get(f"MUTBERT_{name}", none) for name in ("LLR", "PLLR", "WHY")]
            assert all([llr, pllr, why].count(None) + (why == ".") == 2 for llr, pllr, why in zip(*found, strict=True))
    assert records_of(output, without=[f"MUTBERT_{name}" for name in FIELDS]) == records_of(vcf)
    assert len(pysam.bcftools.view("-H", "-r", "z:500000-510000", str(output)).splitlines()) > 100
    pysam.bcftools.stats(str(output))
    assert capfd.readouterr().err == ""
