"""Frozen cases, each with a tolerance; they use the names in `mutbert.__all__` and the command line only."""

import gzip
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import golden_adapters
import numpy as np
import polars as pl
import pyarrow.parquet
import pysam
import pysam.bcftools
import torch
from golden_answers import Answer, Tolerance
from golden_inputs import FIELDS, MODEL, SAMPLES, Inputs, Record, RecordWriter, fasta_text, random_bases, vcf_text
from safetensors import safe_open
from typer.testing import CliRunner

import mutbert
from mutbert.cli.main import app

# Base codes of a store, as docs/format.md has them.
LETTERS = "ACGTRYSWKMBDHVN"
UNITS = 65535

EXACT = Tolerance(rtol=1e-12)
NUMBERS = Tolerance(atol=1e-5, rtol=1e-5)
# A percentage lies between quantiles, so that what is rounding in a score is more here.
PERCENTAGES = Tolerance(atol=0.01, rtol=1e-5)
# Text has six digits.
WRITTEN = Tolerance(atol=2e-5, rtol=2e-5)
HISTORY = Tolerance(atol=1e-7, rtol=1e-5)


class Case(NamedTuple):
    """What is run; the tolerance of numbers by place in the answer, as a regular expression; whose answer is stored."""

    run: Callable[["Inputs"], Answer]
    tolerances: Mapping[str, Tolerance]
    stored: str

    def tolerance_at(self, place: str) -> Tolerance:
        return next(one for where, one in self.tolerances.items() if re.search(where, place))


CASES: dict[str, Case] = {}
ROOMS = ("genome", "model", "scores", "inference", "training", "runs", "benchmark", "effects", "settings")


def add(
    name: str, run: Callable[..., Answer], *words: Any, tolerance: Tolerance = NUMBERS, same_as: str | None = None,
    tolerances: Mapping[str, Tolerance] | None = None, **settings: Any,
) -> None:  # fmt: skip
    """Add a case of a function and its arguments, ``@name`` for an input; `same_as` is a case of equal answer."""
    assert name not in CASES, name

    def of(inputs: Inputs, value: Any) -> Any:
        return getattr(inputs, value[1:]) if isinstance(value, str) and value[:1] == "@" else value

    def case(inputs: Inputs) -> Answer:
        given = {key: of(inputs, value) for key, value in settings.items()}
        return run(inputs, *(of(inputs, word) for word in words), **given)

    CASES[name] = Case(case, {**(tolerances or {}), "": tolerance}, same_as or name)


def cli(*words: Any) -> str:
    """Run the program here, and give what it prints."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exit_code:
        raise RuntimeError(f"mutbert {' '.join(map(str, words))}\n{result.output}") from result.exception
    return result.stdout


def text_of(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


# Genomes


def genome_of(path: Path) -> Answer:
    """Read a store through, contig by contig: whole numbers all, as a store keeps units of 1/65535."""
    genome = mutbert.ProbabilisticGenome.open(path, check=True)
    found: dict[str, list[Any]] = {name: [] for name in ("position", "reference", "frequency")}
    contigs = {}
    for name, length in genome.lengths.items():
        variants = genome.variants(name)
        found["position"].append(variants.position)
        found["reference"].append(variants.reference)
        found["frequency"].append(units(variants.frequency))
        contigs[name] = {
            "length": length,
            "variants": len(variants.position),
            "letters": digest(letters_of(genome, name).encode()),
            "frequencies": digest(units(genome.frequencies(name, 0, length), 4).astype("<i4").tobytes()),
        }
    types = {"position": np.int32, "reference": np.uint8, "frequency": np.uint16}
    arrays = {name: np.concatenate(parts).astype(types[name]) for name, parts in found.items()}
    return {"contigs": contigs, "has_soft_mask": genome.has_soft_mask, **arrays}


def letters_of(genome: mutbert.ProbabilisticGenome, name: str) -> str:
    """Give a contig's bases, in lower case where it is soft-masked."""
    length = genome.lengths[name]
    letters = np.array(list(LETTERS))[genome.bases(name, 0, length)]
    return "".join(np.where(genome.soft_masked(name, 0, length), np.char.lower(letters), letters).tolist())


def units(frequency: np.ndarray, parts: int = 1) -> np.ndarray:
    """Give frequencies as whole numbers of units, which have to be near enough."""
    scaled = frequency.astype(np.float64) * UNITS * parts
    whole = np.rint(scaled).astype(np.int64)
    assert np.abs(scaled - whole).max(initial=0) < 0.02, "frequencies are not of units of 1/65535"
    return whole


def digest(content: bytes) -> str:
    """Give the first 64 bits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def counts_of(counts: Mapping[str, Any]) -> Answer:
    """Give what became of a file's records, without its name."""
    return {name: counts[name] for name in ("frequency_from", "read", "used", "decomposed", "not_used")}


def built(path: Path, report: Mapping[str, Any]) -> Answer:
    """All that a new genome contains, and its report."""
    kept = ("variants", "contig_names", "only_in_fasta", "only_in_vcf")
    records = [counts_of(one) for one in report["records"]]
    return {**genome_of(path), "records": records, **{name: report[name] for name in kept},
            "notes": len(report["notes"])}  # fmt: skip


def build(inputs: Inputs, fasta: Any, vcf: Any, **settings: Any) -> Answer:
    """Build a genome from Python."""
    path = inputs.output(".genome")
    return built(path, mutbert.build_genome(fasta, path, vcf, **settings))


def build_by_command(inputs: Inputs, *words: Any) -> Answer:
    """Build a genome by the command, of the population where no FASTA is named."""
    path = inputs.output(".genome")
    files = () if "--fasta" in words else ("--fasta", inputs.fasta, "--vcf", inputs.vcf)
    report = json.loads(cli("genome", "build", *files, *words, "-o", path, "--json"))
    assert report["lengths"] == mutbert.ProbabilisticGenome.open(path).lengths
    return built(path, report)


def of_population(inputs: Inputs, **settings: Any) -> Answer:
    return build(inputs, inputs.fasta, inputs.vcf, **settings)


def in_wrapping(inputs: Inputs, kind: str, workers: int = 1) -> Answer:
    return build(inputs, inputs.fasta, inputs.wrapped(kind), workers=workers)


def samples_by_command(inputs: Inputs) -> Answer:
    return build_by_command(inputs, "--samples", inputs.write("names.txt", "S1\nS4\nS5\nS9\n"))


def packed_fasta(inputs: Inputs) -> Answer:
    path = inputs.folder / "packed"
    pysam.tabix_compress(str(inputs.fasta), str(path), force=True)
    return build(inputs, path, inputs.vcf)


def without_fields(inputs: Inputs, *fields: str) -> Answer:
    left = [name for name in FIELDS if name not in fields]
    path = inputs.write(f"without_{'_'.join(fields)}.vcf", vcf_text(inputs.records, fields=left))
    return build(inputs, inputs.fasta, path)


def of_several_files(inputs: Inputs) -> Answer:
    """A file a contig, and one that says some of it again and some of it otherwise."""
    chroms = [one for one in dict.fromkeys(record.chrom for record in inputs.records) if one != "chrUn"]
    parts = {chrom: vcf_text([one for one in inputs.records if one.chrom == chrom]) for chrom in chroms}
    files = [inputs.write(f"part_{chrom}.vcf", text) for chrom, text in parts.items()]
    used = [one for one in inputs.records if one.chrom == "chr1" and len(one.alts) == 1 and one.state == "PASS"][::9]
    again = [one if number % 2 else one._replace(info={"AF": "0.011"}) for number, one in enumerate(used)]
    return build(inputs, inputs.fasta, [*files, inputs.write("again.vcf", vcf_text(again))])


def of_species(inputs: Inputs) -> Answer:
    """Two species with contigs of one name."""
    rng = random.Random(31)
    mouse = {"chr1": random_bases(rng, 240).lower(), "chrX": random_bases(rng, 90)}
    writer = RecordWriter(rng, "1", mouse["chr1"], 2)
    for pos in range(3, 230, 6):
        writer.make("snv" if pos % 4 else "two", pos)
    fasta = inputs.write("mouse.fa", fasta_text(mouse))
    vcf = inputs.write("mouse.vcf", vcf_text(writer.records))
    words = ["--fasta", f"human={inputs.fasta}", "--fasta", f"mouse={fasta}"]
    return build_by_command(inputs, *words, "--vcf", f"human={inputs.vcf}", "--vcf", f"mouse={vcf}")


def of_odd_lines(inputs: Inputs) -> Answer:
    """What only text can say: position 0, more digits than BCF is read with, carriage returns, odd fields."""
    rows = [
        (0, "", "", "PASS", "AF=0.5"), (5, "", "", "PASS", "AF=0.0200001"), (9, "", "", "PASS", "AF=0.020001"),
        (13, "", "", "PASS", "AF=1e-1;X=AF=0.7"), (17, "", "", "PASS", "NOT_AF=0.7;AF=+0.3"),
        (21, "", "", "s50;PASS", "DB;AF=0.3;EUR_AF=0.9"), (25, "A", "A.", "PASS", "AF=0.3"),
        (29, "", ",.", "PASS", "AF=0.2,."), (33, "", "", "PASS", "AF=.5"),
    ]  # fmt: skip
    lines = []
    for pos, ref, alt, *rest in rows:
        base = inputs.small_sequences["chr2"][pos - 1] if pos else "A"
        other = base if ref else "ACGT"["CGTA".index(base)]
        lines.append("\t".join(["2", str(pos), ".", base + ref, other + alt, ".", *rest]))
    header = '##fileformat=VCFv4.2\n##INFO=<ID=AF,Number=A,Type=Float,Description="">\n'
    header += "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]) + "\n"
    path = inputs.write("odd.vcf", header + "".join(f"{line}\r\n" for line in lines))
    return build(inputs, inputs.write("small.fa", fasta_text(inputs.small_sequences)), path)


def refused(inputs: Inputs) -> Answer:
    """Say of builds that cannot be whether they end in one line with the place, in status 2, and leave nothing."""
    sequence = inputs.small_sequences["chr2"]
    others = {base: tuple(other for other in "ACGT" if other != base)[:2] for base in "ACGT"}
    rest = ("PASS", {"AF": "0.1,0.2"}, "GT", ("0/0",) * len(SAMPLES))
    base = [Record("2", pos, sequence[pos - 1], others[sequence[pos - 1]], *rest) for pos in (5, 9, 13)]

    other = [one._replace(ref=one.alts[0], alts=(one.ref,), info={"AF": "0.1"}) for one in base]

    def changed(number: int, **values: Any) -> list[Record]:
        return [one._replace(**values) if index == number else one for index, one in enumerate(base)]

    cases = {
        "sum": (changed(1, info={"AF": "0.6,0.5"}), (), "2:9"),
        "above one": (changed(2, info={"AF": "1.5,0"}), (), "2:13"),
        "below zero": (changed(0, info={"AF": "-0.1,0"}), (), "2:5"),
        "too few values": (changed(1, info={"AF": "0.6"}), (), "2:9"),
        "not sorted": (base[::-1], (), "2:9"),
        "no such field": (base, ("--frequency-field", "XYZ_AF"), "XYZ_AF"),
        "no such sample": (base, ("--sample", "S99"), "S99"),
        "another assembly": (other, (), "2:5"),
        "no contig": ([one._replace(chrom="chr77") for one in base], (), "chr77"),
    }  # fmt: skip
    fasta = inputs.write("small.fa", fasta_text(inputs.small_sequences))
    found = {}
    for number, (name, (lines, words, place)) in enumerate(cases.items()):
        path, output = inputs.write(f"refused{number}.vcf", vcf_text(lines)), inputs.output(".genome")
        command = ["genome", "build", "--fasta", fasta, "--vcf", path, "-o", output, *words]
        if number == 0:
            status, text = golden_adapters.run_program(*map(str, command))
            error = [line for line in text.splitlines() if line.startswith("mutbert: ")]
            found["program"] = {"status": status, "lines": len(error), "place": place in error[-1]}
        result = CliRunner().invoke(app, [str(word) for word in command])
        message = str(result.exception)
        found[name] = {"place": place in message, "lines": len(message.splitlines()), "left": output.exists()}
    return found


def inputs_themselves(inputs: Inputs) -> Answer:
    """Where this one fails, it is the seeds' numbers that have changed and not the product."""
    names = ("fasta", "vcf", "panel", "person", "asked_vcf", "background", "sequences", "bed", "table")
    return {name: digest(getattr(inputs, name).read_bytes()) for name in names}


def windows(inputs: Inputs) -> Answer:
    """Many windows at once, and stretches without N."""
    genome = mutbert.ProbabilisticGenome.open(inputs.whole)
    rng = random.Random(32)
    names = list(genome.lengths)
    contigs = np.array([rng.randrange(len(names)) for _ in range(40)], dtype=np.int64)
    starts = np.array([rng.randint(0, genome.lengths[names[one]] - 45) for one in contigs.tolist()], dtype=np.int64)
    found = genome.windows(contigs, starts, 45).distributions()
    return {
        "distributions": digest(units(found, 4).astype("<i4").tobytes()),
        "total": units(found, 4).sum(axis=(0, 1)),
        "varies": ((found > 0).sum(axis=2) > 1).sum(axis=1),
        "soft_masked": genome.soft_masked_windows(contigs, starts, 45).sum(axis=1),
        "known_runs": {name: genome.known_runs(name, 0, length) for name, length in genome.lengths.items()},
    }


def letters(inputs: Inputs) -> Answer:
    """Some letters with their case, and some frequencies as they are read, under other names of the contigs."""
    genome = mutbert.ProbabilisticGenome.open(inputs.whole)
    return {
        "letters": {name: letters_of(genome, name)[:80] for name in genome.lengths},
        "frequencies": genome.frequencies("1", 495, 560),
        "frequencies_by_other_name": genome.variants("MT").frequency,
        "bases": genome.bases("1", 495, 560),
        "variants": genome.variants("22", 20, 90).position,
    }


def inspected(inputs: Inputs, *more: Path) -> Answer:
    """What `inspect` says, but for what depends on how a store is packed and by what version."""
    found = json.loads(cli("genome", "inspect", inputs.whole, *more, "--json"))
    answers = found.get("genomes", [found])
    for one in answers:
        for name in ("path", "created_by", "version", "bytes_on_disk", "bytes_per_base"):
            del one[name]
    return {"genomes": answers}


def exported(inputs: Inputs, kind: str, *words: Any, suffix: str = "") -> Answer:
    """Give the text of an export, or the table."""
    path = inputs.output(suffix or f".{kind}")
    report = json.loads(cli("genome", "export", inputs.whole, "-o", path, "--as", kind, *words, "--json"))
    said = {name: report[name] for name in ("kind", "regions", "bases", "variants", "changed")}
    if path.suffix == ".parquet":
        return {"report": said, **columns_of(path)}
    return {"report": said, "text": text_of(path)}


def merged(inputs: Inputs, *, by_command: bool = False) -> Answer:
    """Build the contigs apart, and put them together."""
    parts = []
    for names in (["chr1"], ["2", "22"], ["chrM", "chrEmpty"]):
        parts.append(inputs.output(".genome"))
        mutbert.build_genome(inputs.fasta, parts[-1], inputs.vcf, contigs=names)
    path = inputs.output(".genome")
    if by_command:
        report = json.loads(cli("genome", "merge", *parts, "-o", path, "--json"))
    else:
        report = mutbert.merge_genomes(parts, path)
    return {
        **genome_of(path),
        "report": {"parts": len(parts), "variants": report["variants"]},
        "records": [counts_of(counts) for counts in report["records"]],
    }


exact = partial(add, tolerance=EXACT)
exact("genome/inputs", inputs_themselves)
exact("genome/af", of_population)
add("genome/letters", letters)
exact("genome/windows", windows)
exact("genome/no_vcf", build, "@fasta", ())
for name in ("EUR_AF", "AFR_AF", "AC/AN", "GT"):
    exact(f"genome/{name.lower().replace('/', '_')}", of_population, frequency_field=name)
exact("genome/gt_minimum_0.1", of_population, frequency_field="GT", min_frequency=0.1)
exact("genome/no_af", without_fields, "AF", same_as="genome/ac_an")
exact("genome/no_ac", without_fields, "AF", "AC", "AN", same_as="genome/gt")
exact("genome/samples", of_population, samples=["S1", "S4", "S5", "S9"])
exact("genome/samples_by_command", samples_by_command, same_as="genome/samples")
exact("genome/population", build_by_command, "--samples", "@panel", "--population", "FIN")
exact("genome/super_population", of_population, samples="@panel", population="AFR")
exact("genome/sample", build_by_command, "--sample", "S2")
exact("genome/minimum_0", of_population, min_frequency=0)
exact("genome/minimum_0.3", of_population, min_frequency=0.3)
exact("genome/filter_pass", of_population, filters=["PASS"])
exact("genome/filter_low", build_by_command, "--filter", "low,.")
exact("genome/filter_any", of_population, filters=["any"])
exact("genome/contigs", build_by_command, "--contigs", "1,chr22")
for name, run in (("several_files", of_several_files), ("species", of_species), ("odd_lines", of_odd_lines)):
    exact(f"genome/{name}", run)
exact("genome/refused", refused)
for kind in ("gzip", "bgzip", "bgzip tbi index", "bgzip csi index", "bcf", "bcf index"):
    exact(f"genome/af/{kind.replace(' ', '_')}", in_wrapping, kind=kind, same_as="genome/af")
for kind in ("bgzip tbi index", "bcf"):
    name = f"genome/af/{kind.replace(' ', '_')}_two_workers"
    exact(name, in_wrapping, kind=kind, workers=2, same_as="genome/af")
exact("genome/af/by_command_two_workers", build_by_command, "--workers", "2", same_as="genome/af")
exact("genome/af/packed_fasta", packed_fasta, same_as="genome/af")
exact("genome/inspect", inspected)
exact("genome/inspect_two", inspected, "@small")
exact("genome/export/reference", exported, "reference", "--soft-mask", suffix=".fa")
exact("genome/export/consensus", exported, "consensus", suffix=".fa.gz")
exact("genome/export/iupac", exported, "iupac", "--soft-mask", suffix=".fa")
exact("genome/export/iupac_minimum", exported, "iupac", "--min-frequency", "0.2", suffix=".fa")
exact("genome/export/tsv", exported, "tsv", "--region", "2:1-300", "--contigs", "22")
exact("genome/export/bed", exported, "bed", "--region", "chr1:480-900", "--region", "chrM:20-50")
add("genome/export/parquet", exported, "parquet", "--region", "chr1:1-500")
exact("genome/merge", merged)
exact("genome/merge/by_command", merged, by_command=True, same_as="genome/merge")


# The model

IDS = {"unk": 0, "cls": 1, "sep": 2, "pad": 3, "mask": 4}


def arrays_of(**tensors: Any) -> Answer:
    return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}


def random_ids(seed: int, batch: int, length: int) -> torch.Tensor:
    """Draw ids of tokens: [CLS], bases with some [MASK] and [UNK], [SEP]."""
    rng = random.Random(seed)
    rows = [[1, *rng.choices([5, 6, 7, 8, 4, 0], [5, 5, 5, 5, 2, 1], k=length - 2), 2] for _ in range(batch)]
    return torch.tensor(rows)


def random_probs(seed: int, batch: int, length: int, columns: int) -> torch.Tensor:
    """Draw distributions over tokens; half of the rows are of one token alone."""
    rng = random.Random(seed)
    rows = []
    for _ in range(batch * length):
        if rng.random() < 0.5:
            weights = [0.0] * columns
            weights[rng.randrange(columns)] = 1.0
        else:
            weights = [rng.random() ** 3 for _ in range(columns)]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=torch.float32).reshape(batch, length, columns)


def load(kind: Any, folder: Path = MODEL, **settings: Any) -> Any:
    return kind.from_pretrained(folder, **settings).eval()


@torch.no_grad()
def of_ids(_: Inputs, attention: str) -> Answer:
    model = load(mutbert.MutBertForMaskedLM, attn_implementation=attention)
    found = model(input_ids=random_ids(1, 2, 24), output_hidden_states=True)
    types = torch.tensor([[0] * 10 + [1] * 14] * 2)
    typed = model(input_ids=random_ids(1, 2, 24), token_type_ids=types)
    return arrays_of(logits=found.logits, hidden_states=torch.stack(found.hidden_states)[..., ::3], typed=typed.logits)


@torch.no_grad()
def of_attentions(_: Inputs) -> Answer:
    model = load(mutbert.MutBertForMaskedLM, attn_implementation="eager")
    found = model(input_ids=random_ids(1, 1, 12), output_attentions=True)
    return arrays_of(attentions=torch.stack(found.attentions))


@torch.no_grad()
def of_probabilities(_: Inputs, attention: str) -> Answer:
    model = load(mutbert.MutBertForMaskedLM, attn_implementation=attention)
    tokens, bases = random_probs(2, 2, 20, 9), random_probs(3, 2, 20, 4)
    published = model(input_ids=tokens).logits
    assert torch.equal(published, model(input_probs=tokens).logits), "distributions as input_ids are others"
    embedded = model(inputs_embeds=torch.nn.functional.pad(bases, (0, 12)))
    return arrays_of(tokens=published, bases=model(input_probs=bases).logits, embedded=embedded.logits)


@torch.no_grad()
def of_padding(_: Inputs, attention: str, scaling: str) -> Answer:
    """Rows of three lengths, two of them longer than trained; alone and together, they are the same."""
    model = load(
        mutbert.MutBertForMaskedLM, attn_implementation=attention,
        rope_scaling=None if scaling == "none" else {"type": scaling, "factor": 2.0},
    )  # fmt: skip
    lengths = (17, 64, 70, 100)
    ids = random_ids(4, len(lengths), max(lengths))
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    ids[mask == 0] = IDS["pad"]
    logits = model(input_ids=ids, attention_mask=mask).logits
    for row, length in enumerate(lengths):
        alone = model(input_ids=ids[row : row + 1, :length]).logits[0]
        assert torch.allclose(alone, logits[row, :length], atol=1e-5, rtol=1e-5), f"padding changes row {row}"
    return arrays_of(logits=logits[mask.bool()][::4])


def of_losses(_: Inputs) -> Answer:
    """Losses of both kinds of labels, in evaluation and in training, and the gradient of each weight."""
    model = load(mutbert.MutBertForMaskedLM)
    ids = random_ids(8, 3, 30)
    probs, answers = random_probs(9, 3, 30, 9), random_probs(10, 3, 30, 9)
    rng = random.Random(33)
    target = torch.tensor([[rng.random() < 0.2 for _ in range(30)] for _ in range(3)])
    weights = torch.tensor([[rng.random() for _ in range(30)] for _ in range(3)])
    labels = torch.where(target, random_ids(11, 3, 30), torch.tensor(-100))

    def soft_loss(weight: torch.Tensor | None = None) -> torch.Tensor:
        """The mean over all targets, of which rows have different numbers."""
        losses = []
        for row in range(len(target)):
            places = target[row].nonzero().T
            given = {"labels": answers[row][places], "target_places": places}
            if weight is not None:
                given["target_weights"] = weight[row][places]
            losses.append(model(input_probs=probs[row : row + 1], **given).loss * places.numel())
        return torch.stack(losses).sum() / target.sum()

    found = {}
    for mode in ("evaluation", "training"):
        model.train(mode == "training")
        found[mode] = {"ids": model(input_ids=ids, labels=labels).loss.item(),
                       "distributions": soft_loss().item(), "weighted": soft_loss(weights).item()}  # fmt: skip
    model.zero_grad()
    soft_loss(weights).backward()
    gradients = {name: [one.grad.norm().item(), one.grad.sum().item()] for name, one in model.named_parameters()}
    return {**found, "gradients": gradients}


@torch.no_grad()
def of_classifiers(inputs: Inputs) -> Answer:
    ids = random_ids(12, 3, 40)
    mask = torch.tensor([[1] * 40, [1] * 33 + [0] * 7, [1] * 12 + [0] * 28])
    ids[mask == 0] = IDS["pad"]
    labels = torch.tensor([0, 1, 1])
    kind = mutbert.MutBertForSequenceClassification
    means, first = load(kind, inputs.classifier), load(kind, inputs.first_token_classifier)
    tokens = load(mutbert.MutBertForTokenClassification, inputs.token_classifier)
    body = load(mutbert.MutBertModel, inputs.first_token_classifier)(input_ids=ids, attention_mask=mask)
    mean_body = load(mutbert.MutBertModel)(input_ids=ids, attention_mask=mask)
    by_base = torch.where(mask.bool(), torch.arange(40) % 3, torch.tensor(-100))
    named = {"input_ids": ids, "attention_mask": mask}
    arrays = arrays_of(
        means=means(**named).logits, first=first(**named).logits, tokens=tokens(**named).logits[mask.bool()],
        pooled=body.pooler_output, mean_pooled=mean_body.pooler_output,
        last=mean_body.last_hidden_state[mask.bool()][::4],
        probabilities=means(input_probs=random_probs(13, 2, 20, 4)).logits,
    )  # fmt: skip
    losses = [model(**named, labels=one) for model, one in ((means, labels), (first, labels), (tokens, by_base))]
    return {**arrays, "losses": [one.loss.item() for one in losses]}


def of_tokenizer(_: Inputs) -> Answer:
    found: Answer = {}
    texts = ["ACGT", "acgtNRYU", "", "AC[MASK]GT", "A"]
    for name, settings in (("ours", {}), ("published", {"do_upper_case": False})):
        tokenizer = mutbert.MutBertTokenizer(**settings)
        batch = tokenizer(texts, padding=True)
        pair = tokenizer("ACG", "TTA")
        found[name] = {
            **{key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")},
            "pair": [pair["input_ids"], pair["token_type_ids"]],
        }
    batch = mutbert.MutBertTokenizer().encode_probabilities(["ACGTRYSWKMBDHVN", "acgun", "G"])
    found["probabilities"] = batch["input_probs"].numpy()
    found["mask"] = batch["attention_mask"].tolist()
    return found


for name, run in (("ids", of_ids), ("probabilities", of_probabilities)):
    add(f"model/{name}", run, attention="sdpa")
    add(f"model/{name}/eager", run, attention="eager", same_as=f"model/{name}")
for scaling in ("none", "linear", "dynamic"):
    name = f"model/rope_{scaling}"
    add(name, of_padding, attention="sdpa", scaling=scaling)
    add(f"{name}/eager", of_padding, attention="eager", scaling=scaling, same_as=name)
for name, run in (("attentions", of_attentions), ("losses", of_losses), ("classifiers", of_classifiers)):
    add(f"model/{name}", run)
add("model/tokenizer", of_tokenizer)


# Scores of variants

ALL_SCORES = ("llr", "unmasked", "distance")
PLACES = ("chrom", "pos", "id", "ref", "alt")


def columns_of(path: Path) -> Answer:
    """Read a Parquet table: numbers as arrays, the rest as lists."""
    table = pyarrow.parquet.read_table(path)
    found = {}
    for name in table.column_names:
        column = table[name]
        if pyarrow.types.is_floating(column.type):
            found[name] = column.to_numpy(zero_copy_only=False).astype(np.float32)
        elif pyarrow.types.is_integer(column.type):
            found[name] = column.to_numpy()
        else:
            found[name] = column.to_pylist()
            # Contigs of many rows, and bases.
            if name == "contig":
                found[name] = {one: found[name].count(one) for one in dict.fromkeys(found[name])}
            elif name == "reference":
                found[name] = "".join(found[name])
    return found


def places_of(records: Sequence[Record]) -> list[list[Any]]:
    """List the columns of a table of scores that say which allele a row is of."""
    rows = [(one.chrom, one.pos, f"rs{n}", one.ref, alt) for n, one in enumerate(records) for alt in one.alts]
    return [list(column) for column in zip(*rows, strict=True)]


def rows_by_value(column: Sequence[str | None]) -> dict[str, list[int]]:
    """List the rows of each text of a column, but of those that have none."""
    return {one: [n for n, other in enumerate(column) if other == one] for one in sorted({*column} - {None})}


def table_of(path: Path, records: Sequence[Record]) -> Answer:
    """Read a table of scores, in whose rows the records' alleles have to be."""
    if path.suffix == ".parquet":
        found = columns_of(path)
    else:
        found = dict(columns_of_text(path))
        found["pos"] = np.array(list(map(int, found["pos"])))
        for name in set(found) - {*PLACES, "kind", "why"}:
            found[name] = np.array([float(one or "nan") for one in found[name]], dtype=np.float32)
    rows = [found.pop(name) for name in PLACES]
    rows[1] = rows[1].tolist()
    expected = [[None if text == "." else text for text in column] for column in places_of(records)]
    given = [[None if text == "." else text for text in column] for column in rows]
    assert given == expected, "rows of the table are not the alleles of the VCF"
    return found | {name: rows_by_value(found[name]) for name in ("kind", "why")}


def report_of(report: Any) -> Answer:
    """What a report says, but for its paths."""
    said = report if isinstance(report, Mapping) else vars(report)
    names = ("records", "alleles", "scored", "missing", "fields", "without_frequency", "without_background",
             "person_not_used")  # fmt: skip
    return {name: said[name] for name in names}


def score(inputs: Inputs, **settings: Any) -> Answer:
    """Score from Python into Parquet."""
    path = inputs.output(".parquet")
    report = mutbert.score_variants(MODEL, inputs.small, inputs.asked_vcf, path, **settings)
    return {"report": report_of(report), **table_of(path, inputs.asked)}


def score_by_command(inputs: Inputs, *words: Any, suffix: str = ".parquet", vcf: Path | None = None) -> Answer:
    """Score by the command into a table."""
    path = inputs.output(suffix)
    command = ["score", "--model", MODEL, "--genome", inputs.small, "--vcf", vcf or inputs.asked_vcf, "-o", path]
    said = json.loads(cli(*command, *words, "--json"))
    return {"report": report_of(said), **table_of(path, inputs.asked)}


EVERYTHING = ("--scores", "llr,unmasked,distance", "--frequency-field", "AF", "--flank", "3")


def info_of(inputs: Inputs, suffix: str) -> Answer:
    """Score into a VCF: the fields that its header and its records have got, in a run that writes a table as well."""
    path, table = inputs.output(suffix), inputs.output(".parquet")
    command = ["score", "--model", MODEL, "--genome", inputs.small, "--vcf", inputs.asked_vcf, "-o", path]
    cli(*command, *EVERYTHING, "--table", table, "--prefix", "MB")
    text = pysam.bcftools.view("--no-version", str(path)) if suffix == ".bcf" else text_of(path)
    before = inputs.asked_vcf.read_text(encoding="utf-8").splitlines()
    declared = re.findall(r'##INFO=<ID=(MB_\w+),Number=(.),Type=(\w+),Description=".+">', text)
    fields: dict[str, list[str]] = {name: [] for name, *_ in declared}
    records = ([one for one in lines if not one.startswith("#")] for lines in (text.splitlines(), before))
    for line, given in zip(*records, strict=True):
        columns = line.split("\t")
        words = columns[7].split(";")
        added = dict(word.split("=", 1) for word in words if word.startswith("MB_"))
        columns[7] = ";".join(word for word in words if not word.startswith("MB_")) or "."
        assert "\t".join(columns) == given, "a record has changed"
        alleles = len(columns[4].split(","))
        for name in fields:
            values = added[name].split(",") if name in added else ["."] * alleles
            assert len(values) == alleles, f"{name} has not a value for each allele"
            fields[name] += values
    why = rows_by_value([None if word == "." else word for word in fields.pop("MB_WHY")])
    texts = {name[3:]: ["nan" if word == "." else word for word in column] for name, column in fields.items()}
    numbers = {name: np.array(column, np.float32) for name, column in texts.items()}
    same = table_of(table, inputs.asked)
    assert same["why"] == why, "the table has other reasons"
    for name, column in numbers.items():
        assert np.allclose(same[name], column, atol=2e-5, rtol=2e-5, equal_nan=True), f"the table has another {name}"
    return {"declared": [list(one) for one in declared], "why": why, **numbers}


def by_regions(inputs: Inputs) -> Answer:
    """Score region by region, and join the tables."""
    vcf = inputs.folder / "asked.vcf.gz"
    pysam.tabix_compress(str(inputs.asked_vcf), str(vcf), force=True)
    pysam.tabix_index(str(vcf), preset="vcf", force=True)
    command = ["score", "--model", MODEL, "--genome", inputs.small, "--vcf", vcf, *EVERYTHING, "--json"]
    pieces, reports = [], []
    for region in ("chr1:1-200", "chr1:201-250", "chr1:251-9999", "2", "chrX"):
        pieces.append(inputs.output(".parquet"))
        reports.append(report_of(json.loads(cli(*command, "--region", region, "-o", pieces[-1]))))
    path = inputs.output(".parquet")
    pl.concat([pl.read_parquet(piece) for piece in pieces]).write_parquet(path)
    whole = dict(reports[0])
    for name in ("scored", "missing"):
        whole[name] = dict(sum((Counter(report[name]) for report in reports), Counter()))
    for name in ("records", "alleles", "without_frequency", "without_background"):
        whole[name] = sum(report[name] for report in reports)
    return {"report": whole, **table_of(path, inputs.asked)}


def calibrated(inputs: Inputs, *, strands: str) -> Answer:
    """Make a background, and say how extreme scores are among it."""
    path = inputs.output(".json")
    words = ["--scores", "llr,unmasked,distance", "--strands", strands, "--context", "40"]
    command = ["score", "--model", MODEL, "--genome", inputs.small, *words]
    cli(*command, "--vcf", inputs.background, "--calibrate", "-o", path)
    said = json.loads(path.read_text(encoding="utf-8"))
    found = score_by_command(inputs, *words, "--calibration", path)
    fields = {}
    for name, field in said["fields"].items():
        fields[name] = {"extreme": field["extreme"]}
        for group in ("snv", "mnv_indel"):
            alleles, quantiles = (field[group][one] for one in ("alleles", "quantiles"))
            fields[name][group] = {"alleles": alleles, "quantiles": quantiles and np.array(quantiles, np.float32)}
    return {"fields": fields, **found}


whole = "scores/everything"
add("scores/default", score)
add("scores/forward", score, strands="forward", context=31, scores=ALL_SCORES)
add(whole, score, scores=ALL_SCORES, frequency_field="AF", flank=3)
add(f"{whole}/by_command", score_by_command, *EVERYTHING, same_as=whole)
add(f"{whole}/tsv", score_by_command, *EVERYTHING, suffix=".tsv", same_as=whole, tolerance=WRITTEN)
add(f"{whole}/tsv_gz", score_by_command, *EVERYTHING, suffix=".tsv.gz", same_as=whole, tolerance=WRITTEN)
add(f"{whole}/regions", by_regions, same_as=whole)
add(f"{whole}/batches", score_by_command, *EVERYTHING, "--batch-size", "3", same_as=whole)
add("scores/info", info_of, ".vcf.gz", tolerance=WRITTEN)
add("scores/info/vcf", info_of, ".vcf", tolerance=WRITTEN, same_as="scores/info")
add("scores/info/bcf", info_of, ".bcf", tolerance=WRITTEN, same_as="scores/info")
for kind in ("centred", "shared"):
    every = partial(add, run=score, scores=ALL_SCORES, context=30, windows=kind, flank=2)
    every(f"scores/{kind}/reference")
    every(f"scores/{kind}/population", surroundings="population")
    every(f"scores/{kind}/person", surroundings="person", sample="S2", person_vcf="@person")
add("scores/own_person", score, surroundings="person", sample="S3", context=24, strands="forward")
add("scores/distance_bases", score, scores=("distance",), distance_bases=9, context=40)
add("scores/longest", score, longest=3, context=20)
add("scores/long_context", score, context=100, rope_scaling={"type": "dynamic", "factor": 2.0}, flank=1)
for strands in ("forward", "both"):
    add(f"scores/calibrated/{strands}", calibrated, strands=strands, tolerances={r"_PCT$": PERCENTAGES})


# Embeddings, tracks, mutagenesis


def embedded(inputs: Inputs, *, suffix: str = ".parquet", **settings: Any) -> Answer:
    path = inputs.output(suffix)
    report = mutbert.embed(MODEL, output=path, **settings)
    names = ("records", "bases", "layers", "differing", "not_used", "hidden_size")
    return {"report": {name: getattr(report, name) for name in names}, **embeddings_of(path)}


def embeddings_of(path: Path) -> Answer:
    """Read embeddings of either format."""
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            held = file.metadata()
            columns = {name[:-1]: json.loads(held[name]) for name in ("names", "contigs", "starts", "ends")}
            vectors = {name.replace("embeddings", "embedding"): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return {**columns, **vectors, "metadata": {name: held[name] for name in ("pooling", "layers", "strands")}}
    table = pyarrow.parquet.read_table(path)
    found: Answer = {name: table[name].to_pylist() for name in ("name", "contig", "start", "end")}
    for name in table.column_names:
        if name.startswith("embedding"):
            rows = table[name].to_pylist()
            nested = rows and rows[0] and isinstance(rows[0][0], list)
            if nested:
                found["bases"] = [len(row) for row in rows]
                rows = [vector for row in rows for vector in row]
            # Of the vectors of bases, some say whether all are right.
            found[name] = np.array(rows[:: 7 if nested else 1], dtype=np.float32)
    held = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return {**found, "metadata": {name: held[name] for name in ("pooling", "layers", "strands")}}


def embedded_table(inputs: Inputs) -> Answer:
    """Embed the sequences of a table, by the command."""
    path = inputs.output(".parquet")
    cli("embed", "--model", MODEL, "--input", inputs.table, "--sequence-column", "sequence", "-o", path)
    found = embeddings_of(path)
    found["embedding"] = found["embedding"][:12]
    return found


def tracked(inputs: Inputs, *words: Any, kinds: Sequence[str] = ("entropy",)) -> Answer:
    """Write tracks as bedGraph: every value with its place."""
    path = inputs.output(".bedgraph.gz" if "--bed" in words else ".bedgraph")
    for kind in kinds:
        words = (*words, "--track", kind)
    said = json.loads(cli("tracks", "--model", MODEL, "--genome", inputs.small, "-o", path, *words, "--json"))
    found: Answer = {"report": {name: said[name] for name in ("contigs", "bases", "unknown", "ambiguous", "differing")}}
    found["report"]["not_used"] = said["not_used"]
    for kind, name in said["outputs"].items():
        head, *lines = text_of(Path(name)).splitlines()
        rows = [line.split("\t") for line in lines]
        found[kind] = {
            "head": head,
            "contigs": {one: sum(row[0] == one for row in rows) for one in dict.fromkeys(row[0] for row in rows)},
            "start": np.array([int(row[1]) for row in rows], dtype=np.int32),
            "value": np.array([float(row[3]) for row in rows], dtype=np.float32),
        }
        assert all(int(row[2]) == int(row[1]) + 1 for row in rows), "a line is not of one base"
    return found


def mutated(inputs: Inputs, *words: Any) -> Answer:
    path = inputs.output(".parquet")
    said = json.loads(cli("mutagenesis", "--model", MODEL, "-o", path, *words, "--json"))
    names = ("region", "positions", "unknown", "ambiguous", "differing", "not_used")
    return {"report": {name: said[name] for name in names}, **columns_of(path)}


def mutated_from_python(inputs: Inputs) -> Answer:
    path = inputs.output(".parquet")
    report = mutbert.mutate_region(
        mutbert.MutBertForMaskedLM.from_pretrained(MODEL), path,
        genome=mutbert.ProbabilisticGenome.open(inputs.small), region=mutbert.Region("chr1", 239, 345),
    )  # fmt: skip
    said = {name: getattr(report, name) for name in ("positions", "unknown", "ambiguous", "differing", "not_used")}
    return {"report": {"region": str(report.region), **said}, **columns_of(path)}


fasta, mean = partial(add, run=embedded, fasta="@sequences"), "inference/embed/mean"
for pooling in ("mean", "max", "cls", "none"):
    fasta(f"inference/embed/{pooling}", pooling=pooling)
fasta(f"{mean}/batches", batch_size=2, same_as=mean)
add(f"{mean}/input", embedded, input="@sequences", same_as=mean)
fasta(f"{mean}/safetensors", suffix=".safetensors", same_as=mean)
fasta("inference/embed/layers", layers="all")
fasta("inference/embed/layers_none", layers=[0, 1], pooling="none", strands="both")
for pooling in ("mean", "max", "cls"):
    fasta(f"inference/embed/both_{pooling}", pooling=pooling, strands="both")
fasta("inference/embed/linear", rope_scaling={"type": "linear", "factor": 2.0})
add("inference/embed/table", embedded_table)
regions = partial(add, run=embedded, genome="@small", bed="@bed")
regions("inference/embed/population")
regions("inference/embed/reference", surroundings="reference", strands="both")
regions("inference/embed/person", surroundings="person", person_vcf="@person", sample="S2", layers=[1, -1])
person = ("--surroundings", "person", "--sample", "S2", "--person-vcf", "@person")
kinds = ("entropy", "reference_probability", "best_alternate_llr")
part = ("--region", "chr1:85-140", "--region", "chr1:100-150", "--region", "2:1-40")
forward = ("--surroundings", "population", "--strands", "forward")
for name, words in {
    "whole": (),
    "alone": (*part, "--mask-every", "1", "--context", "40"),
    "unmasked": (*part, "--mask-every", "0"),
    "population": ("--bed", "@bed", *forward),
}.items():
    add(f"inference/tracks/{name}", tracked, *words, kinds=kinds)
words = ("--contig", "chr2", "--mask-every", "5", "--context", "33", *person)
add("inference/tracks/person", tracked, *words, kinds=kinds[1:])
small, name = ("--genome", "@small", "--region"), "inference/mutagenesis"
add(f"{name}/reference", mutated, *small, "chr1:240-345")
add(f"{name}/reference/from_python", mutated_from_python, same_as=f"{name}/reference")
add(f"{name}/population", mutated, *small, "1:1-40", *forward, "--context", "41")
add(f"{name}/person", mutated, *small, "2:100-150", *person, "--context", "100", "--rope-scaling", "dynamic:2")
add(f"{name}/sequence", mutated, "--sequence", "@sequences", "--region", "seq8:5-60", "--context", "20")


# Training

RECIPE = """\
genome: {genome}
output: {output}
held_out: [chr2, "chr1:2001-2400"]
initial_model: {model}
seed: 3
window_length: 30
evaluation: {{windows: 24}}
training: {{max_steps: 50, per_device_train_batch_size: 8, learning_rate: 2e-3, warmup_steps: 10, eval_steps: 10,
           save_steps: 50, logging_steps: 1}}
"""
# Every recipe has other rules by which windows, targets and weights are chosen.
PRETRAINING = {
    "published": ("tempering.kind=published",),
    "uniform": (
        "masking.policy=uniform", "masking.random=0.1", "masking.keep=0.1", "reverse_complement=0.5",
        "tempering.kind=log", "weighting.variant=2.0", "weighting.soft_masked=0.25", "training.max_steps=10",
        "windows_a_step=16",
    ),
    "weighted": (
        "masking.policy=weighted", "masking.share=0.3", "frequencies=reference", "train=[22, 'chr1:1-900']",
        "training.lr_scheduler_type=cosine", "training.max_steps=10",
    ),
    "two_genomes": (
        "genome=[{whole},{small}]", "held_out=['human:chr2']", "train=['human:chr1', 'small:chr1']",
        "reverse_complement=1.0", "tempering.kind=log", "tempering.temperature=2.0", "training.max_steps=10",
        "training.gradient_accumulation_steps=2",
    ),
    "spans": ("masking.policy=spans", "masking.span_length=4", "window_length=62", "training.max_steps=10"),
}  # fmt: skip


def pretrained(inputs: Inputs, name: str, by_command: bool) -> Answer:
    """Train from the stored weights: losses, gradients' norms, held-out evaluations and the held-out table."""
    output = inputs.output("")
    text = RECIPE.format(genome=inputs.whole, output=output, model=MODEL)
    recipe = inputs.write(f"{output.name}.yaml", text)
    settings = [one.format(whole=inputs.whole, small=inputs.small) for one in PRETRAINING[name]]
    if by_command:
        cli("pretrain", recipe, *settings, "--json")
    else:
        mutbert.pretrain(recipe, settings)
    table = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return {
        "history": numbers_by_step(golden_adapters.read_history(output)),
        "windows": digest((output / "held_out_windows.tsv").read_bytes()),
        "targets": table["targets"],
        "cross_entropy": table["cross_entropy"],
        "calibration": table["calibration"],
    }


def numbers_by_step(history: Sequence[Mapping[str, float]]) -> Answer:
    """Bring what was logged into an array for each name, with the steps in front."""
    names = sorted({name for entry in history for name in entry} - {"step"})
    return {
        name: np.array([[entry["step"], entry[name]] for entry in history if name in entry], dtype=np.float64)
        for name in names
    }


def finetuned(inputs: Inputs, *words: str) -> Answer:
    """Fine-tune the stored classifier, so that fresh weights have no part in it; then predict."""
    output = inputs.output("")
    said = json.loads(
        cli(
            "finetune", f"model={inputs.classifier}", f"train={inputs.table}", f"test={inputs.table}",
            f"output={output}", "columns.name=name", "finetune.learning_rate=3e-3", "finetune.warmup_steps=2",
            "finetune.batch_size=8",
            "validation_share=0.25", "finetune.training.logging_steps=1", *words, "--json",
        )
    )  # fmt: skip
    path = inputs.output(".tsv")
    cli("predict", inputs.table, "--model", output / "model", "-o", path, "--name", "name", "--strands", "both")
    return {
        **{name: said[name] for name in ("problem", "metric", "best_step", "steps", "metrics", "interval", "splits")},
        "history": numbers_by_step(said["history"]),
        "predictions": predictions_of(golden_adapters.read_predictions(output)),
        "predicted": predictions_of(columns_of_text(path)),
    }


def columns_of_text(path: Path) -> dict[str, list[str]]:
    return pl.read_csv(path, separator="\t", infer_schema=False).to_dict(as_series=False)


def predictions_of(columns: Mapping[str, list[str]]) -> Answer:
    """Predictions: probabilities as numbers, the rest as text."""
    found: Answer = {"columns": list(columns)}
    for name, column in columns.items():
        number = name.startswith("p_")
        found[name] = np.array(column, dtype=np.float32) if number else rows_by_value(column)
    return {**found, "names": digest(" ".join(columns["name"]).encode())} if found.pop("name", None) else found


def predicted(inputs: Inputs, folder: Path, *words: Any) -> Answer:
    path = inputs.output(".tsv")
    cli("predict", inputs.sequences, "--model", folder, "-o", path, *words)
    return predictions_of(columns_of_text(path))


for name in PRETRAINING:
    add(f"training/pretrain/{name}", pretrained, name, name == "spans", tolerance=HISTORY)
add("training/finetune", finetuned)
add("training/predict/classes", predicted, "@first_token_classifier")
add("training/predict/bases", predicted, "@token_classifier", "--strands", "both")
