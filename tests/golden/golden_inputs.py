"""What the golden cases read: the files of ``inputs``, and more that is made of them here."""

import csv
import gzip
import json
import random
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pysam
import pysam.bcftools
from safetensors.numpy import load_file, save_file

import mutbert

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = ("dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps")

# Of a sequence and its share of G and C.
LABELS: dict[str, Callable[[str, float], Sequence[Any]]] = {
    "binary": lambda _, share: ["rich" if share > 0.5 else "poor"],
    "number": lambda _, share: [int(share > 0.5)],
    "multiclass": lambda _, share: [min(2, int(3 * share))],
    "multilabel": lambda text, share: [int(share > 0.5), int("ACG" in text)],
    "regression": lambda _, share: [f"{share:.4f}"],
    "token": lambda text, _: [re.sub("[AT]", "0", re.sub("[CG]", "1", text))],
}


def make_inputs(folder: Path) -> None:
    """Fill an empty folder."""
    shutil.copytree(HERE / "inputs", folder, dirs_exist_ok=True)
    mutbert.build_genome(folder / "human.fa", folder / "human.genome", folder / "population.vcf")
    mutbert.build_genome(folder / "small.fa", folder / "small.genome", folder / "small.vcf", min_frequency=0)
    wrap_population(folder)
    for task, kind, seed in (("first", "number", 4), ("second", "multiclass", 6)):
        (folder / "tasks" / task).mkdir(parents=True)
        write_table(folder, kind, seed, 60).rename(folder / "tasks" / task / "train.csv")
        write_table(folder, kind, seed + 1, 40).rename(folder / "tasks" / task / "test.csv")
    for kind in ("binary", "multiclass", "multilabel", "regression", "token"):
        for seed, count in ((1, 44), (2, 30), (3, 20)):
            write_table(folder, kind, seed, count)
    write_classifier(folder / "classifier", "Sequence", ["poor", "rich"])
    write_classifier(folder / "first_token_classifier", "Sequence", ["a", "b", "c"], pooler=True)
    write_classifier(folder / "token_classifier", "Token", ["0", "1", "2"])
    with mock.patch.object(sys, "path", [str(ROOT / "benchmarks"), *sys.path]):
        import peer_files
    for name in PEERS:
        peer_files.write(name, folder / "peers" / name)


def wrap_population(folder: Path) -> None:
    """Write the population's VCF in every wrapping, without some fields, and in parts; and its FASTA by bgzip."""
    pysam.tabix_compress(str(folder / "human.fa"), str(folder / "packed"))
    plain = folder / "population.vcf"
    (folder / "gzip.vcf.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    for name in ("bgzip.vcf.gz", "tbi.vcf.gz", "csi.vcf.gz"):
        pysam.tabix_compress(str(plain), str(folder / name))
    for name in ("plain.bcf", "csi.bcf"):
        pysam.bcftools.view("--no-version", "-Ob", "-o", str(folder / name), str(plain), catch_stdout=False)
    for words in (["--tbi", "tbi.vcf.gz"], ["csi.vcf.gz"], ["csi.bcf"]):
        pysam.bcftools.index(*words[:-1], str(folder / words[-1]), catch_stdout=False)
    for name, fields in (("no_af", "INFO/AF"), ("no_counts", "INFO/AF,INFO/AC,INFO/AN")):
        (folder / f"{name}.vcf").write_text(pysam.bcftools.annotate("--no-version", "-x", fields, str(plain)))
    for chrom in ("2", "chr1", "22", "MT"):
        lines = plain.read_text(encoding="utf-8").splitlines(keepends=True)
        head = (line for line in lines if line.startswith("#") and not line.startswith("##contig"))
        part = "".join([*head, *(line for line in lines if line.startswith(f"{chrom}\t"))])
        (folder / f"part_{chrom}.vcf").write_text(part, encoding="utf-8")


def write_table(folder: Path, kind: str, seed: int, count: int) -> Path:
    """Write sequences rich in A and T or in G and C, some twice or on the other strand, with labels of a kind."""
    rng = random.Random(seed)
    texts: list[str] = []
    for number in range(count):
        weights = [1, 3, 3, 1] if rng.random() < 0.5 else [3, 1, 1, 3]
        texts.append("".join(rng.choices("ACGT", weights=weights, k=rng.randint(20, 50))))
        if number % 9 == 8:
            texts[-1] = texts[number - 5]
        elif number % 11 == 10:
            texts[-1] = texts[number - 7].translate(str.maketrans("ACGT", "TGCA"))[::-1]
    shares = [len(re.findall("[CG]", text)) / len(text) for text in texts]
    rows = [[f"s{n}", text, *LABELS[kind](text, shares[n])] for n, text in enumerate(texts)]
    labels = ["rich", "acg"] if kind == "multilabel" else ["label"]
    path = folder / f"{kind}_{seed}_{count}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["name", "sequence", *labels], *rows])
    return path


def write_classifier(folder: Path, kind: str, labels: Sequence[str], *, pooler: bool = False) -> None:
    """Write a classifier with the stored model's body, whose head is drawn here and not by torch's generator."""
    folder.mkdir()
    stored = load_file(HERE / "inputs" / "model" / "model.safetensors")
    weights = {key: weight for key, weight in stored.items() if not key.startswith("cls.")}
    heads = {"bert.pooler.dense.weight": (16, 16), "bert.pooler.dense.bias": (16,)} if pooler else {}
    heads |= {"classifier.weight": (len(labels), 16), "classifier.bias": (len(labels),)}
    rng = random.Random(28)
    for key, shape in heads.items():
        values = [rng.random() - 0.5 for _ in range(int(np.prod(shape)))]
        weights[key] = np.array(values, dtype=np.float32).reshape(shape)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((HERE / "inputs" / "model" / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": [f"MutBertFor{kind}Classification"], "problem_type": "single_label_classification",
               "id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)},
               **({"pooler_type": "first_token_transform"} if pooler else {})}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
