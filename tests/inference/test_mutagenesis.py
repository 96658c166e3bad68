"""Every substitution against the model run on one text at a time."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
import typer
from typer.testing import CliRunner

from mutbert.cli import mutagenesis as command
from mutbert.cli.main import app
from mutbert.errors import InputError, MissingExtraError
from mutbert.genome.build import build_genome
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference import base_predictions, mutagenesis
from mutbert.inference.base_predictions import PredictionSettings
from mutbert.inference.mutagenesis import mutate_region
from mutbert.model import MutBertForMaskedLM, MutBertTokenizer

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAMPLE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CONTEXT = 30
TURN = str.maketrans("ACGTNRY_", "TGCANYR_")
VCF = """##fileformat=VCFv4.2
##contig=<ID=one>
##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""


@pytest.fixture(scope="module")
def sequences():
    generator = np.random.default_rng(3)
    one = "".join(generator.choice(list("ACGT"), 150))
    return {"one": one[:60] + "N" * 10 + one[70:90] + "R" + one[91:], "tiny": "GATTACANG"}


@pytest.fixture(scope="module")
def genome(tmp_path_factory, sequences):
    folder = tmp_path_factory.mktemp("genome")
    (folder / "ref.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in sequences.items()))
    ref = sequences["one"][20]
    alt = "ACGT"[("ACGT".index(ref) + 1) % 4]
    (folder / "calls.vcf").write_text(f"{VCF}one\t21\t.\t{ref}\t{alt}\t.\tPASS\tAF=0.25\n")
    build_genome(folder / "ref.fa", folder / "a.genome", vcf=folder / "calls.vcf")
    return ProbabilisticGenome.open(folder / "a.genome")


@pytest.fixture(scope="module")
def model(model_folders):
    return MutBertForMaskedLM.from_pretrained(model_folders["mutbert"]).eval()


def forward(model, text, at, distributions=()):
    """Run the model on one text, _ being the mask; gives the logits of A, C, G, T at one base."""
    tokenizer = MutBertTokenizer()
    if set(text) <= set("ACGTN_") and not distributions:
        ids = tokenizer(text.replace("_", "[MASK]"), return_tensors="pt")["input_ids"]
        assert ids.shape == (1, len(text) + 2)
        inputs = {"input_ids": ids}
    else:
        probs = tokenizer.encode_probabilities(text.replace("_", "N"))["input_probs"]
        for place, letter in enumerate(text):
            if letter == "_":
                probs[0, place + 1] = torch.eye(9)[4]
        for place, four in distributions:
            probs[0, place + 1] = torch.tensor([0, 0, 0, 0, 0, *four])
        inputs = {"input_probs": probs}
    with torch.no_grad():
        return model(**inputs).logits[0, at + 1, 5:].numpy().astype(np.float64)


def turned(text):
    return text.translate(TURN)[::-1]


def by_hand(model, text, at, strands="both", distributions=()):
    """Give the log-probabilities of A, C, G, T at one base of a text, over the two strands."""
    logits = forward(model, text, at, distributions)
    if strands == "both":
        last = len(text) - 1
        other = [(last - place, four[::-1]) for place, four in distributions]
        logits = (logits + forward(model, turned(text), last - at, other)[::-1]) / 2
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def centred(sequence, position, context=CONTEXT):
    """Give the window of a position and its place in it, with the position masked."""
    length = min(context, len(sequence))
    start = min(max(position - context // 2, 0), len(sequence) - length)
    masked = sequence[:position] + "_" + sequence[position + 1 :]
    return masked[start : start + length], position - start


def read(path):
    return pyarrow.parquet.read_table(path).to_pylist()


def values(row, kind):
    return np.array([row[f"{kind}_{base}"] for base in "ACGT"])


def mutate(model, output, settings=None, **given):
    return mutate_region(model, output, settings=settings or PredictionSettings(CONTEXT, batch_size=7), **given)


def assert_row(row, log_p):
    np.testing.assert_allclose(values(row, "probability"), np.exp(log_p), atol=1e-5)
    np.testing.assert_allclose(row["entropy"], -(np.exp(log_p) * log_p).sum(), atol=1e-5)
    if row["reference"] in "ACGT":
        np.testing.assert_allclose(values(row, "llr"), log_p - log_p["ACGT".index(row["reference"])], atol=1e-5)
        assert row[f"llr_{row['reference']}"] == 0


@pytest.mark.parametrize("strands", ["both", "forward"])
def test_every_position_is_what_the_model_says_of_its_window(model, genome, sequences, tmp_path, strands):
    settings = PredictionSettings(CONTEXT, strands, batch_size=7)
    report = mutate(model, tmp_path / "out.parquet", settings, genome=genome, region="one")
    assert (report.positions, report.unknown, report.ambiguous) == (150, 10, 1)
    rows = read(tmp_path / "out.parquet")
    assert [row["start"] for row in rows] == list(range(150))
    assert "".join(row["reference"] for row in rows) == sequences["one"]
    for position, row in enumerate(rows):
        assert row["contig"] == "one"
        if row["reference"] == "N":
            assert np.isnan([*values(row, "llr"), *values(row, "probability"), row["entropy"]]).all()
        else:
            text, at = centred(sequences["one"], position)
            assert_row(row, by_hand(model, text, at, strands))
            if row["reference"] == "R":
                assert np.isnan(values(row, "llr")).all()


def test_a_contig_shorter_than_the_context(model, genome, sequences, tmp_path):
    mutate(model, tmp_path / "out.parquet", genome=genome, region="tiny:2-7")
    rows = read(tmp_path / "out.parquet")
    assert [row["start"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert_row(row, by_hand(model, *centred(sequences["tiny"], row["start"])))


def test_the_population_stands_around_a_position_but_not_at_it(model, genome, sequences, tmp_path):
    mutate(model, tmp_path / "out.parquet", genome=genome, region="one:19-30", surroundings="population")
    ref = "ACGT".index(sequences["one"][20])
    four = np.zeros(4)
    four[[ref, (ref + 1) % 4]] = 0.75, 0.25
    for row in read(tmp_path / "out.parquet"):
        text, at = centred(sequences["one"], row["start"])
        varies = [] if row["start"] == 20 else [(at + 20 - row["start"], four.tolist())]
        # Frequencies are kept in units of 1/65535.
        assert_row(row, by_hand(model, text, at, "both", varies))


def test_one_person_stands_around_a_position(model, genome, sequences, tmp_path):
    bases = sequences["one"]
    others = {at: "ACGT"[("ACGT".index(bases[at]) + 2) % 4] for at in (20, 26)}
    (tmp_path / "calls.vcf").write_text(
        VCF.replace("INFO\n", "INFO\tFORMAT\tme\n").replace(
            "##INFO", '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n##INFO'
        )
        + f"one\t21\t.\t{bases[20]}\t{others[20]}\t.\tPASS\t.\tGT\t1|1\n"
        + f"one\t24\t.\t{bases[23]}\t{bases[23]}A\t.\tPASS\t.\tGT\t0|1\n"
        + f"one\t27\t.\t{bases[26]}\t{others[26]}\t.\tPASS\t.\tGT\t0|1\n"
    )
    report = mutate(
        model,
        tmp_path / "out.parquet",
        genome=genome,
        region="one:19-30",
        surroundings="person",
        person_vcf=tmp_path / "calls.vcf",
        sample="me",
    )
    assert report.not_used == {"insertion or deletion": 1}
    # The windows are 30 bases and reach from 4 to 44.
    assert report.differing == 2
    made = pyarrow.parquet.read_schema(tmp_path / "out.parquet").metadata
    assert {made[name] for name in (b"surroundings", b"sample", b"context")} == {b"person", b"me", b"30"}
    half = [0.5 * (base in (bases[26], others[26])) for base in "ACGT"]
    for row in read(tmp_path / "out.parquet"):
        # What the position is compared with stays the reference.
        assert row["reference"] == bases[row["start"]]
        text, at = centred(bases[:20] + others[20] + bases[21:], row["start"])
        assert_row(
            row, by_hand(model, text, at, "both", [] if row["start"] == 26 else [(at + 26 - row["start"], half)])
        )


def test_the_size_of_chunks_and_batches_changes_nothing(model, genome, tmp_path, monkeypatch):
    mutate(model, tmp_path / "one.parquet", genome=genome, region="one")
    monkeypatch.setattr(base_predictions, "_BASES_AT_ONCE", 11 * CONTEXT)
    mutate(model, tmp_path / "two.parquet", PredictionSettings(CONTEXT, batch_size=3), genome=genome, region="one")
    assert pyarrow.parquet.ParquetFile(tmp_path / "two.parquet").num_row_groups == 14
    one, two = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    for name in one.column_names[3:]:
        np.testing.assert_allclose(one[name].to_numpy(), two[name].to_numpy(), atol=1e-5)


def test_a_designed_sequence_is_as_a_genome_of_it(model, genome, sequences, tmp_path):
    fasta = tmp_path / "designed.fa"
    fasta.write_text(f">other\nACGT\n>one of mine\n{sequences['one'].lower()}\n")
    mutate(model, tmp_path / "genome.parquet", genome=genome, region="one:50-100")
    report = mutate(model, tmp_path / "fasta.parquet", sequence=fasta, region="one:50-100")
    assert str(report.region) == "one:50-100"
    one, two = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("genome", "fasta"))
    for name in one.column_names[3:]:
        np.testing.assert_array_equal(one[name].to_numpy(), two[name].to_numpy())
    with pytest.raises(InputError, match="holds 2 sequences; name one with --region"):
        mutate(model, tmp_path / "no.parquet", sequence=fasta)
    with pytest.raises(InputError, match="no population"):
        mutate(model, tmp_path / "no.parquet", sequence=fasta, region="one", surroundings="population")
    with pytest.raises(InputError, match="no persons"):
        mutate(model, tmp_path / "no.parquet", sequence=fasta, region="one", person_vcf=tmp_path / "calls.vcf")
    fasta.write_text(">alone\nNNNN\n")
    with pytest.raises(InputError, match="all 4 bases are N"):
        mutate(model, tmp_path / "no.parquet", sequence=fasta)
    fasta.write_text(">alone\nGATTACA\n")
    assert mutate(model, tmp_path / "alone.parquet", sequence=fasta).positions == 7


def test_a_longer_context_needs_scaling_and_the_model_is_left_as_it_was(model_folders, genome, tmp_path):
    model = MutBertForMaskedLM.from_pretrained(model_folders["mutbert"]).train()
    before = model.config.rope_scaling
    with pytest.raises(InputError, match=r"context: 100 bases are 102 tokens.*--rope-scaling dynamic:2"):
        mutate(model, tmp_path / "out.parquet", PredictionSettings(100), genome=genome, region="one:3")
    settings = PredictionSettings(100, rope_scaling={"type": "dynamic", "factor": 2})
    mutate(model, tmp_path / "out.parquet", settings, genome=genome, region="one:3")
    assert model.training
    assert model.config.rope_scaling == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"output": "out.tsv"}, r"ends in \.parquet"),
        ({"region": None}, "no region is given"),
        ({"region": "one:140-160"}, "not within one:1-150"),
        ({"region": "four"}, "no such contig"),
        ({"genome": None}, r"nothing to mutate is given; give either a genome \(--genome\)"),
        ({"sequence": "also.fa"}, "both a genome and a sequence are given"),
        ({"region": "one:62-69"}, "one:62-69: all 8 bases are N, so that there is nothing to mutate"),
        ({"surroundings": "nobody"}, "surroundings is 'nobody'"),
        ({"person_vcf": "calls.vcf"}, "person_vcf calls.vcf is given, but the surroundings are the reference"),
        ({"settings": PredictionSettings(strands="reverse")}, "strands is 'reverse'"),
        ({"settings": PredictionSettings(precision="fp8")}, "precision is 'fp8'"),
        ({"settings": PredictionSettings(batch_size=0)}, "batch_size is 0"),
        ({"settings": PredictionSettings(context=0)}, "context is 0"),
    ],
)
def test_what_cannot_be_used_is_said_and_leaves_nothing(model, genome, tmp_path, given, message):
    given = {"genome": genome, "region": "one", **given}
    output = tmp_path / given.pop("output", "out.parquet")
    with pytest.raises(InputError, match=message):
        mutate(model, output, **given)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept(model, genome, tmp_path):
    output = tmp_path / "out.parquet"
    output.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        mutate(model, output, genome=genome, region="one:1-5")
    assert output.read_text() == "mine"
    mutate(model, output, genome=genome, region="one:1-5", force=True)
    assert len(read(output)) == 5


def test_pyarrow_that_is_missing_is_named(model, genome, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match="pyarrow"):
        mutate(model, tmp_path / "out.parquet", genome=genome, region="one")


def test_the_command(model_folders, genome, tmp_path):
    alone = typer.Typer()
    alone.command()(command.mutagenesis)
    words = ["--model", str(model_folders["mutbert"]), "--genome", str(genome.path), "--region", "one:55-95"]
    words += ["-o", str(tmp_path / "out.parquet"), "--context", str(CONTEXT)]
    words += ["--figure", str(tmp_path / "out.svg"), "--figure", str(tmp_path / "out.png")]
    done = CliRunner().invoke(alone, words)
    assert done.exit_code == 0, done.output
    assert "one:55-95, 41 positions\nwithout values, as they are N: 10" in done.stdout
    assert "as they are another IUPAC code: 1" in done.stdout
    assert "<svg" in (tmp_path / "out.svg").read_text()
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(alone, [*words, "--force", "--json"])
    result = json.loads(done.stdout)
    assert (result["region"], result["positions"], result["unknown"]) == ("one:55-95", 41, 10)
    # A figure that cannot be written is refused before the model runs.
    done = CliRunner().invoke(alone, [*words, "--force", "--figure", str(tmp_path / "out.pdf")])
    assert isinstance(done.exception, InputError)
    assert "out.pdf" in str(done.exception)


@pytest.mark.parametrize("page", ["mutagenesis.md", "tracks.md"])
def test_samples_of_the_pages_run(model_folders, tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(model_folders["mutbert"])
    (tmp_path / "chr22.fa").write_text(">chr22\n" + "ACGTTGCAAT" * 40 + "\n")
    (tmp_path / "designed.fa").write_text(">mine\nGATTACAGATTACA\n")
    (tmp_path / "regions.bed").write_text("chr22\t0\t20\n22\t10\t30\n")
    build_genome(tmp_path / "chr22.fa", tmp_path / "population.genome")
    samples = SAMPLE.findall((DOCS / page).read_text(encoding="utf-8"))
    assert samples
    namespace = {}
    for language, sample in samples:
        if language == "python":
            exec(compile(sample, page, "exec"), namespace)
        else:
            program, *words = shlex.split(sample)
            assert program == "mutbert"
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output


def test_of_very_many_positions_what_is_quicker_is_named(model, genome, tmp_path, monkeypatch, capsys):
    mutate(model, tmp_path / "a.parquet", genome=genome, region="one:1-20", progress=True)
    assert "mutbert tracks" not in capsys.readouterr().err
    monkeypatch.setattr(mutagenesis, "_MANY", 19)
    settings = PredictionSettings(60)
    mutate(model, tmp_path / "b.parquet", settings, genome=genome, region="one:1-20", progress=True)
    first = capsys.readouterr().err.splitlines()[0]
    # Windows of 60 bases lie 30 apart, with 8 passes each.
    assert first.startswith("one:1-20: 20 positions, with a forward pass each for every strand")
    assert first.endswith("'mutbert tracks' takes a forward pass for 3")
    mutate(model, tmp_path / "c.parquet", genome=genome, region="one:1-20")
    assert capsys.readouterr().err == ""
