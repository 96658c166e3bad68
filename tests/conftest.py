"""Fixtures that every room's tests share."""

import importlib
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Models as small as those of the tests are slower on several threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `ci` is quick and repeats itself; `long` (HYPOTHESIS_PROFILE=long) searches further.
settings.register_profile("ci", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pytest_collection_modifyitems(items):
    """The sdist has no experiments, so that their tests are skipped there."""
    if not (ROOT / "experiments").is_dir():
        for one in items:
            if re.search("binding|experiments|small_tables", one.name + one.path.stem):
                one.add_marker(pytest.mark.skip(reason="the sdist has no experiments"))


@pytest.fixture(autouse=True)
def signals():
    """Signals end a test as they did before it; the program, run in this process, handles them by itself."""
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def tab():
    """A tab of Debian's Chromium, driven by Playwright; without either the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium.new_page(viewport={"width": 1400, "height": 900})


@pytest.fixture(scope="session")
def shared():
    """The folder of numerical fixtures and real data, next to the checkout; without it the test is skipped."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def read_page():
    """Text of a page of documentation by its path, or of one section by its heading."""

    def read_page(path, heading=""):
        text = (ROOT / path).read_text(encoding="utf-8")
        return re.search(rf"^{heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1] if heading else text

    return read_page


@pytest.fixture(scope="session")
def run_samples():
    """Run the samples of a text in this folder and process; return the namespace of Python and the commands."""
    from typer.testing import CliRunner

    from mutbert.cli.main import app

    def run_samples(text, languages=("python", "bash"), change=lambda words: words):
        namespace, commands = {}, []
        samples = [(language, sample) for language, sample in SAMPLE.findall(text) if language in languages]
        assert samples
        for language, sample in samples:
            if language == "python":
                exec(compile(sample, "sample", "exec"), namespace)
                continue
            for line in sample.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line, comments=True)
                assert program == "mutbert"
                done = CliRunner().invoke(app, change(words))
                assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
                commands.append(words)
        return namespace, commands

    return run_samples


@pytest.fixture(scope="session")
def write_genome():
    """Write a store of letters by contig, lower case where soft-masked, and frequencies of A, C, G, T by position."""
    import numpy as np

    from mutbert import alphabet
    from mutbert.genome import format as store

    def write(folder, contigs, variants=None, **provenance):
        folder.mkdir(exist_ok=True)
        masks = {
            name: store.find_runs(
                np.array([letter.islower() for letter in letters], np.uint8), store.SOFT_MASK, np.asarray
            )
            for name, letters in contigs.items()
        }
        rows = []
        for name, frequencies in (variants or {}).items():
            frequency_V4 = np.array([frequencies[position] for position in sorted(frequencies)]).reshape(-1, 4)
            rows.append((name, np.array(sorted(frequencies), np.int64), store.float_to_fixed(frequency_V4)))
        found = store.write_reference(
            folder, ((name, alphabet.encode(letters), masks[name]) for name, letters in contigs.items())
        )
        store.write_manifest(folder, store.write_variants(folder, found, rows), **provenance)
        return folder

    return write


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory, peer_folders):
    """Folders of small masked models with random weights, without dropout: mutbert, esm (6-mers), bert (byte pairs)."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, EsmConfig, EsmForMaskedLM

    from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer

    root = tmp_path_factory.mktemp("models")
    words, pairs = (AutoTokenizer.from_pretrained(peer_folders[name]) for name in ("ntv2-50m", "dnabert2"))
    size = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2,
        "max_position_embeddings": 64,
    }  # fmt: skip
    of_esm = {"pad_token_id": 1, "mask_token_id": 2, "token_dropout": True, "position_embedding_type": "rotary"}
    made = {
        "mutbert": (MutBertForMaskedLM, MutBertConfig(**size), MutBertTokenizer(model_max_length=64)),
        "esm": (EsmForMaskedLM, EsmConfig(vocab_size=len(words), **of_esm, **size), words),
        "bert": (BertForMaskedLM, BertConfig(vocab_size=len(pairs), pad_token_id=3, **size), pairs),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for kind, (model, config, tokenizer) in made.items():
            model(config).save_pretrained(root / kind)
            tokenizer.save_pretrained(root / kind)
    return {kind: root / kind for kind in made}


@pytest.fixture(scope="session")
def peer_files():
    """The script that writes peers' checkpoints as published, of which the code that loads them knows nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("peer_files")


@pytest.fixture(scope="session")
def peer_folders(peer_files, tmp_path_factory):
    """Tiny random checkpoints in the published layouts: one of each kind, by the name of a model of that kind."""
    root = tmp_path_factory.mktemp("peers")
    folders = {name: root / name for name in ("dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps")}
    for name, folder in folders.items():
        peer_files.write(name, folder)
    return folders
