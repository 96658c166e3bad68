"""A small genome, VCFs of it, and a tiny model with random weights."""

import random

import pysam
import pysam.bcftools
import pytest

from mutbert import MutBertForMaskedLM, build_genome, score_variants

HEADER = """##fileformat=VCFv4.2
##FILTER=<ID=low,Description="Low quality">
##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">
##INFO=<ID=DB,Number=0,Type=Flag,Description="In a data base">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##contig=<ID=chr1,length=600>
##contig=<ID=chr2,length=300>
"""
USUAL = {"context": 30, "strands": "forward", "flank": 2}
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


@pytest.fixture(scope="session")
def contigs():
    """Sequences, with a stretch of N and an IUPAC code."""
    generator = random.Random(1)
    first = "".join(generator.choices("ACGT", k=600))
    return {
        "chr1": first[:400] + "N" * 10 + first[410:500] + "R" + first[501:],
        "chr2": "".join(generator.choices("ACGT", k=300)),
    }


@pytest.fixture(scope="session")
def genome(tmp_path_factory, contigs):
    """The store of the sequences."""
    folder = tmp_path_factory.mktemp("genome")
    fasta = folder / "ref.fa"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs.items()))
    build_genome(fasta=[fasta], output=folder / "small.genome")
    return folder / "small.genome"


@pytest.fixture(scope="session")
def header():
    """The header that VCFs have, without the line of columns."""
    return HEADER


@pytest.fixture(scope="session")
def write():
    """Write a VCF of lines; its suffix says whether it is compressed by bgzip, or BCF."""

    def write(path, lines, *, header=HEADER):
        text = "\n".join([header.rstrip("\n"), COLUMNS, *lines, ""])
        with pysam.BGZFile(str(path), "wb") if path.suffix != ".vcf" else path.open("wb") as file:
            file.write(text.encode())
        if path.suffix == ".bcf":
            plain = path.rename(path.with_suffix(".vcf.gz"))
            pysam.bcftools.view("-Ob", "-o", str(path), str(plain), catch_stdout=False)
        return path

    return write


@pytest.fixture(scope="session")
def lines(contigs):
    """Records of all kinds in their order: SNVs, several alternates, MNVs, insertions and deletions."""

    def lines(count, seed=0):
        generator, total = random.Random(seed), sum(map(len, contigs.values()))
        names = [name for name, text in contigs.items() for _ in range(count * len(text) // total)]
        places = sorted((name, generator.randint(1, len(contigs[name]) - 4)) for name in names)
        found = []
        for number, (name, position) in enumerate(places):
            reference = contigs[name][position - 1 : position + 3]
            others = [base for base in "ACGT" if base != reference[0]]
            kinds = [
                (reference[0], others[0], "AF=0.25"),
                (reference[0], others[1], "DB"),
                (reference[0], ",".join(others[:2]), "AF=0.1,0.02;DB"),
                (reference[:2], others[2] + reference[1:2].translate(str.maketrans("ACGT", "CGTA")), "."),
                (reference[0], reference[0] + "TTG", "AF=0.5"),
                (reference[:3], reference[0], "AF=."),
                (reference[0], "<DEL>", "AF=0.001"),
            ]
            ref, alt, info = generator.choice(kinds)
            found.append(f"{name}\t{position}\trs{number}\t{ref}\t{alt}\t{number}\tPASS\t{info}")
        return found

    return lines


@pytest.fixture(scope="session")
def loaded(model_folders):
    return MutBertForMaskedLM.from_pretrained(model_folders["mutbert"])


@pytest.fixture(scope="session")
def score(loaded, genome):
    """Score a VCF with the tiny model: forward, short windows and flanks, unless something else is asked for."""

    def score(vcf, output, **settings):
        return score_variants(loaded, genome, vcf, output, **(USUAL | settings))

    return score


@pytest.fixture(scope="session")
def records_of():
    """Read a VCF's records as lines by bcftools, without the fields that scoring adds."""

    def records_of(path, *, without=()):
        lines = []
        for line in pysam.bcftools.view("-H", "--no-version", str(path)).splitlines():
            columns = line.split("\t")
            kept = [word for word in columns[7].split(";") if word.partition("=")[0] not in without]
            lines.append("\t".join([*columns[:7], ";".join(kept) or ".", *columns[8:]]))
        return lines

    return records_of
