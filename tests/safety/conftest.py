"""Every command that writes, on inputs so small that it is done in a moment."""

import shutil
from pathlib import Path

import pytest

from mutbert import MutBertForSequenceClassification, build_genome

INPUTS = Path(__file__).resolve().parents[1] / "golden" / "inputs"
WINDOWS = "--model model --genome small.genome --context 20"
TRAIN = "model=model train=table.csv test=table.csv finetune.max_steps=2"
GRID = "--suite own.yaml --data tasks --model tiny=model --task first --protocol published --no-baselines --seeds 1"
LABELS = "--variants vep_binary.csv --label label --positive bad,worse --exclude unclear --resamples 9"
# By name: a command, {} for its output, and the output's suffix. Each is run in the folder of inputs.
WRITES = {
    "simulate": ("simulate --length 1000 --samples 2 -o {}", ""),
    "build": ("genome build --fasta small.fa --vcf small.vcf -o {}", ".genome"),
    "merge": ("genome merge first.genome second.genome -o {}", ".genome"),
    "fasta": ("genome export small.genome --as reference -o {}", ".fa"),
    "packed fasta": ("genome export small.genome --as consensus -o {}", ".fa.gz"),
    "variants": ("genome export small.genome -o {}", ".parquet"),
    "spectra": ("genome inspect small.genome --plot {}", ".svg"),
    "scores": (f"score {WINDOWS} --vcf asked.vcf -o {{}}", ".vcf.gz"),
    "table of scores": (f"score {WINDOWS} --vcf asked.vcf -o {{}}", ".parquet"),
    "every SNV": (f"score {WINDOWS} --all-snvs --region chr1:1-60 --part-records 25 -o {{}}", ""),
    "background": (f"score {WINDOWS} --vcf background.vcf --calibrate -o {{}}", ".json"),
    "embeddings": ("embed --model model --fasta sequences.fa -o {}", ".parquet"),
    "tensors": ("embed --model model --fasta sequences.fa -o {}", ".safetensors"),
    "bedgraph": (f"tracks {WINDOWS} --region chr1:1-60 -o {{}}", ".bedgraph.gz"),
    "bigwig": (f"tracks {WINDOWS} --region chr1:1-60 -o {{}}", ".bw"),
    "explorer": (f"explore {WINDOWS} --region chr1:1-60 -o {{}}", ".html"),
    "mutagenesis": (f"mutagenesis {WINDOWS} --region chr1:21-50 -o {{}}", ".parquet"),
    "predictions": ("predict table.csv --model classifier -o {}", ".tsv"),
    "convert": ("convert model {}", ""),
    "model": ("export model -o {}", ""),
    "pretrain": ("pretrain recipe.yaml output={} training.max_steps=2 training.save_steps=1", ""),
    "finetune": (f"finetune finetune.yaml {TRAIN} output={{}}", ""),
    "grid": (f"bench run {GRID} -o {{}}", ""),
    "effects": (f"bench vep {LABELS} --model model --genome human.genome --context 20 -o {{}}", ""),
    "workflow": ("workflow copy {}", ""),
}  # fmt: skip


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A folder of what those commands read; tests copy it before they write into it."""
    folder = tmp_path_factory.mktemp("inputs") / "inputs"
    shutil.copytree(INPUTS, folder)
    build_genome(folder / "human.fa", folder / "human.genome", folder / "population.vcf")
    build_genome(folder / "small.fa", folder / "small.genome", folder / "small.vcf", min_frequency=0)
    for name, contigs in (("first", ["chr1"]), ("second", ["2", "22"])):
        build_genome(folder / "human.fa", folder / f"{name}.genome", folder / "population.vcf", contigs=contigs)
    MutBertForSequenceClassification.from_pretrained(folder / "model", num_labels=2).save_pretrained(
        folder / "classifier"
    )
    for split in ("train", "test"):
        (folder / "tasks" / "first").mkdir(parents=True, exist_ok=True)
        text = (folder / "table.csv").read_text().replace("poor", "0").replace("rich", "1")
        (folder / "tasks" / "first" / f"{split}.csv").write_text(text)
    return folder


@pytest.fixture(scope="session")
def writes():
    return WRITES


def pytest_generate_tests(metafunc):
    if "verb" in metafunc.fixturenames:
        metafunc.parametrize("verb", WRITES.values(), ids=WRITES)
    if "write" in metafunc.fixturenames:
        metafunc.parametrize("write", [(name, WRITES) for name in WRITES], ids=list(WRITES))
