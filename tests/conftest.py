"""Fixtures that every room's tests share."""

import importlib.util
import itertools
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `ci` is quick and repeats itself; `long` (HYPOTHESIS_PROFILE=long) searches further.
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="session")
def shared():
    """The folder of numerical fixtures and real data, beside the checkout; the test is skipped without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


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


def _six_mer_tokenizer(folder):
    """As Nucleotide Transformers have it: 6-mers, and single bases for what is left over."""
    from transformers import EsmTokenizer

    words = map("".join, itertools.product("ACGT", repeat=6))
    path = folder / "vocab.txt"
    path.write_text("\n".join(["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>", *words, *"ATCGN"]))
    return EsmTokenizer(str(path), eos_token=None)


def _byte_pair_tokenizer():
    """As DNABERT-2 has it: byte pairs, of which none has N."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    generator = random.Random(0)
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        ["".join(generator.choices("ACGT", k=200)) for _ in range(50)],
        trainers.BpeTrainer(
            vocab_size=64, special_tokens=list(special.values()), initial_alphabet=list("ACGT"), show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{name}_token": token for name, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    """Folders of small masked models with random weights, dropout off, by their kind: mutbert, esm and bert.

    esm is as a Nucleotide Transformer, with 6-mers; bert has byte pairs, and 64 learned positions.
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM, EsmConfig, EsmForMaskedLM

    from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer

    root = tmp_path_factory.mktemp("models")
    folders = {kind: root / kind for kind in ("mutbert", "esm", "bert")}
    for folder in folders.values():
        folder.mkdir()
    size = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2,
    }  # fmt: skip
    words, pairs = _six_mer_tokenizer(folders["esm"]), _byte_pair_tokenizer()
    tokenizers = {"mutbert": MutBertTokenizer(model_max_length=64), "esm": words, "bert": pairs}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {
            "mutbert": MutBertForMaskedLM(MutBertConfig(max_position_embeddings=64, **size)),
            "esm": EsmForMaskedLM(
                EsmConfig(
                    vocab_size=len(words.get_vocab()), pad_token_id=1, mask_token_id=2, token_dropout=True,
                    position_embedding_type="rotary", max_position_embeddings=64, **size,
                )
            ),
            "bert": BertForMaskedLM(
                BertConfig(vocab_size=len(pairs), pad_token_id=3, max_position_embeddings=64, **size)
            ),
        }  # fmt: skip
    for kind, model in models.items():
        model.save_pretrained(folders[kind])
        tokenizers[kind].save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope="session")
def peer_files():
    """The script that writes peers' checkpoints as published, of which the code that loads them knows nothing."""
    spec = importlib.util.spec_from_file_location("peer_files", BENCHMARKS / "peer_files.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # It imports another script from beside it.
        patch.syspath_prepend(str(BENCHMARKS))
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def peer_folders(peer_files, tmp_path_factory):
    """Tiny random checkpoints in the published layouts: one of each kind, by the name of a model of that kind."""
    root = tmp_path_factory.mktemp("peers")
    folders = {name: root / name for name in ("dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps")}
    for name, folder in folders.items():
        peer_files.write(name, folder)
    return folders
