"""Every how-to page works as written, on a simulated population with the names of the page."""

import gzip
import itertools
import random
import re
import shutil
from pathlib import Path

import pysam
import pytest

from mutbert import build_genome, simulate_population

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "howto").glob("*.md"))
# What a test has not: a GPU, a chromosome 25, long sequences; and as few steps as show that a command runs.
OTHER = {"cuda:0": "cpu", "200": "40", 'held_out=["25"]': "held_out=[chr22]", "128": "8"}
FEW = {
    "pretrain": ["training.max_steps=2", "evaluation.windows=4", "training.per_device_train_batch_size=8"],
    "finetune": ["finetune.max_steps=2"],
    "run": ["--seeds", "1", "--set", "finetune.max_steps=2"],
    "cell": ["--set", "finetune.max_steps=2"],
    "vep": ["--resamples", "20"],
}  # fmt: skip
DECLARED = [
    '##INFO=<ID=AC_nfe,Number=A,Type=Integer,Description="">',
    '##INFO=<ID=AN_nfe,Number=1,Type=Integer,Description="">',
    '##INFO=<ID=CLNSIG,Number=.,Type=String,Description="">',
]


def annotated(lines, number, info):
    """A header, and some of the lines of a VCF with another INFO, which depends on their number and alternates."""
    rows = [line.split("\t")[:7] for line in lines if not line.startswith("#")][:number]
    names = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    head = [*(line for line in lines if line.startswith("##")), *DECLARED, names]
    return head, ["\t".join([*row, info(at, row[4])]) for at, row in enumerate(rows)]


def gnomad(at, alternates):
    return f"AC_nfe={re.sub('[A-Z]', '3', alternates)};AN_nfe=40"


def clinvar(at, alternates):
    return f"CLNSIG={('Pathogenic', 'Benign')[at % 2]}"


def write_vcf(path, *lines):
    """Write lines, compressed and indexed."""
    plain = path.with_suffix("")
    plain.write_text("\n".join([*itertools.chain(*lines), ""]))
    pysam.tabix_index(str(plain), preset="vcf", force=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model_folders, peer_folders):
    """A folder of the files that the pages name."""
    root = tmp_path_factory.mktemp("howto")
    fasta, records = "", []
    for contig in ("chr21", "chr22"):
        made = simulate_population(root / contig, length=20_000, samples=20, contig=contig, mutation_rate=1e-7)
        fasta += Path(made["fasta"]).read_text()
        shutil.copy(made["vcf"], root / f"{contig}.vcf.gz")
        with gzip.open(made["vcf"], "rt") as file:
            records.append(file.read().splitlines())
    for name in ("hg38.fa.gz", "cattle.fa.gz"):
        (root / name).write_bytes(gzip.compress(fasta.encode()))
    chr22 = records[1]
    for name in ("1000g.chr22", "cattle"):
        shutil.copy(root / "chr22.vcf.gz", root / f"{name}.vcf.gz")
    write_vcf(root / "calls.vcf.gz", [line.replace("person01", "NA12878") for line in chr22])
    write_vcf(root / "gnomad.chr22.vcf.gz", *annotated(chr22, None, gnomad))
    for name in ("clinvar", "common"):
        write_vcf(root / f"{name}.vcf.gz", *annotated(chr22, 150, clinvar))
    # Of both contigs, as a cluster's jobs share them.
    write_vcf(root / "variants.vcf.gz", *annotated(records[0], 9, clinvar), annotated(chr22, 9, clinvar)[1])
    (root / "panel.txt").write_text("".join(f"person{at:02}\tFIN\tEUR\n" for at in range(1, 9)))
    (root / "regions.bed").write_text("chr22\t100\t150\nchr22\t300\t350\n")
    build_genome(root / "hg38.fa.gz", root / "human.genome", [root / "chr21.vcf.gz", root / "chr22.vcf.gz"])
    rng = random.Random(0)
    (root / "enhancers").mkdir()
    for name in ("enhancers.csv", "test.csv", "enhancers/train.csv", "enhancers/test.csv"):
        rows = ["".join(rng.choices("ACGT", k=40)) + f",{('inactive', 'active')[at % 2]}" for at in range(40)]
        (root / name).write_text("\n".join(["sequence,label", *rows, ""]))
    (root / "new.fa").write_text(">one\n" + "ACGTT" * 8 + "\n")
    for name in ("designed.fa", "sequences.fa"):
        shutil.copy(root / "new.fa", root / name)
    snvs = [line.split("\t")[:5] for line in chr22 if not line.startswith("#")]
    rows = [f"{c},{p},{ref},{alt},{at % 2}" for at, (c, p, _, ref, alt) in enumerate(snvs[:40])]
    (root / "labelled.csv").write_text("\n".join(["chrom,pos,ref,alt,class", *rows, ""]))
    # A folder with a model's name takes precedence over the Hub's repository.
    for name in ("mutbert", "runs/small/model"):
        shutil.copytree(model_folders["mutbert"], root / name)
    for name in ("dnabert2", "ntv2-50m"):
        shutil.copytree(peer_folders[name], root / name)
    return root


def change(words):
    few = next((FEW[word] for word in words[:2] if word in FEW), [])
    return [OTHER.get(word, word) for word in words] + few


@pytest.mark.nightly
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page, folder, read_page, run_samples, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    text = read_page(page)
    suite = re.search(r"^```yaml\n(.*?)^```$", read_page("docs/howto/compare.md"), re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.yaml").write_text(suite[1])
    if "-o human.genome" in text:
        shutil.rmtree(tmp_path / "human.genome")
    monkeypatch.chdir(tmp_path)
    _, commands = run_samples(text, change=change)
    made = [words[words.index("-o") + 1] for words in commands if "-o" in words]
    assert len(text.splitlines()) <= 40
    assert made
    assert all((tmp_path / name).exists() for name in made)
