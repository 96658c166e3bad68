"""Small FASTA and VCF files, written as text."""

import gzip
import shutil

import pysam
import pytest

HEADER = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">
##INFO=<ID=EUR_AF,Number=A,Type=Float,Description="Allele frequency in Europe">
##FILTER=<ID=low,Description="Low quality">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"""


def compress_file(path, kind):
    if kind == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    elif kind in ("bgzip", "index"):
        packed = path.with_name(path.name + ".bgz")
        pysam.tabix_compress(str(path), str(packed), force=True)
        shutil.move(packed, path)
    if kind == "index":
        pysam.tabix_index(str(path), preset="vcf", force=True)
    return path


@pytest.fixture(scope="session")
def compress():
    """Replace a plain file by a compressed one; its name says nothing of it."""
    return compress_file


@pytest.fixture(scope="session")
def write_fasta():
    """Write contigs given as name -> sequence."""

    def write(path, contigs, *, width=7, kind="plain", end="\n"):
        lines = []
        for name, sequence in contigs.items():
            lines.append(f">{name} some description")
            lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
        path.write_bytes((end.join(lines) + end).encode())
        return compress_file(path, kind)

    return write


@pytest.fixture(scope="session")
def write_vcf():
    """Write records given as (chrom, pos, ref, alt, AF or INFO), and FILTER if not PASS, or each sample's genotype."""

    def write(path, records, samples=(), *, kind="plain", end="\n"):
        lines = ["\t".join([HEADER.replace("\n", end), *(["FORMAT", *samples] if samples else [])])]
        for chrom, pos, ref, alt, info, *rest in records:
            info = info if "=" in str(info) else f"AF={info}"
            last = ["PASS", info, "GT", *rest] if samples else [rest[0] if rest else "PASS", info]
            lines.append("\t".join(map(str, [chrom, pos, ".", ref, alt, ".", *last])))
        path.write_text("".join(line + end for line in lines), newline="")
        return compress_file(path, kind)

    return write


@pytest.fixture(scope="session")
def as_version_1():
    """Take from a store what version 1 did not have."""

    def change(path):
        manifest = path / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 1', 1))
        (path / "soft_mask.npy").unlink()
        return path

    return change
