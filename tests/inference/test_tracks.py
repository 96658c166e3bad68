"""Tracks read back from their files, against the model run on one text at a time."""

import gzip
import json
import sys

import numpy as np
import pyarrow.parquet
import pyBigWig
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mutbert.cli import tracks as command
from mutbert.errors import InputError, MissingExtraError
from mutbert.genome.build import build_genome
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference import base_predictions
from mutbert.inference.base_predictions import BasePredictor, PredictionSettings
from mutbert.inference.mutagenesis import mutate_region
from mutbert.inference.track_files import check_tracks, open_track, track_suffix
from mutbert.inference.tracks import TRACKS, _chunks, _merged, write_tracks
from mutbert.model import MutBertForMaskedLM, MutBertTokenizer
from mutbert.regions import Region

CONTEXT = 30
# Half a context apart, with a quarter of it on either side of what is read.
STRIDE, MARGIN = 15, 7
TURN = str.maketrans("ACGTNR_", "TGCANY_")


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
    """Compute the three tracks of a contig at one position after the other; what was computed is kept."""
    tokenizer = MutBertTokenizer()
    seen = {}

    def logits(text):
        if text not in seen:
            if "R" in text or "Y" in text:
                probs = tokenizer.encode_probabilities(text.replace("_", "N"))["input_probs"]
                for place, letter in enumerate(text):
                    if letter == "_":
                        probs[0, place + 1] = torch.eye(9)[4]
                inputs = {"input_probs": probs}
            else:
                inputs = {"input_ids": tokenizer(text.replace("_", "[MASK]"), return_tensors="pt")["input_ids"]}
            with torch.no_grad():
                seen[text] = model(**inputs).logits[0, 1:-1, 5:].double().numpy()
        return seen[text]

    def one_base(name, position, every, strands):
        sequence = sequences[name]
        length = min(CONTEXT, len(sequence))
        start = position - CONTEXT // 2 if every == 1 else position // STRIDE * STRIDE - MARGIN
        start = min(max(start, 0), len(sequence) - length)
        text = ""
        for place in range(start, start + length):
            masked = place == position if every == 1 else every > 0 and place % every == position % every
            text += "_" if masked and sequence[place] != "N" else sequence[place]
        four = logits(text)[position - start]
        if strands == "both":
            four = (four + logits(text.translate(TURN)[::-1])[length - 1 - (position - start)][::-1]) / 2
        log_p = four - np.log(np.exp(four).sum())
        entropy = -(np.exp(log_p) * log_p).sum()
        if sequence[position] not in "ACGT":
            return [entropy, np.nan, np.nan]
        ref = "ACGT".index(sequence[position])
        return [entropy, np.exp(log_p[ref]), np.delete(log_p, ref).max() - log_p[ref]]

    def compute(name, every, strands):
        rows = [
            [np.nan] * 3 if letter == "N" else one_base(name, position, every, strands)
            for position, letter in enumerate(sequences[name])
        ]
        return dict(zip(TRACKS, np.array(rows).T, strict=True))

    return compute


def write(model, genome, output, **options):
    return write_tracks(
        model, genome, output, **{"settings": PredictionSettings(CONTEXT, batch_size=5), "tracks": TRACKS, **options}
    )


def values(path, sequences):
    """Read every value of a bigWig, NaN where there is none."""
    with pyBigWig.open(str(path)) as file:
        assert list(file.chroms().items()) == [(name, len(bases)) for name, bases in sequences.items()]
        return {name: np.array(file.values(name, 0, len(bases))) for name, bases in sequences.items()}


@pytest.mark.parametrize("strands", ["both", "forward"])
@pytest.mark.parametrize("every", [0, 1, 2, 8, 100])
def test_every_value_is_what_the_model_says_of_its_window(model, genome, sequences, by_hand, tmp_path, every, strands):
    settings = PredictionSettings(CONTEXT, strands, batch_size=5)
    report = write(model, genome, tmp_path / "a.bw", mask_every=every, settings=settings)
    assert (report.contigs, report.bases, report.unknown, report.ambiguous) == (5, 179, 63, 1)
    assert report.outputs == {track: tmp_path / f"a.{track}.bw" for track in TRACKS}
    assert sorted(tmp_path.iterdir()) == sorted(report.outputs.values())
    for track, path in report.outputs.items():
        for name, found in values(path, sequences).items():
            np.testing.assert_allclose(found, by_hand(name, every, strands)[track], atol=1e-5)


def test_one_base_at_a_time_is_mutagenesis(model, genome, tmp_path, sequences):
    write(model, genome, tmp_path / "a.bw", mask_every=1, tracks=["entropy"])
    mutate_region(
        model, tmp_path / "a.parquet", genome=genome, region="two", settings=PredictionSettings(CONTEXT, batch_size=5)
    )
    wanted = pyarrow.parquet.read_table(tmp_path / "a.parquet")["entropy"].to_numpy()
    np.testing.assert_allclose(values(tmp_path / "a.bw", sequences)["two"], wanted, atol=1e-6)


def lines_of(path):
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix.lower() == ".gz" else content).decode()
    assert text.endswith("\n")
    return text.splitlines()


@pytest.mark.parametrize("suffix", [".bedgraph", ".bedGraph.gz"])
def test_a_bedgraph_says_what_the_bigwig_says(model, genome, sequences, tmp_path, suffix):
    write(model, genome, tmp_path / "a.bigWig")
    report = write(model, genome, tmp_path / f"a{suffix}")
    for track, path in report.outputs.items():
        assert path.name == f"a.{track}{suffix}"
        header, *lines = lines_of(path)
        assert header == f'track type=bedGraph name="{track}"'
        from_lines = {name: np.full(len(bases), np.nan) for name, bases in sequences.items()}
        places = []
        for line in lines:
            name, start, end, value = line.split("\t")
            assert int(end) == int(start) + 1
            places.append((list(sequences).index(name), int(start)))
            from_lines[name][int(start)] = np.float32(value)
        assert places == sorted(set(places))
        for name, found in values(tmp_path / f"a.{track}.bigWig", sequences).items():
            np.testing.assert_array_equal(found, from_lines[name])


def test_regions_have_the_values_of_the_whole_and_nothing_else(model, genome, sequences, tmp_path):
    write(model, genome, tmp_path / "whole.bw")
    wanted = [("two", 0, 12), ("two", 8, 31), ("two", 31, 33), ("two", 90, 91), ("ten", 29, 30), ("one", 2, 7)]
    bed = tmp_path / "some.bed"
    bed.write_text("".join(f"{name}\t{start}\t{end}\n" for name, start, end in wanted[::-1]))
    from_bed = write(model, genome, tmp_path / "bed.bw", bed=bed)
    assert (from_bed.contigs, from_bed.bases, from_bed.unknown) == (3, 33 + 1 + 1 + 5, 3)
    texts = [f"{name}:{start + 1}-{end}" for name, start, end in wanted]
    write(model, genome, tmp_path / "regions.bw", regions=[*texts, Region("two", 8, 31)])
    for track in TRACKS:
        whole = values(tmp_path / f"whole.{track}.bw", sequences)
        for name, found in whole.items():
            inside = np.zeros(len(found), dtype=bool)
            for contig, start, end in wanted:
                if contig == name:
                    inside[start:end] = True
            expected = np.where(inside, found, np.nan)
            for kind in ("bed", "regions"):
                part = values(tmp_path / f"{kind}.{track}.bw", sequences)[name]
                np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("every", [0, 1, 4])
def test_the_size_of_chunks_and_batches_changes_nothing(model, genome, sequences, tmp_path, monkeypatch, every):
    write(model, genome, tmp_path / "one.bw", mask_every=every)
    calls = []
    predict = BasePredictor.predict
    monkeypatch.setattr(BasePredictor, "predict", lambda *given: calls.append(len(given[2])) or predict(*given))
    monkeypatch.setattr(base_predictions, "_BASES_AT_ONCE", 2 * CONTEXT * max(every, 1))
    small = PredictionSettings(CONTEXT, batch_size=3)
    write(model, genome, tmp_path / "two.bw", mask_every=every, settings=small)
    assert len(calls) >= 179 // (2 * STRIDE)
    assert max(calls) <= 2 * (1 if every == 1 else STRIDE)
    for track in TRACKS:
        one, two = (values(tmp_path / f"{name}.{track}.bw", sequences) for name in ("one", "two"))
        for name, found in one.items():
            np.testing.assert_allclose(found, two[name], atol=1e-5)


STRETCHES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 99), st.integers(1, 60)).map(
        lambda drawn: Region(f"c{drawn[0]}", drawn[1], min(drawn[1] + drawn[2], 100))
    ),
    min_size=1,
    max_size=12,
)


@given(STRETCHES, st.integers(1, 20), st.integers(1, 5))
def test_chunks_cover_every_base_once_and_no_grid_line_is_within_one(regions, stride, most):
    merged = _merged({f"c{number}": 100 for number in range(3)}, regions)
    found = []
    for chunk in _chunks(merged, stride, most):
        assert 1 <= len(chunk.begin_S) <= most
        for contig, begin, end in zip(*chunk, strict=True):
            assert begin // stride == (end - 1) // stride
            found += [(contig, place) for place in range(begin, end)]
    wanted = {(int(region.contig[1]), place) for region in regions for place in range(region.start, region.end)}
    assert found == sorted(wanted)


def test_files_take_any_values_in_any_runs(tmp_path):
    """Runs of one base, of thousands, over ends of blocks and contigs; negative, tiny and great values."""
    generator = np.random.default_rng(0)
    lengths = {f"c{number}": 40_000 for number in (3, 11, 2)} | {f"s{number}": 10 for number in range(300)}
    wanted = {name: np.full(length, np.nan, np.float32) for name, length in lengths.items()}
    for share, name in ((0.5, "c3"), (0.999, "c11"), (1.0, "c2"), (1.0, "s7"), (1.0, "s299")):
        there = generator.random(lengths[name]) < share
        wanted[name][there] = -np.exp(generator.normal(0, 8, there.sum()))
    for suffix in (".bw", ".bedgraph"):
        with open_track(tmp_path / f"x{suffix}", suffix, "x", lengths) as writer:
            for name, value in wanted.items():
                for first in range(0, len(value), 7777):
                    at = first + np.flatnonzero(~np.isnan(value[first : first + 7777]))
                    if len(at):
                        writer.add(name, at, value[at])
    with pyBigWig.open(str(tmp_path / "x.bw")) as file:
        assert list(file.chroms().items()) == list(lengths.items())
        for name, value in wanted.items():
            np.testing.assert_array_equal(file.values(name, 0, len(value)), value)
        np.testing.assert_allclose(file.stats("c2", 0, 40_000, exact=True), wanted["c2"].mean(), rtol=1e-5)
        # From the levels that a browser shows far out.
        assert file.header()["nLevels"] > 1
        np.testing.assert_allclose(file.stats("c2", 0, 40_000), wanted["c2"].mean(), rtol=0.02)
    count = 0
    for line in lines_of(tmp_path / "x.bedgraph")[1:]:
        name, start, _, value = line.split("\t")
        assert np.float32(value) == wanted[name][int(start)]
        count += 1
    assert count == sum(int((~np.isnan(value)).sum()) for value in wanted.values())


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.bw", ".bw"), ("a.b.BigWig", ".BigWig"), ("a.bedgraph.gz", ".bedgraph.gz")]
)
def test_the_suffix_is_found(tmp_path, name, suffix):
    assert track_suffix(tmp_path / name) == suffix


def test_genomes_that_a_bigwig_does_not_take(tmp_path):
    many = dict.fromkeys(map(str, range(65_536)), 1)
    check_tracks(tmp_path / "a.bedgraph", many)
    with pytest.raises(InputError, match=r"65,536 contigs, and a bigWig takes 65,535; write \.bedgraph\.gz"):
        check_tracks(tmp_path / "a.bw", many)
    with pytest.raises(InputError, match="huge has 4,294,967,296 bases"):
        check_tracks(tmp_path / "a.bw", {"huge": 1 << 32})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"output": "a.wig"}, r"one of \.bw, \.bigwig, \.bedgraph"),
        ({"output": ".bw"}, "the suffix chooses the format"),
        ({"tracks": []}, "no track is given"),
        ({"tracks": ["entropy", "depth"]}, "track is 'depth'"),
        ({"mask_every": -1}, "mask_every is -1"),
        ({"regions": ["gap"]}, "all 40 bases that are asked for are N"),
        ({"regions": ["nowhere"]}, "no such contig"),
        ({"regions": ["one"], "bed": "some.bed"}, "beside a BED file"),
        ({"surroundings": "person"}, "no sample is named"),
        ({"person_vcf": "calls.vcf"}, "person_vcf calls.vcf is given, but the surroundings are the reference"),
        ({"settings": PredictionSettings(63)}, "context: 63 bases are 65 tokens"),
        ({"settings": PredictionSettings(strands="reverse")}, "strands is 'reverse'"),
    ],
)
def test_what_cannot_be_used_is_said_and_leaves_nothing(model, genome, tmp_path, given, message):
    output = tmp_path / given.get("output", "a.bw")
    with pytest.raises(InputError, match=message):
        write(model, genome, output, **{name: value for name, value in given.items() if name != "output"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".bw", ".bedgraph.gz"])
def test_a_run_that_fails_leaves_nothing_and_keeps_what_was(model, genome, tmp_path, monkeypatch, suffix):
    there = tmp_path / f"a.entropy{suffix}"
    there.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write(model, genome, tmp_path / f"a{suffix}")
    monkeypatch.setattr(base_predictions, "_BASES_AT_ONCE", 2 * CONTEXT * 8)
    predict, calls = BasePredictor.predict, []

    def fail(*given):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("of the device")
        return predict(*given)

    monkeypatch.setattr(BasePredictor, "predict", fail)
    with pytest.raises(RuntimeError, match="of the device"):
        write(model, genome, tmp_path / f"a{suffix}", force=True)
    assert list(tmp_path.iterdir()) == [there]
    assert there.read_text() == "mine"


def test_pybigwig_that_is_missing_is_named(model, genome, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyBigWig", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mutbert\[tracks\]'"):
        write(model, genome, tmp_path / "a.bw")
    write(model, genome, tmp_path / "a.bedgraph", regions=["base"])


def test_progress_says_how_quick_it_is_and_ends_with_all(model, genome, tmp_path, capsys):
    write(model, genome, tmp_path / "a.bedgraph", progress=True)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tracks: 179 of 179 bases (100 %)")
    assert last.endswith(" bases/s")
    assert "left" not in last


def test_the_command(model_folders, genome, sequences, tmp_path):
    app = typer.Typer()
    app.command()(command.tracks)
    words = ["--model", str(model_folders["mutbert"]), "--genome", str(genome.path), "--context", str(CONTEXT)]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "a.bw"), "--region", "two:1-9", "--contig", "one"])
    assert done.exit_code == 0, done.output
    assert "entropy of 16 bases\nwithout a value, as they are N: 3\n" in done.stdout
    found = values(tmp_path / "a.bw", sequences)
    assert [int((~np.isnan(value)).sum()) for value in found.values()] == [6, 0, 7, 0, 0]
    words += ["-o", str(tmp_path / "b.bedgraph"), "--track", "entropy", "--track", "best_alternate_llr", "--json"]
    done = CliRunner().invoke(app, words)
    result = json.loads(done.stdout)
    assert result["bases"] == 179
    assert result["outputs"] == {
        track: str(tmp_path / f"b.{track}.bedgraph") for track in ("entropy", "best_alternate_llr")
    }
