"""Inputs of the golden cases: FASTA, VCF and tables drawn by seeds, and classifiers of a small model."""

import gzip
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pysam
import pysam.bcftools
from safetensors.numpy import load_file, save_file

import mutbert

MODEL = Path(__file__).resolve().parent / "model"

MEMBERS = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG",
}  # fmt: skip


class Record(NamedTuple):
    """A line of a VCF, with the frequencies and calls that it says."""

    chrom: str
    pos: int
    ref: str
    alts: tuple[str, ...]
    state: str
    info: Mapping[str, str]
    keys: str
    calls: tuple[str, ...]

    def line(self, number: int, *, without: Sequence[str] = ()) -> str:
        """Write it, some INFO fields left out."""
        info = ";".join(
            name if value == "" else f"{name}={value}" for name, value in self.info.items() if name not in without
        )
        columns = [self.chrom, self.pos, f"rs{number}", self.ref, ",".join(self.alts), ".", self.state, info or "."]
        return "\t".join(map(str, [*columns, self.keys, *self.calls]))


SAMPLES = [f"S{number}" for number in range(1, 11)]
PANEL = "sample\tpop\tsuper_pop\n" + "".join(
    f"{name}\t{'FIN' if number < 3 else 'YRI'}\t{'EUR' if number < 3 else 'AFR'}\n"
    for number, name in enumerate(SAMPLES)
)
FIELDS = {
    "AF": "Number=A,Type=Float", "EUR_AF": "Number=A,Type=Float", "AFR_AF": "Number=A,Type=Float",
    "AC": "Number=A,Type=Integer", "AN": "Number=1,Type=Integer", "DB": "Number=0,Type=Flag",
}  # fmt: skip

# What `RecordWriter.make` can make.
KINDS = (
    "snv", "two", "three", "mnv", "mixed", "insertion", "deletion", "complex", "symbolic", "breakend", "star",
    "snv and star", "no field", "missing", "low", "low and q10", "no filter", "no alternate", "same", "same of two",
    "alternate N", "alternate R", "reference N", "lower", "lower mnv", "twice", "conflict", "again", "mnv and snv",
    "mnv twice", "many", "high sum", "minimum", "certain", "no calls", "no GT",
)  # fmt: skip


def random_bases(rng: random.Random, length: int) -> str:
    """Draw bases, A and T more often."""
    return "".join(rng.choices("ACGT", weights=[3, 2, 2, 3], k=length))


def _with_pieces(sequence: str, pieces: Mapping[int, str]) -> str:
    letters = list(sequence)
    for start, text in pieces.items():
        letters[start : start + len(text)] = text
    return "".join(letters)


def human_sequences() -> dict[str, str]:
    """Contigs with N, IUPAC codes, U and lower case."""
    rng = random.Random(11)
    first = random_bases(rng, 2400)
    codes = {500 + 41 * number: code for number, code in enumerate("RYSWKMBDHV")}
    first = _with_pieces(first, {0: "N" * 15, 700: "N" * 30, 1500: "n" * 10, 1200: "U", 2390: "N" * 10, **codes})
    lower = [(10, 60), (200, 320), (505, 560), (1490, 1520), (2000, 2001)]
    for start, end in lower:
        first = first[:start] + first[start:end].lower() + first[end:]
    second = random_bases(rng, 701)
    return {
        "chr1": first,
        "chr2": _with_pieces(second, {100: "NNNN", 400: "RRR", 500: second[500:560].lower()}),
        "chr22": random_bases(rng, 402),
        "chrM": random_bases(rng, 99).lower(),
        "chrEmpty": random_bases(rng, 61),
    }


def _info(rng: random.Random, alts: int, budget: float) -> dict[str, str]:
    """Draw frequencies for each field of its own; the alternates of one sum to at most the budget."""

    def value() -> float:
        share = budget / alts
        return rng.choice([share * rng.random(), share * rng.random(), 0.02, 0.03 * rng.random(), 0.0, 0.0004])

    info = {}
    for name in ("AF", "EUR_AF", "AFR_AF"):
        values = [value() for _ in range(alts)]
        info[name] = ",".join(f"{number if number <= budget / alts else 0.01:.5g}" for number in values)
    total = 2 * rng.randint(40, 2504)
    counts = [int(min(value(), budget / alts) * total) for _ in range(alts)]
    return info | {"AC": ",".join(map(str, counts)), "AN": str(total)}


def _calls(rng: random.Random, alts: int, ploidy: int, share: float, free: Sequence[bool]) -> list[str]:
    """Draw calls; those who are not free have the reference. Missing ones and other ploidies come where all are."""
    calls = []
    for one in free:
        alleles = [rng.randint(1, alts) if alts and one and rng.random() < share else 0 for _ in range(ploidy)]
        words = [str(allele) for allele in alleles]
        if all(free):
            style = rng.random()
            if style < 0.05:
                words = ["."] * ploidy
            elif style < 0.1:
                words[0] = "."
            elif style < 0.13:
                words = [*words, words[0]]
            elif style < 0.16:
                words = words[:1]
        calls.append(rng.choice("|/").join(words))
    return calls


class RecordWriter:
    """Makes records at places of a sequence."""

    def __init__(self, rng: random.Random, chrom: str, sequence: str, ploidy: int) -> None:
        self.rng, self.chrom, self.ploidy = rng, chrom, ploidy
        self.sequence = sequence.upper().replace("U", "T")
        self.records: list[Record] = []

    def base(self, pos: int) -> str:
        return MEMBERS.get(self.sequence[pos - 1], "A")[0]

    def others(self, pos: int) -> list[str]:
        return self.rng.sample([base for base in "ACGT" if base != self.base(pos)], 3)

    def text(self, pos: int, length: int) -> str:
        return "".join(self.base(pos + offset) for offset in range(length))

    def put(
        self, pos: int, ref: str, alts: Sequence[str], *, state: str = "PASS", budget: float = 0.97,
        free: Sequence[bool] | None = None, keys: str = "GT", share: float | None = None,
        calls: Sequence[str] = (), **info: str,
    ) -> Record:  # fmt: skip
        number = len(alts) if list(alts) != ["."] else 0
        share = self.rng.choice([0.02, 0.1, 0.3, 0.6]) if share is None else share
        drawn = _calls(self.rng, number, self.ploidy, share, [True] * len(SAMPLES) if free is None else free)
        if keys != "GT":
            depths = [self.rng.randint(0, 40) for _ in drawn]
            drawn = [
                f"{call}:{depth}" if "GT" in keys else str(depth) for call, depth in zip(drawn, depths, strict=True)
            ]
        fields = {**_info(self.rng, max(number, 1), budget), **info}
        fields = {name: value for name, value in fields.items() if value != "absent"}
        self.records.append(Record(self.chrom, pos, ref, tuple(alts), state, fields, keys, tuple(calls or drawn)))
        return self.records[-1]

    def make(self, kind: str, pos: int) -> None:
        """Make the records of a kind; of several at a place, no one has alternates of more than one of them."""
        base, (first, second, third) = self.base(pos), self.others(pos)
        two, three = self.text(pos, 2), self.text(pos, 3)
        turned = lambda text: text.translate(str.maketrans("ACGT", "CGTA"))  # noqa: E731
        odd = [bool(number % 2) for number in range(len(SAMPLES))]
        even = [not one for one in odd]
        absent = dict.fromkeys(("AF", "EUR_AF", "AFR_AF", "AC", "AN"), "absent")
        missing = {"AF": ".", "EUR_AF": ".", "AFR_AF": ".", "AC": "0", "AN": "0"}
        # Numbers of these alleles have two digits in genotypes.
        longer = [base + text for text in ("A", "C", "G", "T", "AA", "AC", "AG", "AT", "CA")]
        put, gt = partial(self.put, pos), self.rng.choice(["GT", "GT", "GT:DP"]) if kind == "snv" else "GT"
        half = {"budget": 0.45, "share": 0.4}
        makers: dict[str, Callable[[], Any]] = {
            "snv": lambda: put(base, [first], keys=gt),
            "two": lambda: put(base, [first, second]),
            "three": lambda: put(base, [first, second, third]),
            "mnv": lambda: put(three, [turned(three[0]) + three[1] + turned(three[2])], share=0.3),
            "mixed": lambda: put(three, [base, two + self.others(pos + 2)[0]]),
            "insertion": lambda: put(base, [base + "GAT"]),
            "deletion": lambda: put(three, [base]),
            "complex": lambda: put(two, [turned(two), two + "C"], share=0.3),
            "symbolic": lambda: put(base, ["<DEL>"]),
            "breakend": lambda: put(base, [f"{base}]chr2:77]"]),
            "star": lambda: put(base, ["*"]),
            "snv and star": lambda: put(base, [first, "*"]),
            "no field": lambda: put(base, [first], DB="", **absent),
            "missing": lambda: put(base, [first], **missing),
            "low": lambda: put(base, [first], state="low", AF="0.4"),
            "low and q10": lambda: put(base, [first], state="low;q10", AF="0.45"),
            "no filter": lambda: put(base, [first], state=".", AF="0.35"),
            "no alternate": lambda: put(base, ["."], **absent),
            "same": lambda: put(base, [base]),
            "same of two": lambda: put(two, [two]),
            "alternate N": lambda: put(base, ["N"]),
            "alternate R": lambda: put(base, ["R", first]),
            "reference N": lambda: put("N", [first]),
            "lower": lambda: put(base.lower(), [first.lower()], AF="0.21", EUR_AF="0.3"),
            "lower mnv": lambda: put(
                three.lower(), [turned(three[0]).lower() + three[1] + turned(three[2])], AF="0.24"
            ),
            "twice": lambda: self.records.append(put(base, [first], AF="0.12", AC="9", AN="100")),
            "conflict": lambda: (
                put(base, [first], free=odd, AF="0.31", EUR_AF="0.2", AFR_AF="0.2", AC="20", AN="100"),
                put(base, [first], free=even, AF="0.32", EUR_AF="0.2", AFR_AF="0.3", AC="21", AN="100"),
            ),
            "again": lambda: (
                put(base, [first], free=odd, budget=0.45, AF="0.25"),
                put(base, [second], free=even, budget=0.45, AF="0.1"),
            ),
            "mnv and snv": lambda: (
                put(two, [turned(two)], free=odd, AF="0.2", **half),
                put(base, [turned(turned(base))], free=even, AF="0.15", **half),
            ),
            "mnv twice": lambda: (
                put(two, [turned(two)], free=odd, AF="0.2", **half),
                put(three, [turned(three)], free=even, AF="0.2", **half),
            ),
            "many": lambda: put(base, [*longer, first, second], share=0.8, AF="0.01," * 9 + "0.3,0.2"),
            "high sum": lambda: put(base, [first, second], AF="0.6,0.4005", EUR_AF="0.5005,0.5"),
            "minimum": lambda: put(base, [first], AF="0.02", EUR_AF="0.02001", AFR_AF="0.01999", AC="2", AN="100"),
            "certain": lambda: put(base, [first], share=1.0, AF="1", EUR_AF="1", AFR_AF="0", AC="100", AN="100"),
            "no calls": lambda: put(base, [first], calls=("./.",) * len(SAMPLES)),
            "no GT": lambda: put(base, [first], keys="DP"),
        }  # fmt: skip
        makers[kind]()

    def make_ambiguous(self, pos: int, code: str) -> None:
        """Make records at an IUPAC code: their REFs are bases that it stands for, the first of which the site has."""
        first, last = MEMBERS[code][0], MEMBERS[code][-1]
        other = next((base for base in "TGCA" if base not in MEMBERS[code]), MEMBERS[code][1])
        odd = [bool(number % 2) for number in range(len(SAMPLES))]
        even = [not one for one in odd]
        self.put(pos, last, [other], budget=0.45, free=odd, AF="0.4")
        if code in "RSKBHV":
            # The same alternate, where another base was: no frequency goes with the site's reference.
            self.put(pos, first, [other], budget=0.45, free=even, AF="0.3")
        if code in "YSMD":
            self.put(pos, last, [first], budget=0.45, free=even, AF="0.11")


def human_records() -> list[Record]:
    """Make records of every kind, in an order of contigs that is not the FASTA's, under both namings."""
    sequences = human_sequences()
    rng = random.Random(12)
    records = []
    for contig, chrom, ploidy in (("chr2", "2", 2), ("chr1", "chr1", 2), ("chr22", "22", 2), ("chrM", "MT", 1)):
        writer = RecordWriter(rng, chrom, sequences[contig], ploidy)
        kinds = rng.sample([*KINDS, *["snv"] * 15, "two", "two", "three"], len(KINDS) + 18) if contig != "chrM" else []
        pos, length = 16, len(sequences[contig])
        while pos < length - 12:
            code = writer.sequence[pos - 1]
            if set(writer.sequence[pos - 1 : pos + 2]) <= set("ACGT"):
                writer.make(kinds.pop() if kinds else rng.choice(["snv", "snv", "snv", "two", rng.choice(KINDS)]), pos)
            elif code in "ACGT":
                writer.make("snv", pos)
            elif code == "N" and rng.random() < 0.3:
                writer.put(pos, "A", ["C"], AF="0.5")
            pos += rng.randint(4, 9)
        for pos, code in enumerate(writer.sequence, start=1):
            if code not in "ACGTN":
                writer.make_ambiguous(pos, code)
        writer.records.sort(key=lambda one: one.pos)
        writer.put(length, writer.base(length), ["G" if writer.base(length) != "G" else "T"], AF="0.75")
        if contig != "chrM":
            writer.put(length + 1, "A", ["C"], AF="0.5")
            writer.put(length + 5, "A", ["C"], AF="0.5")
        records += writer.records
    wrong = {"AF": "0.3", "EUR_AF": "0.3", "AFR_AF": "0.3", "AC": "30", "AN": "100"}
    ours = [one.state == "PASS" and {one.ref} | {*one.alts} <= set("ACGT") for one in records]
    plain_ones = [n for n, one in enumerate(records) if ours[n] and len(one.alts) == 1 and one.alts[0] != one.ref]
    for number in (plain_ones[20], plain_ones[100]):
        ref, alt = (base for base in "ACGT" if base not in (records[number].ref, *records[number].alts))
        records[number] = records[number]._replace(ref=ref, alts=(alt,), info=wrong)
    writer = RecordWriter(rng, "chrUn", random_bases(rng, 50), 2)
    writer.make("snv", 7)
    writer.make("deletion", 20)
    return records + writer.records


def vcf_text(
    records: Sequence[Record], *, fields: Sequence[str] = tuple(FIELDS), samples: Sequence[str] = SAMPLES
) -> str:
    """Write a VCF whose header declares the fields; what it does not declare is in no record."""
    lines = [
        "##fileformat=VCFv4.2",
        *(f'##INFO=<ID={name},{FIELDS[name]},Description="{name}">' for name in fields),
        *(f'##FILTER=<ID={name},Description="{name}">' for name in ("low", "q10")),
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">',
        *(f"##contig=<ID={chrom}>" for chrom in dict.fromkeys(record.chrom for record in records)),
        "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples]),
    ]
    left_out = [name for name in FIELDS if name not in fields]
    lines += [record.line(number, without=left_out) for number, record in enumerate(records)]
    return "".join(f"{line}\n" for line in lines)


def fasta_text(sequences: Mapping[str, str], width: int = 60) -> str:
    """Write a FASTA with descriptions."""
    lines = []
    for name, sequence in sequences.items():
        lines.append(f">{name} of {len(sequence)} bases")
        lines += [sequence[start : start + width] for start in range(0, len(sequence), width)]
    return "".join(f"{line}\n" for line in lines)


class Inputs:
    """Files that cases read, each made on first use, and paths for what they write, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._outputs = folder, 0
        # A population with every kind of record.
        self.records = human_records()
        self.fasta, self.panel = self.write("human.fa", fasta_text(human_sequences())), self.write("panel.txt", PANEL)
        self.vcf = self.write("population.vcf", vcf_text(self.records))
        # A small genome for the model; genotypes of two, some of which change nothing; enough SNVs to calibrate on.
        rng = random.Random(21)
        first, second = random_bases(rng, 400), random_bases(rng, 150)
        first = _with_pieces(first, {250: "N" * 12, 320: "R", 335: "Y", 90: first[90:130].lower()})
        self.small_sequences = {"chr1": first, "chr2": second, "chr3": random_bases(rng, 20)}
        kinds, two = ["snv", "snv", "two", "deletion", "low", "mnv", "no calls"], ("chr1", "chr2")
        records = self._along(23, two, (9, 5, 7), lambda rng, _: rng.choice(kinds), prefix="")
        self.person = self.write("person.vcf", vcf_text(records))
        records = self._along(25, two, (4, 4, 4), lambda _, pos: "snv" if pos % 100 else "insertion")
        self.background = self.write("background.vcf", vcf_text(records))
        regions = ["chr1 0 62 first", "chr1 90 131", "chr1 240 270 gap", "chr1 310 340 codes", "2 100 150 last"]
        bed = "\n".join([*regions, "chr3 0 20 all", ""]).replace(" ", "\t")
        self.bed = self.write("regions.bed", bed)
        self.classifier = self._headed("classifier", "Sequence", ["poor", "rich"])
        self.first_token_classifier = self._headed("first_token_classifier", "Sequence", ["a", "b", "c"], pooler=True)
        self.token_classifier = self._headed("token_classifier", "Token", ["0", "1", "2"])

    def output(self, suffix: str) -> Path:
        """Give a name that is not taken."""
        self._outputs += 1
        return self.folder / f"output{self._outputs}{suffix}"

    def write(self, name: str, text: str) -> Path:
        """Write an input, unless it is there."""
        path = self.folder / name
        if not path.exists():
            path.write_text(text, encoding="utf-8")
        return path

    def wrapped(self, kind: str) -> Path:
        """Give the population's VCF in another wrapping."""
        path = self.folder / f"{kind.replace(' ', '_')}.{'bcf' if 'bcf' in kind else 'vcf.gz'}"
        if path.exists():
            return path
        if kind == "gzip":
            path.write_bytes(gzip.compress(self.vcf.read_bytes(), mtime=0))
        elif "bcf" in kind:
            pysam.bcftools.view("--no-version", "-Ob", "-o", str(path), str(self.vcf), catch_stdout=False)
        else:
            pysam.tabix_compress(str(self.vcf), str(path), force=True)
        if "index" in kind:
            words = ["--tbi"] if "tbi" in kind else []
            pysam.bcftools.index(*words, str(path), catch_stdout=False)
        return path

    @cached_property
    def whole(self) -> Path:
        """The store that `genome/af` freezes."""
        path = self.folder / "human.genome"
        mutbert.build_genome(self.fasta, path, self.vcf)
        return path

    def _along(
        self, seed: int, names: Iterable[str], places: tuple[int, int, int],
        kind_at: Callable[[random.Random, int], str], *, width: int = 3, prefix: str = "chr",
    ) -> list[Record]:  # fmt: skip
        """Records at places from a start to an end before the contig's, by a step, where bases are known."""
        rng, records = random.Random(seed), []
        for name in names:
            writer = RecordWriter(rng, name.replace("chr", prefix), self.small_sequences[name], 2)
            for pos in range(places[0], len(writer.sequence) - places[1], places[2]):
                if set(writer.sequence[pos - 1 : pos - 1 + width]) <= set("ACGT"):
                    writer.make(kind_at(rng, pos), pos)
            records += writer.records
        return records

    @cached_property
    def small(self) -> Path:
        records = self._along(22, self.small_sequences, (5, 5, 9), lambda rng, _: rng.choice(["snv", "two"]), width=1)
        path, fasta = self.folder / "small.genome", self.write("small.fa", fasta_text(self.small_sequences))
        mutbert.build_genome(fasta, path, self.write("small.vcf", vcf_text(records)), min_frequency=0)
        return path

    @cached_property
    def asked(self) -> list[Record]:
        """Records to score: all kinds, those without a score too, in their order."""
        rng = random.Random(24)
        records = []
        kinds = ["snv"] * 9 + [
            "two", "three", "mnv", "mixed", "insertion", "deletion", "complex", "symbolic", "breakend", "star",
            "snv and star", "missing", "no field", "low", "no alternate", "same", "same of two", "alternate N",
            "alternate R", "reference N", "lower", "lower mnv", "twice", "again", "mnv and snv",
        ]  # fmt: skip
        for name, chrom, count in (("chr1", "chr1", 27), ("chr2", "2", 9)):
            sequence = self.small_sequences[name]
            writer = RecordWriter(rng, chrom, sequence, 2)
            # Both ends, neighbours that share a window, beside and in N, beside IUPAC codes and on them.
            places = sorted({1, 2, 3, len(sequence)} | set(rng.sample(range(8, len(sequence) - 8), count)))
            for pos in places:
                if set(writer.sequence[pos - 1 : pos + 2]) <= set("ACGT") and 3 < pos < len(sequence):
                    writer.make(kinds.pop(rng.randrange(len(kinds))) if kinds else "snv", pos)
                elif pos <= 3 or pos == len(sequence):
                    writer.put(pos, writer.base(pos), [writer.others(pos)[0]])
            if name == "chr1":
                deleted = writer.text(140, 30)
                writer.put(140, deleted, [deleted[0], deleted[:5]])
                writer.put(170, writer.base(170), [writer.base(170) + random_bases(rng, 54)])
                writer.put(200, writer.text(200, 2), [writer.text(200, 2)[::-1] + "TT", "<INS>"])
                writer.put(251, "A", ["C"])
                writer.put(250, writer.base(250), [writer.base(250) + "TT"])
                writer.put(321, "A", ["G", "C"])
                writer.put(336, "T", ["G"])
                writer.put(319, writer.text(319, 2), [writer.text(319, 2).translate(str.maketrans("ACGT", "GTAC"))])
                wrong = writer.others(60)
                writer.put(60, wrong[0], [wrong[1]])
                writer.put(396, writer.text(396, 5) + "ACG", [writer.base(396)])
                writer.put(401, "A", ["C"])
                # More than are masked at once in a window that they share.
                for pos in (364, 365, 367, 368, 370, 371):
                    writer.put(pos, writer.base(pos), writer.others(pos)[:1])
            records += sorted(writer.records, key=lambda one: one.pos)
        other = RecordWriter(rng, "chrX", random_bases(rng, 40), 2)
        other.make("snv", 10)
        return records + other.records

    @cached_property
    def asked_vcf(self) -> Path:
        return self.write("asked.vcf", vcf_text(self.asked))

    @cached_property
    def sequences(self) -> Path:
        """Sequences to embed, of 1 to 60 bases."""
        rng = random.Random(26)
        lengths = [rng.randint(1, 60) for _ in range(7)] + [1, 60]
        texts = ["".join(rng.choices("ACGTacgtNRYU", weights=[9] * 4 + [2] * 4 + [1] * 4, k=n)) for n in lengths]
        return self.write("sequences.fa", fasta_text({f"seq{number}": text for number, text in enumerate(texts)}))

    # Classifiers with the stored model's body, whose heads are drawn here and not by torch's generator.

    def _headed(self, name: str, kind: str, labels: Sequence[str], *, pooler: bool = False) -> Path:
        folder = self.folder / name
        folder.mkdir()
        weights = {
            key: weight for key, weight in load_file(MODEL / "model.safetensors").items() if not key.startswith("cls.")
        }
        heads = {"bert.pooler.dense.weight": (16, 16), "bert.pooler.dense.bias": (16,)} if pooler else {}
        heads |= {"classifier.weight": (len(labels), 16), "classifier.bias": (len(labels),)}
        rng = random.Random(28)
        for key, shape in heads.items():
            values = [rng.random() - 0.5 for _ in range(int(np.prod(shape)))]
            weights[key] = np.array(values, dtype=np.float32).reshape(shape)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
        config |= {"architectures": [f"MutBertFor{kind}Classification"], "problem_type": "single_label_classification"}
        config |= {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}}
        config |= {"pooler_type": "first_token_transform"} if pooler else {}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder

    @cached_property
    def table(self) -> Path:
        """Sequences of two classes, to fine-tune on."""
        rng = random.Random(27)
        lines = ["name,sequence,label"]
        for number in range(48):
            weights = [1, 4, 4, 1] if number % 2 else [4, 1, 1, 4]
            text = "".join(rng.choices("ACGT", weights=weights, k=rng.randint(20, 60)))
            lines.append(f"s{number},{text},{'rich' if number % 2 else 'poor'}")
        return self.write("table.csv", "".join(f"{line}\n" for line in lines))
