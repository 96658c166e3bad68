"""The soft mask against the letters of the FASTA, one by one."""

import itertools
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet, files
from mutbert.errors import InputError
from mutbert.genome import pieces as fasta
from mutbert.genome.build import build_genome
from mutbert.genome.format import SOFT_MASK, join_runs, true_runs
from mutbert.genome.store import GenomeError, ProbabilisticGenome, StoreWriter

LETTERS = alphabet.IUPAC + alphabet.IUPAC.lower() + "Uu"
# Letters one by one, and stretches that cross lines, pieces and windows.
STRETCHES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=9), st.text("ACGTN", min_size=1, max_size=40).map(str.lower)
)
SEQUENCES = st.lists(STRETCHES | st.text("ACGTN", min_size=1, max_size=40), min_size=1, max_size=5).map("".join)


def lower(sequence):
    """What the soft mask has to be."""
    return [letter.islower() for letter in sequence]


def all_windows(sequences, length):
    return [(index, start) for index, one in enumerate(sequences) for start in range(len(one) - length + 1)]


def write_mask(folder, sequences, kind=np.asarray):
    with StoreWriter(folder) as writer:
        for index, sequence in enumerate(sequences):
            mask = kind(np.array(lower(sequence)))
            writer.add_contig(f"chr{index}", alphabet.encode(sequence), soft_mask=mask)
        writer.finish()
    return folder


@given(
    st.lists(SEQUENCES, min_size=1, max_size=4),
    st.integers(1, 70),
    st.sampled_from(["plain", "gzip", "bgzip"]),
    st.sampled_from(["\n", "\r\n"]),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.integers(1, 60),
    st.randoms(use_true_random=False),
)
def test_the_case_of_every_letter_is_kept(
    tmp_path_factory, write_fasta, sequences, width, kind, end, chunks, length, random
):
    folder = tmp_path_factory.mktemp("mask")
    contigs = {f"chr{index}": sequence for index, sequence in enumerate(sequences)}
    path = write_fasta(folder / "x.fa", contigs, width=width, kind=kind, end=end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_BLOCK_BYTES", chunks[0])
        patch.setattr(fasta, "_PIECE_BASES", chunks[1])
        genome = ProbabilisticGenome.open(build_genome(path, folder / "x.genome").path, check=True)
    assert genome.has_soft_mask == any(map(str.islower, "".join(sequences)))
    for name, sequence in contigs.items():
        start = random.randint(0, len(sequence))
        stop = random.randint(start, len(sequence))
        found = genome.soft_masked(name, start, stop)
        assert (found.dtype, found.tolist()) == (bool, lower(sequence[start:stop]))
        # The runs are the longest ones, whichever pieces they were read in.
        runs = genome.arrays["soft_mask.npy"][slice(*genome.contigs[name].soft_mask)]
        assert len(runs) == sum(key for key, _ in itertools.groupby(lower(sequence)))

    # Every window of every contig, in any order.
    wanted = all_windows(sequences, length)
    random.shuffle(wanted)
    contig_B, start_B = np.array(wanted, dtype=np.int64).reshape(-1, 2).T
    masked_BL = genome.soft_masked_windows(contig_B, start_B, length)
    assert (masked_BL.shape, masked_BL.dtype) == ((len(wanted), length), bool)
    assert masked_BL.tolist() == [lower(sequences[index][start : start + length]) for index, start in wanted]
    # The bases are the same, whatever their case.
    assert [alphabet.decode(genome.bases(name, 0, len(one))) for name, one in contigs.items()] == [
        one.upper().replace("U", "T") for one in sequences
    ]
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_workers_change_nothing(tmp_path, write_fasta, write_vcf, number):
    sequences = {"chr1": "acgtACGTacgtNNnnACGT" * 9, "chr2": "ACGTacgtA" * 20}
    records = [(name, place, "A", "C", 0.25) for name in sequences for place in (1, 5)]
    path = write_fasta(tmp_path / "x.fa", sequences)
    vcf = write_vcf(tmp_path / "x.vcf", [record for record in records if record[:2] != ("chr2", 1)])
    genome = ProbabilisticGenome.open(build_genome(path, tmp_path / "x.genome", vcf, workers=number).path)
    for name, sequence in sequences.items():
        assert genome.soft_masked(name, 0, len(sequence)).tolist() == lower(sequence)
    assert genome.variants("chr1").position.tolist() == [0, 4]


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 2**32 - 100), st.lists(st.integers(0, 60), max_size=4))
def test_runs_are_those_of_a_plain_loop(flags, start, cuts):
    expected, place = [], start
    for flag, group in itertools.groupby(flags):
        size = len(list(group))
        if flag:
            expected.append((place, size))
        place += size
    assert true_runs(np.array(flags, dtype=bool), start).tolist() == expected
    # Cut anywhere, and joined again.
    edges = [0, *sorted(min(cut, len(flags)) for cut in cuts), len(flags)]
    parts = [true_runs(np.array(flags[a:b], dtype=bool), start + a) for a, b in itertools.pairwise(edges)]
    joined = join_runs(parts, SOFT_MASK)
    assert joined.tolist() == expected
    assert joined.dtype == SOFT_MASK


@pytest.mark.parametrize("text", ["ACGTNRY", "acgtnryu"])
def test_a_fasta_of_one_case(tmp_path, write_fasta, text):
    path = write_fasta(tmp_path / "x.fa", {"chr1": text * 20, "chr2": text})
    genome = ProbabilisticGenome.open(build_genome(path, tmp_path / "x.genome").path)
    expected = [] if text.isupper() else [(0, 20 * len(text)), (0, len(text))]
    assert genome.arrays["soft_mask.npy"].tolist() == expected
    assert genome.has_soft_mask == bool(expected)
    index = np.array([1, 0, 0])
    masked_BL = genome.soft_masked_windows(index, np.array([0, 3, 130]), 7)
    assert masked_BL.tolist() == [[bool(expected)] * 7] * 3


def test_flags_and_runs_write_the_same(tmp_path):
    sequences = ["ACgtNNnn", "ACGT", "acgt"]
    contents = []
    for kind in (np.asarray, true_runs):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        contents.append((write_mask(folder, sequences, kind) / "soft_mask.npy").read_bytes())
    assert contents[0] == contents[1]
    genome = ProbabilisticGenome.open(folder)
    assert genome.arrays["soft_mask.npy"].tolist() == [(2, 2), (6, 2), (0, 4)]
    assert [contig.soft_mask for contig in genome.contigs.values()] == [(0, 2), (2, 2), (2, 3)]


def test_a_store_without_a_soft_mask_masks_nothing(tmp_path):
    with StoreWriter(tmp_path) as writer:
        writer.add_contig("chr1", alphabet.encode("ACGTACGT"))
        writer.finish()
    genome = ProbabilisticGenome.open(tmp_path, check=True)
    assert not genome.has_soft_mask
    assert genome.soft_masked("1", 2, 5).tolist() == [False] * 3
    assert genome.soft_masked_windows(np.zeros(2, dtype=int), np.array([0, 4]), 4).tolist() == [[False] * 4] * 2


def test_empty_batches_and_windows(tmp_path):
    genome = ProbabilisticGenome.open(write_mask(tmp_path, ["acGT"]))
    none = np.zeros(0, dtype=np.int64)
    assert genome.soft_masked_windows(none, none, 3).shape == (0, 3)
    assert genome.soft_masked_windows(np.zeros(2, dtype=int), np.array([1, 4]), 0).shape == (2, 0)
    assert genome.soft_masked("chr0", 1, 1).shape == (0,)


def test_regions_outside_a_contig_are_refused(tmp_path):
    genome = ProbabilisticGenome.open(write_mask(tmp_path, ["acGT"]))
    for start, end in [(-1, 2), (0, 5), (3, 2)]:
        with pytest.raises(GenomeError, match="not within"):
            genome.soft_masked("chr0", start, end)
    with pytest.raises(GenomeError, match="no contig 'chr9'"):
        genome.soft_masked("chr9", 0, 1)


def test_version_1_has_no_soft_mask(tmp_path, as_version_1):
    genome = ProbabilisticGenome.open(as_version_1(write_mask(tmp_path, ["acGT", "ACgt"])), check=True)
    assert not genome.has_soft_mask
    assert genome.soft_masked("chr1", 1, 4).tolist() == [False] * 3
    assert genome.soft_masked_windows(np.array([1, 0]), np.array([0, 1]), 3).tolist() == [[False] * 3] * 2
    assert alphabet.decode(genome.bases("chr1", 0, 4)) == "ACGT"


@pytest.mark.parametrize("fault", ["cut", "longer", "gone", "another type", "a bit"])
def test_a_damaged_soft_mask_is_refused(tmp_path, fault):
    file = write_mask(tmp_path, ["acGT", "ACgt"]) / "soft_mask.npy"
    content = file.read_bytes()
    if fault == "gone":
        file.unlink()
    else:
        changed = {
            "cut": content[:-1],
            "longer": content + b"12345678",
            "another type": content.replace(b"('start', '<u4')", b"('start', '<i4')"),
            "a bit": content[:-1] + bytes([content[-1] ^ 1]),
        }[fault]
        assert changed != content
        file.write_bytes(changed)
    with pytest.raises(InputError, match=r"soft_mask\.npy: .*; ") as refusal:
        ProbabilisticGenome.open(tmp_path, check=fault == "a bit")
    assert "\n" not in str(refusal.value)


# ---- a genome in another process


def read_all(genome):
    """Everything that reads, of every contig, as plain lists."""
    found = []
    for index, (name, length) in enumerate(genome.lengths.items()):
        windows = genome.windows(np.array([index]), np.array([0]), length)
        found += [genome.soft_masked(name, 0, length).tolist(), genome.frequencies(name, 0, length).tolist()]
        found += [part.tolist() for part in windows]
        found += [genome.soft_masked_windows(np.array([index]), np.array([0]), length).tolist()]
    return found


@pytest.fixture
def large(tmp_path, write_fasta, write_vcf):
    """A genome whose arrays are larger than what says where they are."""
    contigs = {f"chr{index}": "acgtACGTNNnn" * 2000 for index in range(1, 4)}
    vcf = write_vcf(tmp_path / "x.vcf", [("1", 12 * place + 5, "A", "C", 0.25) for place in range(2000)])
    report = build_genome(write_fasta(tmp_path / "x.fa", contigs, width=60), tmp_path / "x.genome", vcf)
    return ProbabilisticGenome.open(report.path)


def test_a_pickled_genome_is_opened_again(large):
    genome = large
    read_all(genome)  # nothing that reading makes is pickled either
    content = pickle.dumps(genome)
    assert len(content) < 2000 < genome.bytes_on_disk / 20
    again = pickle.loads(content)
    assert (again.path, again.manifest) == (genome.path, genome.manifest)
    assert read_all(again) == read_all(genome)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_all, (genome,)) == read_all(genome)


def test_a_relative_path_is_found_from_elsewhere(large, tmp_path, monkeypatch):
    monkeypatch.chdir(large.path.parent)
    content = pickle.dumps(ProbabilisticGenome.open(large.path.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_all(pickle.loads(content)) == read_all(large)


def test_a_genome_that_was_replaced_is_not_taken_for_the_same(large, tmp_path, write_fasta):
    content = pickle.dumps(large)
    build_genome(write_fasta(tmp_path / "y.fa", {"chr1": "ACGT"}), large.path, force=True)
    with pytest.raises(GenomeError, match=r"x\.genome: was replaced by another genome .*; start again"):
        pickle.loads(content)
    shutil.rmtree(large.path)
    with pytest.raises(GenomeError, match="no such genome store"):
        pickle.loads(content)
