"""Tracks and mutagenesis, read back from their files, against the model run on one window at a time."""

import re

import numpy as np
import polars as pl
import pyarrow.parquet
import pyBigWig
import pytest
import torch

import mutbert
from mutbert import MutBertForMaskedLM, ProbabilisticGenome, Region, alphabet, build_genome, mutate_region, write_tracks
from mutbert.errors import InputError
from mutbert.inference.bases import TRACKS, PredictionSettings

CONTEXT = 30
# Half a context apart, with a quarter of it on either side of what is read.
STRIDE, MARGIN = 15, 7
SETTINGS = PredictionSettings(CONTEXT, batch_size=5)
CLOSE = {"atol": 1e-5}


@pytest.fixture(scope="module")
def sequences():
    """In an order that is not that of their names: with N inside and at an end, shorter than a context, and N alone."""
    generator = np.random.default_rng(4)
    two = "".join(generator.choice(list("ACGT"), 101))
    return {
        "two": "NNN" + two[3:40] + "N" * 20 + two[60:80] + "R" + two[81:],
        "ten": "".join(generator.choice(list("ACGT"), 30)),
        "one": "GATTACA",
        "gap": "N" * 40,
        "base": "C",
    }


@pytest.fixture(scope="module")
def genome(tmp_path_factory, sequences):
    folder = tmp_path_factory.mktemp("genome")
    (folder / "ref.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in sequences.items()))
    build_genome(folder / "ref.fa", folder / "a.genome")
    return ProbabilisticGenome.open(folder / "a.genome")


@pytest.fixture(scope="module")
def model(model_folders):
    return MutBertForMaskedLM.from_pretrained(model_folders["mutbert"]).eval()


@pytest.fixture(scope="module")
def by_hand(model, sequences):
    """Return ln P of A, C, G, T at a base, given how many are masked at once; what was computed is kept."""
    seen = {}

    def logits(probs_LV):
        key = probs_LV.tobytes()
        if key not in seen:
            framed = np.eye(9, dtype=np.float32)[[1, *[0] * len(probs_LV), 2]]
            framed[1:-1] = probs_LV
            with torch.no_grad():
                seen[key] = model(input_probs=torch.from_numpy(framed)[None]).logits[0, 1:-1, 5:].double().numpy()
        return seen[key]

    def compute(name, position, every, strands="both"):
        sequence = sequences[name]
        length = min(CONTEXT, len(sequence))
        start = position - CONTEXT // 2 if every == 1 else position // STRIDE * STRIDE - MARGIN
        start = min(max(start, 0), len(sequence) - length)
        probs = alphabet.TOKEN_PROBABILITIES[alphabet.encode(sequence)].copy()
        for at in range(start, start + length):
            masked = at == position if every == 1 else every > 0 and at % every == position % every
            if masked and sequence[at] != "N":
                probs[at] = np.eye(9)[4]
        window, at = probs[start : start + length], position - start
        four = logits(window)[at]
        if strands == "both":
            four = (four + logits(window[::-1][:, alphabet.COMPLEMENT_OF_ID])[length - 1 - at][::-1]) / 2
        return four - np.log(np.exp(four).sum())

    return compute


def tracks_of(log_p, letter):
    """The three tracks at a base."""
    entropy = -(np.exp(log_p) * log_p).sum()
    if letter not in "ACGT":
        return [entropy, np.nan, np.nan]
    ref = "ACGT".index(letter)
    return [entropy, np.exp(log_p[ref]), np.delete(log_p, ref).max() - log_p[ref]]


def write(model, genome, output, **options):
    return write_tracks(model, genome, output, **{"settings": SETTINGS, "tracks": TRACKS, **options})


def values(path, sequences):
    """Every value of a bigWig, NaN where there is none."""
    with pyBigWig.open(str(path)) as file:
        assert list(file.chroms().items()) == [(name, len(bases)) for name, bases in sequences.items()]
        return {name: np.array(file.values(name, 0, len(bases))) for name, bases in sequences.items()}


def mutate(model, output, **given):
    return mutate_region(model, output, **{"settings": SETTINGS, **given})


@pytest.mark.parametrize("strands", ["both", "forward"])
@pytest.mark.parametrize("every", [0, 1, 8, 100])
def test_every_value_of_tracks(model, genome, sequences, by_hand, tmp_path, every, strands):
    """Whatever the sizes of batches and of what is held at once."""
    at_once = PredictionSettings(CONTEXT, strands, batch_size=3, bases_at_once=2 * CONTEXT * max(every, 1))
    for settings in (PredictionSettings(CONTEXT, strands), at_once):
        report = write(model, genome, tmp_path / "a.bw", mask_every=every, settings=settings, force=True)
        assert (report["contigs"], report["bases"], report["unknown"], report["ambiguous"]) == (5, 179, 63, 1)
        assert report["outputs"] == {track: tmp_path / f"a.{track}.bw" for track in TRACKS}
        assert sorted(tmp_path.iterdir()) == sorted(report["outputs"].values())
        found = {track: values(path, sequences) for track, path in report["outputs"].items()}
        for name, bases in sequences.items():
            wanted = [
                [np.nan] * 3 if letter == "N" else tracks_of(by_hand(name, position, every, strands), letter)
                for position, letter in enumerate(bases)
            ]
            np.testing.assert_allclose(np.array([found[track][name] for track in TRACKS]).T, wanted, **CLOSE)


def test_regions_have_the_values_of_the_whole_and_nothing_else(model, genome, sequences, tmp_path):
    write(model, genome, tmp_path / "whole.bw")
    wanted = [("two", 0, 12), ("two", 8, 31), ("two", 31, 33), ("two", 90, 91), ("ten", 29, 30), ("one", 2, 7)]
    bed = tmp_path / "some.bed"
    bed.write_text("".join(f"{name}\t{start}\t{end}\n" for name, start, end in wanted[::-1]))
    from_bed = write(model, genome, tmp_path / "bed.bw", bed=bed)
    assert (from_bed["contigs"], from_bed["bases"], from_bed["unknown"]) == (3, 33 + 1 + 1 + 5, 3)
    texts = [f"{name}:{start + 1}-{end}" for name, start, end in wanted]
    write(model, genome, tmp_path / "regions.bw", regions=[*texts, Region("two", 8, 31)])
    for track in TRACKS:
        for name, found in values(tmp_path / f"whole.{track}.bw", sequences).items():
            spans = [(start, end) for contig, start, end in wanted if contig == name]
            inside = [any(start <= at < end for start, end in spans) for at in range(len(found))]
            for kind in ("bed", "regions"):
                part = values(tmp_path / f"{kind}.{track}.bw", sequences)[name]
                np.testing.assert_allclose(part, np.where(inside, found, np.nan), **CLOSE)


def assert_rows(path, name, sequences, by_hand, strands):
    """Every row of mutagenesis is the model's answer for its window."""
    table = pl.read_parquet(path)
    assert set(table["chrom"]) == {name}
    for row in table.iter_rows(named=True):
        position = row["pos"] - 1
        assert row["ref"] == sequences[name][position]
        llr, probability = (np.array([row[f"{kind}_{base}"] for base in "ACGT"]) for kind in ("llr", "probability"))
        if row["ref"] == "N":
            assert np.isnan([*llr, *probability, row["entropy"]]).all()
            continue
        log_p = by_hand(name, position, 1, strands)
        np.testing.assert_allclose(probability, np.exp(log_p), **CLOSE)
        np.testing.assert_allclose(row["entropy"], tracks_of(log_p, "N")[0], **CLOSE)
        known = row["ref"] in "ACGT"
        ref = log_p["ACGT".index(row["ref"])] if known else np.nan
        np.testing.assert_allclose(llr, log_p - ref, **CLOSE)
    return (table["pos"] - 1).to_list()


@pytest.mark.parametrize("strands", ["both", "forward"])
def test_every_position_of_mutagenesis(model, genome, sequences, by_hand, tmp_path, strands):
    settings = PredictionSettings(CONTEXT, strands, batch_size=7, bases_at_once=11 * CONTEXT)
    report = mutate(model, tmp_path / "out.parquet", genome=genome, region="two", settings=settings)
    assert (report["positions"], report["unknown"], report["ambiguous"]) == (101, 23, 1)
    assert assert_rows(report["output"], "two", sequences, by_hand, strands) == list(range(101))
    held = pyarrow.parquet.read_schema(report["output"]).metadata
    assert (held[b"surroundings"], held[b"context"], held[b"strands"]) == (b"reference", b"30", strands.encode())
    short = mutate(model, tmp_path / "short.parquet", genome=genome, region="one:2-7", settings=settings)
    assert assert_rows(short["output"], "one", sequences, by_hand, strands) == [1, 2, 3, 4, 5, 6]


REFUSED = [
    ("tracks", {"output": "a.wig"}, r"one of \.bedgraph.gz, \.bedgraph, \.bw, \.bigwig"),
    ("tracks", {"tracks": ["entropy", "depth"]}, "tracks are entropy, depth; give some of"),
    ("tracks", {"regions": ["gap"]}, "all 40 bases that are asked for are N"),
    ("tracks", {"regions": ["one"], "bed": "some.bed"}, "as well as a BED file"),
    ("mutate", {"output": "out.tsv"}, r"ends in \.parquet"),
    ("mutate", {"region": None}, "no region is given"),
    ("mutate", {"region": "four"}, "no such contig"),
    ("mutate", {"fasta": "also.fa"}, r"give either .* or a FASTA \(--fasta\)"),
    ("mutate", {"fasta": "also.fa", "genome": None, "surroundings": "population"}, "a sequence has no population"),
    ("mutate", {"region": "two:45-50"}, "two:45-50: all 6 bases are N"),
    ("mutate", {"settings": PredictionSettings(strands="reverse")}, "strands is 'reverse'"),
    ("mutate", {"settings": PredictionSettings(0)}, "context is 0; it must be at least 1"),
    ("mutate", {"settings": PredictionSettings(63)}, "context: 63 bases are 65 tokens .*--rope-scaling dynamic:2"),
]


@pytest.mark.parametrize(("verb", "given", "message"), REFUSED)
def test_what_cannot_be_used_leaves_nothing(model, genome, tmp_path, verb, given, message):
    call, name = (write, "a.bw") if verb == "tracks" else (mutate, "out.parquet")
    given = {"genome": genome, "output": name, **({"region": "two"} if verb == "mutate" else {}), **given}
    with pytest.raises(InputError, match=message):
        call(model, **{**given, "output": tmp_path / given["output"]})
    assert list(tmp_path.iterdir()) == []


def test_the_work_is_shown_before_and_counted_in_what_takes_time(model, model_folders, genome, tmp_path, capfd):
    """Of 179 bases 63 are N, which no model is run for."""
    write(model, genome, tmp_path / "a.bw", progress=True)
    mutate(model, tmp_path / "a.parquet", genome=genome, region="two", progress=True)
    (tmp_path / "x.fa").write_text(f">a\n{'ACGT' * 25}\n>b\nACGT\n")
    mutbert.embed(
        model_folders["mutbert"], fasta=tmp_path / "x.fa", output=tmp_path / "x.npy", long="window", progress=True
    )
    said = capfd.readouterr().err
    shown = dict(re.findall(r"(\w+: \d+) of (\d+) (?:bases|positions|sequences)", said))
    assert shown == {"tracks: 116": "116", "mutagenesis: 78": "78", "embedding: 3": "3"}
    assert "tracks: 116 bases, about 64 windows\n" in said
    assert "embedding: 2 sequences, 3 windows, 104 bases\n" in said
