"""The models that are known by name: where each is, and what one wants to know before using it. A model is a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal, NamedTuple

RANDOM: Final = "random:"
"""Before a model's name or place: the same model with fresh weights."""

Family = Literal["mutbert", "nt", "ntv2", "dnabert2", "caduceus", "other"]


class KnownModel(NamedTuple):
    """A model of the paper, or Caduceus.

    Parameters
    ----------
    name : str
        What it is called here and in tables.
    place : str
        Its repository of the Hub.
    family : str
        Models of a family share everything but their size: the settings of a suite name families.
    parameters : int
        Weights of the masked model, each counted once.
    licence : str
        Of the weights.
    tokens : str
        What a token is.
    longest : str
        The longest input.
    files : tuple of str
        What a repository must hold besides ``config.json`` and weights.
    also : tuple of str
        Other names of the repository.
    """

    name: str
    place: str
    family: Family
    parameters: int
    licence: str
    tokens: str
    longest: str
    files: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


def _mutbert(name: str, repository: str) -> KnownModel:
    also = (repository.replace("CompBioDSA", "JadenLong"),)
    longest = "510 bases, RoPE scaling"
    return KnownModel(name, repository, "mutbert", 85_656_585, "not stated", "base", longest, also=also)


def _nt(name: str, repository: str, parameters: int) -> KnownModel:
    place, longest = f"InstaDeepAI/nucleotide-transformer-{repository}", "1,000 tokens, 6 kb"
    return KnownModel(name, place, "nt", parameters, "CC BY-NC-SA 4.0", "6-mer", longest, ("vocab.txt",))


def _ntv2(size: int, parameters: int) -> KnownModel:
    place, longest = f"InstaDeepAI/nucleotide-transformer-v2-{size}m-multi-species", "2,048 tokens, 12 kb"
    return KnownModel(f"ntv2-{size}m", place, "ntv2", parameters, "CC BY-NC-SA 4.0", "6-mer", longest, ("vocab.txt",))


def _caduceus(kind: str) -> KnownModel:
    place = f"kuleshov-group/caduceus-{kind}_seqlen-131k_d_model-256_n_layer-16"
    return KnownModel(f"caduceus-{kind}", place, "caduceus", 7_725_312, "Apache-2.0", "base", "131,072 bases")


MODELS: Final = (
    _mutbert("mutbert", "CompBioDSA/MutBERT"),
    _mutbert("mutbert-ref", "CompBioDSA/MutBERT-Human-Ref"),
    _mutbert("mutbert-multi", "CompBioDSA/MutBERT-Multi"),
    KnownModel(
        "dnabert2",
        "zhihan1996/DNABERT-2-117M",
        "dnabert2",
        117_074_176,
        "Apache-2.0",
        "byte pair",
        "no limit (ALiBi)",
        ("tokenizer.json",),
    ),
    _nt("nt-500m-1000g", "500m-1000g", 485_699_306),
    _nt("nt-500m-human", "500m-human-ref", 485_699_306),
    _nt("nt-2.5b-1000g", "2.5b-1000g", 2_547_801_226),
    _nt("nt-2.5b-multi", "2.5b-multi-species", 2_547_801_226),
    _ntv2(50, 54_855_372),
    _ntv2(100, 96_839_532),
    _ntv2(250, 233_546_380),
    _ntv2(500, 496_246_236),
    _caduceus("ph"),
    _caduceus("ps"),
)
"""The models of the paper, and Caduceus."""


def find_model(name: str) -> KnownModel | None:
    """Return a model by its name or one of its repository's names; None where it is not known."""
    return next((model for model in MODELS if name in {model.name, model.place, *model.also}), None)


def resolve_model(name: str) -> str:
    """Return where a model is: the repository of a known one, and any other as given."""
    known = find_model(name)
    return name if known is None or Path(name).exists() else known.place


def is_offline(model: KnownModel) -> bool:
    """Return whether everything that running a model takes is in the Hub's cache on this machine."""
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> Path | None:
        found = try_to_load_from_cache(model.place, name)
        return Path(found) if isinstance(found, str) else None

    def has_weights(name: str) -> bool:
        if cached(name):
            return True
        index = cached(f"{name}.index.json")
        return index is not None and all(
            cached(part) for part in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        )

    return all(cached(name) for name in ("config.json", *model.files)) and any(
        has_weights(name) for name in ("model.safetensors", "pytorch_model.bin")
    )
