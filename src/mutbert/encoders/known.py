"""The models that are known by name: where each is, and what one wants to know before using it. A model is a row."""

import json
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from mutbert.run_folder import MODEL

RANDOM: Final = "random:"
"""Before a model's name or path: the same model with fresh weights."""

Family = Literal["mutbert", "nt", "ntv2", "dnabert2", "caduceus", "other"]


class KnownModel(NamedTuple):
    """A model of the paper, or Caduceus."""

    name: str
    place: str  # its repository of the Hub
    family: Family  # whose models share everything but their size; the settings of a suite name families
    parameters: int  # weights of the masked model, each counted once
    licence: str  # of the weights
    tokens: str  # what a token is
    longest: str  # the longest input
    files: tuple[str, ...] = ()  # what a repository must have besides config.json and weights
    also: tuple[str, ...] = ()  # other names of the repository


_MUTBERT = ("mutbert", 85_656_585, "not stated", "base", "510 bases, RoPE scaling", ())
_NT_500M = ("nt", 485_699_306, "CC BY-NC-SA 4.0", "6-mer", "1,000 tokens, 6 kb", ("vocab.txt",))
_NT_2500M = ("nt", 2_547_801_226, *_NT_500M[2:])
_CADUCEUS = ("caduceus", 7_725_312, "Apache-2.0", "base", "131,072 bases")
_NT, _SEQLEN = "InstaDeepAI/nucleotide-transformer", "seqlen-131k_d_model-256_n_layer-16"
_NTV2 = {50: 54_855_372, 100: 96_839_532, 250: 233_546_380, 500: 496_246_236}
_ROWS: tuple[Any, ...] = (
    ("mutbert", "CompBioDSA/MutBERT", *_MUTBERT, ("JadenLong/MutBERT",)),
    ("mutbert-ref", "CompBioDSA/MutBERT-Human-Ref", *_MUTBERT, ("JadenLong/MutBERT-Human-Ref",)),
    ("mutbert-multi", "CompBioDSA/MutBERT-Multi", *_MUTBERT, ("JadenLong/MutBERT-Multi",)),
    ("dnabert2", "zhihan1996/DNABERT-2-117M", "dnabert2", 117_074_176, "Apache-2.0", "byte pair", "no limit (ALiBi)",
     ("tokenizer.json",)),
    ("nt-500m-1000g", f"{_NT}-500m-1000g", *_NT_500M),
    ("nt-500m-human", f"{_NT}-500m-human-ref", *_NT_500M),
    ("nt-2.5b-1000g", f"{_NT}-2.5b-1000g", *_NT_2500M),
    ("nt-2.5b-multi", f"{_NT}-2.5b-multi-species", *_NT_2500M),
    *((f"ntv2-{size}m", f"{_NT}-v2-{size}m-multi-species", "ntv2", parameters, "CC BY-NC-SA 4.0", "6-mer",
       "2,048 tokens, 12 kb", ("vocab.txt",)) for size, parameters in _NTV2.items()),
    ("caduceus-ph", f"kuleshov-group/caduceus-ph_{_SEQLEN}", *_CADUCEUS),
    ("caduceus-ps", f"kuleshov-group/caduceus-ps_{_SEQLEN}", *_CADUCEUS),
)  # fmt: skip
MODELS: Final = tuple(KnownModel(*row) for row in _ROWS)


def resolve_model(name: str) -> str:
    """Return the repository of a known model, by its name or one of its repository's, a run's model, or the name."""
    if not Path(name, "config.json").exists() and Path(name, MODEL, "config.json").is_file():
        return str(Path(name, MODEL))
    known = (model.place for model in MODELS if name in {model.name, model.place, *model.also})
    return name if Path(name).exists() else next(known, name)


def is_offline(model: KnownModel) -> bool:
    """Return whether everything that running a model takes is in the Hub's cache on this machine."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(snapshot_download(model.place, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        return False
    parts = [["model.safetensors"], ["pytorch_model.bin"]]
    parts += [json.loads(path.read_bytes())["weight_map"].values() for path in folder.glob("*.index.json")]
    return any(all((folder / name).is_file() for name in ("config.json", *model.files, *part)) for part in parts)
