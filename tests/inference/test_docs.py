"""The samples of the pages about models run, from first to last."""

import shutil

import pytest

from mutbert.model import MutBertForSequenceClassification, MutBertModel


# peft and torch's exporter use what transformers and torch have deprecated.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.nightly
@pytest.mark.parametrize("page", ["model", "embeddings", "mutagenesis", "tracks", "python", "explorer"])
def test_samples_run(
    page, read_page, run_samples, build, model_folders, peer_folders, write_genome, tmp_path, monkeypatch
):
    contig = "chr1" if page in ("model", "embeddings") else "chr22"
    if contig == "chr1":
        build(MutBertModel, max_position_embeddings=512).save_pretrained(tmp_path / "model")
    else:
        (tmp_path / "model").symlink_to(model_folders["mutbert"])
    build(MutBertForSequenceClassification).save_pretrained(tmp_path / "runs" / "mine" / "model")
    # A folder with a model's name takes precedence over the Hub's repository.
    for name in ("dnabert2", "ntv2-50m"):
        shutil.copytree(peer_folders[name], tmp_path / name)
    (tmp_path / "sequences.fa").write_text(">one\nACGTN\n>two\nacgtr\n")
    (tmp_path / "designed.fa").write_text(">mine\nGATTACAGATTACA\n")
    (tmp_path / "long.fa").write_text(">long\n" + "ACGT" * 200 + "\n")
    (tmp_path / "regions.bed").write_text(f"{contig}\t0\t20\tgene\n{contig}\t30\t40\n")
    (tmp_path / "genes.gff3").write_text("chr22\tx\tgene\t101\t300\t.\t+\t.\tID=one\n")
    head = "##fileformat=VCFv4.2\n##contig=<ID=chr22>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "variants.vcf").write_text(f"{head}chr22\t111\t.\tA\tC\t.\t.\t.\n")
    write_genome(tmp_path / "population.genome", {contig: "ACGTTGCAAT" * 40})
    monkeypatch.chdir(tmp_path)
    run_samples(read_page(f"docs/{page}.md"))
