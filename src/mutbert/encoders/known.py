"""The models that are known by name: where each is, and what has to be known to use it. A model is a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Family = Literal["mutbert", "nt", "ntv2", "dnabert2", "caduceus", "other"]


@dataclass(frozen=True)
class KnownModel:
    """What has to be known of a model.

    Parameters
    ----------
    name : str
        What it is called here and in tables.
    place : str
        A repository of the Hub, or a folder.
    family : str
        Models of a family share everything but their size: the settings of a suite name families.
    parameters : int, optional
        How many weights it has, for tables of models that were not run.
    remote_code : bool
        Whether it needs code that comes with the checkpoint, which runs only where the user trusts it.
    lora_targets : tuple of str
        The names of the layers that low-rank adapters are put on.
    hidden_states : {"encoder", "masked"}
        Where embeddings are found: in the output of the encoder, or in the last hidden states of the masked model, for
        repositories whose code has no encoder of its own.
    """

    name: str
    place: str
    family: Family = "other"
    parameters: int | None = None
    remote_code: bool = False
    lora_targets: tuple[str, ...] = ("query", "key", "value", "dense")
    hidden_states: Literal["encoder", "masked"] = "encoder"


def _nt(name: str, repository: str, parameters: int) -> KnownModel:
    return KnownModel(name, f"InstaDeepAI/nucleotide-transformer-{repository}", "nt", parameters)


def _ntv2(size: int) -> KnownModel:
    place = f"InstaDeepAI/nucleotide-transformer-v2-{size}m-multi-species"
    return KnownModel(f"ntv2-{size}m", place, "ntv2", size * 10**6, remote_code=True, hidden_states="masked")


def _caduceus(kind: str) -> KnownModel:
    place = f"kuleshov-group/caduceus-{kind}_seqlen-131k_d_model-256_n_layer-16"
    targets = ("in_proj", "x_proj", "out_proj")
    return KnownModel(f"caduceus-{kind}", place, "caduceus", 7_700_000, remote_code=True, lora_targets=targets)


MODELS: Final = (
    KnownModel("mutbert", "CompBioDSA/MutBERT", "mutbert", 85_656_585),
    KnownModel("mutbert-ref", "CompBioDSA/MutBERT-Human-Ref", "mutbert", 85_656_585),
    KnownModel("mutbert-multi", "CompBioDSA/MutBERT-Multi", "mutbert", 85_656_585),
    KnownModel(
        "dnabert2", "zhihan1996/DNABERT-2-117M", "dnabert2", 117_000_000, remote_code=True,
        lora_targets=("Wqkv", "dense", "gated_layers", "wo"),
    ),
    _nt("nt-500m-1000g", "500m-1000g", 500_000_000),
    _nt("nt-500m-human", "500m-human-ref", 500_000_000),
    _nt("nt-2.5b-1000g", "2.5b-1000g", 2_500_000_000),
    _nt("nt-2.5b-multi", "2.5b-multi-species", 2_500_000_000),
    _ntv2(50),
    _ntv2(100),
    _ntv2(250),
    _ntv2(500),
    _caduceus("ph"),
    _caduceus("ps"),
)  # fmt: skip
"""The models of the paper, and Caduceus."""


def find_model(name: str) -> KnownModel | None:
    """Find a model by its name or its repository; ``None`` where it is not known."""
    return next((model for model in MODELS if name in {model.name, model.place}), None)
