import numpy as np
import pytest

from mutbert import ProbabilisticGenome


@pytest.fixture(scope="session")
def make_genome(tmp_path_factory, write_genome):
    """Write and open a genome: sequences by contig, lower case where soft-masked, and frequencies by position."""

    def make(contigs, variants=None, name="some.genome"):
        return ProbabilisticGenome.open(write_genome(tmp_path_factory.mktemp("genome") / name, contigs, variants))

    return make


@pytest.fixture(scope="session")
def random_genome(make_genome):
    """Random contigs with every IUPAC code but N, variants, and stretches in lower case."""

    def make(seed, lengths, name="some.genome", soft_masked=0.3):
        rng = np.random.default_rng(seed)
        contigs, variants = {}, {}
        for number, length in enumerate(lengths):
            letters = rng.choice(list("ACGT" * 8 + "RYSWKMBDHV"), length)
            lower = np.repeat(rng.random(-(-length // 5)) < soft_masked, 5)[:length]
            contigs[f"chr{number}"] = "".join(np.where(lower, np.char.lower(letters), letters))
            places = np.flatnonzero(rng.random(length) < 0.2)
            variants[f"chr{number}"] = dict(zip(places.tolist(), rng.dirichlet(np.ones(4), len(places)), strict=True))
        return make_genome(contigs, variants, name)

    return make
