"""Scores by models that read tokens, against one variant, one strand and one forward at a time."""

import numpy as np
import polars as pl
import pytest
import torch

from mutbert import build_genome, score_all_snvs
from mutbert.effects.scores import ScoreSettings, TokenScorer
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome

PEERS = ("dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps")
WITH_RATIOS = PEERS[1:]
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
CONTEXT = 40


def reverse_complement(text):
    return text.translate(COMPLEMENT)[::-1]


@pytest.fixture(scope="module")
def opened(genome):
    return ProbabilisticGenome.open(genome)


@pytest.fixture(scope="module")
def snvs(contigs):
    """In the middle, at both ends of a contig, beside N, beside an IUPAC code, and two of one position."""
    places = [("chr1", 0), ("chr1", 3), ("chr1", 100), ("chr1", 100), ("chr1", 397), ("chr1", 411), ("chr1", 502),
              ("chr1", 599), ("chr2", 151)]  # fmt: skip
    found = []
    for number, (contig, position) in enumerate(places):
        reference = contigs[contig][position]
        others = [base for base in "ACGT" if base != reference]
        found.append((contig, position, reference, others[number % 3]))
    return found


def scorer_of(folder, opened, **settings):
    settings = {"context": CONTEXT, "flank": 4, "batch_size": 3, **settings}
    return TokenScorer(open_encoder(folder), opened, ScoreSettings(**settings))


def scored(scorer, variants):
    contigs, positions, references, alternates = zip(*variants, strict=True)
    alleles = scorer.find(contigs, [position + 1 for position in positions], references, alternates)
    values = scorer.score(alleles)
    return dict(zip(scorer.fields, values.T, strict=True))


def window_of(contigs, contig, position, reference):
    """The window as text, with REF in it, and the place of the variant; what is no A, C, G, T is N."""
    sequence = contigs[contig]
    start = min(max(position - CONTEXT // 2, 0), len(sequence) - CONTEXT)
    text = sequence[start : start + CONTEXT]
    text = text[: position - start] + reference + text[position - start + 1 :]
    return "".join(base if base in "ACGT" else "N" for base in text), position - start


def words_of(tokenizer, text, *, special):
    """The tokens of a text with where each begins, found by walking along it."""
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    found, place = [], 0
    for word in tokenizer.convert_ids_to_tokens(ids):
        found.append((word, place))
        place += 0 if word in {"<cls>", "[CLS]", "[SEP]"} else len(word) if set(word) <= set("ACGTN") else 1
    return ids, found


def one_at_a_time(encoder, model, text, place, *, masked):
    """The log-probabilities of the four tokens with each base at a place."""
    tokenizer = encoder.tokenizer
    ids, words = words_of(tokenizer, text, special=encoder.special_tokens)
    bases = [number for number, (word, _) in enumerate(words) if set(word) <= set("ACGTN")]
    at = next(number for number in bases if words[number][1] <= place < words[number][1] + len(words[number][0]))
    word, begin = words[at]
    ids = torch.tensor([ids])
    if masked:
        ids[0, at] = tokenizer.mask_token_id
    with torch.inference_mode():
        states = model.base_model(ids, attention_mask=torch.ones_like(ids))[0]
        log_probability = model.logits(states[0, at]).log_softmax(-1)
    exchanged = [word[: place - begin] + base + word[place - begin + 1 :] for base in "ACGT"]
    return np.array([float(log_probability[tokenizer.convert_tokens_to_ids(one)]) for one in exchanged])


@pytest.mark.parametrize("name", WITH_RATIOS)
@pytest.mark.parametrize("strands", ["forward", "both"])
def test_ratios_are_those_of_one_masked_token_at_a_time(peer_folders, opened, contigs, snvs, name, strands):
    found = scored(scorer_of(peer_folders[name], opened, scores=("llr", "unmasked"), strands=strands), snvs)
    encoder = open_encoder(peer_folders[name])
    model = encoder.masked(0)
    for masked, field in ((True, "LLR"), (False, "ULLR")):
        for row, (contig, position, reference, alternate) in enumerate(snvs):
            text, place = window_of(contigs, contig, position, reference)
            values = [one_at_a_time(encoder, model, text, place, masked=masked)]
            if strands == "both":
                turned = one_at_a_time(encoder, model, reverse_complement(text), CONTEXT - 1 - place, masked=masked)
                values.append(turned[::-1])
            mean = np.mean(values, axis=0)
            wanted = mean["ACGT".index(alternate)] - mean["ACGT".index(reference)]
            assert found[field][row] == pytest.approx(wanted, abs=2e-4), (field, row)
            if masked:
                share = np.exp(mean) / np.exp(mean).sum()
                assert found["ENT"][row] == pytest.approx(-(share * np.log(share)).sum(), abs=2e-4)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("dnabert2", {"scores": ("llr",)}, "it has no likelihood ratio; add distance to --scores"),
        ("ntv2-50m", {"windows": "shared"}, "shared windows are for MutBERT"),
        ("ntv2-50m", {"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_scaling.* for MutBERT"),
        ("ntv2-50m", {"flank": 20}, "leaves no room in a context of 40 bases"),
    ],
)
def test_settings_that_a_model_has_not(peer_folders, opened, name, settings, words):
    with pytest.raises(InputError, match=rf"\A[^\n]*{words}[^\n]*\Z"):
        scorer_of(peer_folders[name], opened, **settings)


@pytest.mark.parametrize("name", ["caduceus-ph", "nt-500m-1000g"])
def test_every_snv_is_scored_as_one_is(peer_folders, opened, contigs, tmp_path, name):
    how = {"context": CONTEXT, "scores": ("llr", "unmasked")}
    report = score_all_snvs(peer_folders[name], opened, tmp_path / "x.parquet", region="chr1:390-420", **how)
    table = pl.read_parquet(report.output)
    snvs = [(chrom, pos - 1, ref, alt) for chrom, pos, ref, alt in table.select("chrom", "pos", "ref", "alt").rows()]
    assert (len(snvs), report.without_snvs) == (63, {"unknown_reference": 10})
    for field, expected in scored(scorer_of(peer_folders[name], opened, **how), snvs).items():
        np.testing.assert_allclose(table[field].to_numpy(), expected, atol=1e-5, equal_nan=True)
    for model, more, words in ((name, {"surroundings": "population"}, "use --surroundings reference"),
                               ("dnabert2", {}, "reads tokens, not single bases")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            score_all_snvs(peer_folders[model], opened, tmp_path / "y.parquet", **more)


def test_windows_of_more_tokens_than_positions_are_refused(peer_folders, tmp_path):
    (tmp_path / "ref.fa").write_text(f">chr1\n{'N' * 1100}{'ACGTAC' * 20}\n")
    build_genome(tmp_path / "ref.fa", tmp_path / "ref.genome")
    opened = ProbabilisticGenome.open(tmp_path / "ref.genome")
    with pytest.raises(InputError, match=r"\A[^\n]+ tokens, where the model has positions for 1,000; [^\n]+\Z"):
        scored(scorer_of(peer_folders["nt-500m-1000g"], opened, context=1220), [("chr1", 1130, "A", "C")])
