"""What alleles change against haplotypes written out as text, and scores against the model run on one text each."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mutbert import ProbabilisticGenome, alphabet, score_alleles, score_variants
from mutbert.effects.alleles import Kind, Reason, find_alleles
from mutbert.effects.scores import ScoreSettings, open_scorer
from mutbert.errors import InputError
from mutbert.genome.build import build_genome
from mutbert.model import MutBertForMaskedLM, MutBertTokenizer

CONTEXT = 30
TURN = str.maketrans("ACGTRYMK_", "TGCAYRKM_")


SEQUENCES = {"chr1": "ACGTTTTGCANNNACRTACGGATTACACCAGATTTAC", "2": "GATTACA"}


@pytest.fixture(scope="module")
def sequences():
    generator = np.random.default_rng(5)
    one = "".join(generator.choice(list("ACGT"), 400))
    one = one[:120] + "N" * 20 + one[140:200] + "R" + one[201:]
    return {"one": one, "two": "".join(generator.choice(list("ACGT"), 100)), "tiny": "GATTACAGATTACAT"}


@pytest.fixture(scope="module")
def genome(tmp_path_factory, write_genome, sequences):
    return ProbabilisticGenome.open(write_genome(tmp_path_factory.mktemp("a") / "a.genome", sequences))


@pytest.fixture(scope="module")
def model(model_folders):
    return MutBertForMaskedLM.from_pretrained(model_folders["mutbert"])


def scorer(model, genome, **settings):
    return open_scorer(model, genome, settings=ScoreSettings(**{"context": CONTEXT, **settings}))


def forward(model, text):
    """Run the model on one text, _ being the mask; gives states and logits of its bases."""
    probs = MutBertTokenizer().encode_probabilities(text.replace("_", "N"))["input_probs"]
    for at, letter in enumerate(text):
        if letter == "_":
            probs[0, at + 1] = torch.nn.functional.one_hot(torch.tensor(alphabet.MASK_ID), 9)
    model.eval()
    with torch.no_grad():
        outputs = model(input_probs=probs, output_hidden_states=True)
    return outputs.hidden_states[-1][0, 1:-1].numpy(), outputs.logits[0, 1:-1, 5:].numpy()


def on_both(model, text, strands):
    states, logits = forward(model, text)
    if strands == "forward":
        return states, logits
    other_states, other_logits = forward(model, text.translate(TURN)[::-1])
    return (states + other_states[::-1]) / 2, (logits + other_logits[::-1, ::-1]) / 2


def window_of(sequence, centre, context=CONTEXT):
    length = min(context, len(sequence))
    start = min(max(centre - context // 2, 0), len(sequence) - length)
    return start, sequence[start : start + length]


def edit(text, at, letter):
    return text[:at] + letter + text[at + 1 :]


def log_softmax(row):
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def random_snvs(sequences, count, seed=1):
    generator = np.random.default_rng(seed)
    records = []
    while len(records) < count:
        name = str(generator.choice(["one", "one", "two", "tiny"]))
        at = int(generator.integers(len(sequences[name])))
        ref = sequences[name][at]
        if ref in "ACGT":
            records.append((name, at, ref, str(generator.choice([base for base in "ACGT" if base != ref]))))
    return records


def scored(one, records):
    """Give alleles and scores of (contig, 0-based position, REF, ALT)."""
    contigs, positions, references, alternates = zip(*records, strict=True)
    alleles = one.find(contigs, [at + 1 for at in positions], references, alternates)
    return alleles, dict(zip(one.fields, one.score(alleles).T, strict=True))


def test_the_ratio_of_200_snvs_is_that_of_one_forward_each(model, genome, sequences):
    records = random_snvs(sequences, 200)
    for strands in ("forward", "both"):
        _, found = scored(scorer(model, genome, strands=strands, scores=("llr", "unmasked")), records)
        for row, (name, at, ref, alt) in enumerate(records):
            start, text = window_of(sequences[name], at)
            for field, shown in (("LLR", edit(text, at - start, "_")), ("ULLR", text))[: 1 + (row < 50)]:
                values = on_both(model, shown, strands)[1][at - start]
                expected = values["ACGT".index(alt)] - values["ACGT".index(ref)]
                assert found[field][row] == pytest.approx(expected, abs=1e-5), (field, records[row])
                if field == "LLR":
                    logs = log_softmax(values)
                    assert found["ENT"][row] == pytest.approx(-(np.exp(logs) * logs).sum(), abs=1e-5)
        assert np.isnan(found["PLLR"]).all()


# Contig, 0-based begin, bases that go, and what comes: None for the complement of each.
OTHERS = [
    ("one", 50, 3, None),
    ("one", 50, 1, "ACCGT"),
    ("one", 51, 4, ""),
    ("one", 0, 1, "GG"),
    ("one", 399, 1, "CAT"),
    ("one", 396, 3, ""),
    ("one", 116, 2, None),
    ("two", 97, 2, "AAAA"),
    ("tiny", 5, 2, "CCC"),
    ("tiny", 0, 3, ""),
]


@pytest.mark.parametrize("strands", ["forward", "both"])
def test_indels_and_mnvs_are_summed_base_by_base(model, genome, sequences, strands):
    """Both haplotypes are built as whole contigs of text, and cut where the formula says."""
    flank = 4
    records = []
    for name, at, length, text in OTHERS:
        before = sequences[name][at : at + length]
        text = before.translate(TURN) if text is None else text
        # VCF has a base in front of what is inserted or deleted, or behind it at a contig's begin.
        if text:
            records.append((name, at, before, text))
        elif at:
            records.append((name, at - 1, sequences[name][at - 1] + before, sequences[name][at - 1]))
        else:
            records.append((name, at, before + sequences[name][length], sequences[name][length]))
    alleles, scores = scored(scorer(model, genome, strands=strands, flank=flank, scores=("llr", "distance")), records)
    assert (alleles.reason_A == Reason.SCORED).all()
    assert set(alleles.kind_A) == {Kind.MNV, Kind.INDEL}
    for row in range(len(records)):
        sequence = sequences[records[row][0]]
        start, end, text = int(alleles.start_A[row]), int(alleles.end_A[row]), alleles.inserted[row]
        own = sequence[:start] + text + sequence[end:]
        totals, states = [], []
        for haplotype, stop, centre in (
            (sequence, end, (start + end) // 2),
            (own, start + len(text), start + len(text) // 2),
        ):
            first, window = window_of(haplotype, centre)
            total = 0.0
            for at in range(max(start - flank, 0), min(stop + flank, len(haplotype))):
                if haplotype[at] in "ACGT":
                    _, logits = on_both(model, edit(window, at - first, "_"), strands)
                    total += log_softmax(logits[at - first])["ACGT".index(haplotype[at])] + np.log(4)
            totals.append(total)
            state = on_both(model, window, strands)[0].astype(np.float64)
            near = slice(max(start - 1, 0) - first, min(stop + 1, len(haplotype)) - first)
            states.append((state[near].mean(axis=0), state.mean(axis=0)))
        assert scores["PLLR"][row] == pytest.approx(totals[1] - totals[0], abs=2e-5), records[row]
        assert scores["L2"][row] == pytest.approx(np.linalg.norm(states[0][0] - states[1][0]), abs=1e-5)
        assert scores["L2_WINDOW"][row] == pytest.approx(np.linalg.norm(states[0][1] - states[1][1]), abs=1e-5)
    assert np.isnan(scores["LLR"]).all()


@pytest.mark.parametrize("windows", ["centred", "shared"])
def test_alleles_in_memory_have_the_scores_of_a_vcf(model, genome, sequences, tmp_path, windows):
    records = [(name, at + 1, ref, alt) for name, at, ref, alt in random_snvs(sequences, 30)]
    records = sorted(
        [*records, ("two", 50, sequences["two"][49:52], f"{sequences['two'][49]},<DEL>"), ("x", 1, "A", "C")]
    )
    header = "".join(f"##contig=<ID={name}>\n" for name in sorted([*sequences, "x"]))
    lines = "".join(f"{c}\t{at}\t.\t{ref}\t{alt}\t.\t.\t.\n" for c, at, ref, alt in records)
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "a.vcf").write_text(f"##fileformat=VCFv4.2\n{header}{columns}{lines}")
    how = {"context": CONTEXT, "windows": windows, "scores": ("llr", "distance")}
    score_variants(model, genome, tmp_path / "a.vcf", tmp_path / "a.parquet", **how)
    wanted = pl.read_parquet(tmp_path / "a.parquet").drop("id")
    settings, texts = ScoreSettings(**how), [":".join(map(str, one)) for one in records]
    frame = pl.DataFrame(records, schema=["chrom", "pos", "ref", "alt"], orient="row")
    for alleles in (records, texts, frame):
        found = score_alleles(model, genome, alleles, settings=settings)
        assert_frame_equal(found, wanted, check_dtypes=False, abs_tol=1e-5)
    assert found["why"].drop_nulls().to_list() == ["symbolic", "contig_not_in_genome"]
    for one in (texts[0], records[0]):
        assert score_alleles(model, genome, one, settings=settings)["chrom", "pos", "ref", "alt"].row(0) == records[0]


@pytest.mark.parametrize(
    ("alleles", "message"),
    [
        ("one:5:A", "allele .*: write it as in"), (("one", 5, "A"), "allele .*: write it as in"),
        ([("one", "five", "A", "C")], "row 1: pos is 'five'"), ([], "holds no rows"),
        (pl.DataFrame({"chrom": ["one"]}), "no column 'pos'"),
    ],
)  # fmt: skip
def test_what_is_no_allele_is_one_line(model, genome, alleles, message):
    with pytest.raises(InputError, match=message):
        score_alleles(model, genome, alleles)


def test_ref_decides_where_the_genome_has_an_iupac_code(model, tmp_path, sequences):
    """R at a base that changes: as if the genome had what REF says."""
    bases, scores = sequences["two"], {}
    for ref in "AG":
        record = ("two", 49, bases[49] + ref + bases[51], bases[49] + "T" + bases[51].translate(TURN))
        for letter in ("R", ref):
            (tmp_path / "ref.fa").write_text(f">two\n{bases[:50]}{letter}{bases[51:]}\n")
            build_genome(tmp_path / "ref.fa", tmp_path / "a.genome", force=True)
            one = scorer(model, ProbabilisticGenome.open(tmp_path / "a.genome"))
            scores[ref, letter] = scored(one, [record])[1]["PLLR"][0]
        assert scores[ref, "R"] == pytest.approx(scores[ref, ref], abs=1e-5)
    assert abs(scores["A", "R"] - scores["G", "R"]) > 1e-4


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"scores": ()}, "none"),
        ({"context": 100}, "--rope-scaling dynamic:2"),
        ({"flank": 15}, "leaves no room"),
        ({"longest": 0}, "at least 1"),
        ({"rope_scaling": {"type": "cubic", "factor": 2}}, "rope_scaling"),
    ],
)
def test_settings_that_cannot_be_are_refused(model, genome, settings, part):
    with pytest.raises(InputError, match=part):
        scorer(model, genome, **settings)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genome")
    (folder / "ref.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in SEQUENCES.items()))
    build_genome(folder / "ref.fa", folder / "a.genome")
    return ProbabilisticGenome.open(folder / "a.genome")


def find(small, *records, **settings):
    return find_alleles(small, *zip(*records, strict=True), **settings)


@pytest.mark.parametrize(
    ("position", "reference", "alternate", "kind", "start", "end", "inserted"),
    [
        (1, "acg", "ACt", Kind.SNV, 2, 3, "T"),
        (1, "ACGT", "TCGA", Kind.MNV, 0, 4, "TCGA"),
        (1, "A", "AGG", Kind.INDEL, 1, 1, "GG"),
        (1, "ACG", "A", Kind.INDEL, 1, 3, ""),
        # As programs that normalise do, from behind first.
        (4, "TT", "T", Kind.INDEL, 3, 4, ""),
        (3, "GTTTT", "GT", Kind.INDEL, 3, 6, ""),
        (3, "GTTTTG", "GTTTG", Kind.INDEL, 3, 4, ""),
        (1, "ACG", "AT", Kind.INDEL, 1, 3, "T"),
    ],
)
def test_what_changes(small, position, reference, alternate, kind, start, end, inserted):
    alleles = find(small, ("chr1", position, reference, alternate))
    found = (alleles.kind_A[0], alleles.start_A[0], alleles.end_A[0], alleles.inserted[0])
    assert found == (kind, start, end, inserted)
    assert alleles.reason_A[0] == Reason.SCORED


@given(st.integers(1, 7), st.integers(1, 7), st.text("ACGT", min_size=1, max_size=9))
def test_put_in_its_place_an_allele_gives_the_haplotype(small, position, length, alternate):
    contig = SEQUENCES["2"]
    reference = contig[position - 1 : position - 1 + length]
    alleles = find(small, ("2", position, reference, alternate))
    if alternate == reference:
        assert alleles.reason_A[0] == Reason.NOT_A_CHANGE
        return
    start, end = int(alleles.start_A[0]), int(alleles.end_A[0])
    removed, inserted = alleles.removed[0], alleles.inserted[0]
    haplotype = contig[: position - 1] + alternate + contig[position - 1 + len(reference) :]
    assert (contig[:start] + inserted + contig[end:], contig[start:end]) == (haplotype, removed)
    if alleles.kind_A[0] == Kind.SNV:
        assert alphabet.BASES[alleles.reference_A[0]] + alphabet.BASES[alleles.alternate_A[0]] == removed + inserted
    # Nothing is left that both have at an end.
    assert not (removed and inserted and (removed[0] == inserted[0] or removed[-1] == inserted[-1]))
