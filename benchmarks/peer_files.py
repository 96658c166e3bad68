"""Write a checkpoint of a peer in its published layout, with random weights.

    python benchmarks/peer_files.py ntv2-500m --output DIR --size published

The folder has all that loading takes: ``config.json`` with the published values, weights under the published names,
and the tokenizer's files. With ``--size tiny`` the same layout has a width of 24 and two layers.

Names and shapes are written out from descriptions of the published files, a function a family, and owe nothing to the
code that loads them, so that the two can be compared. They can also be counted: `count`.

Tensors have random numbers of their own, so the same arguments give the same files. Memory is all weights at once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from measure import run_script
from mutbert.files import atomic_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    Config = Mapping[str, Any]
    Shapes = dict[str, tuple[int, ...]]

SIZES: Final = ("tiny", "published")

_DNABERT2: Final[Config] = {
    "_name_or_path": "zhihan1996/DNABERT-2-117M",
    "alibi_starting_size": 512,
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_bert.BertConfig",
        "AutoModel": "bert_layers.BertModel",
        "AutoModelForMaskedLM": "bert_layers.BertForMaskedLM",
        "AutoModelForSequenceClassification": "bert_layers.BertForSequenceClassification",
    },
    "classifier_dropout": None,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "position_embedding_type": "absolute",
    "torch_dtype": "float32",
    "transformers_version": "4.28.0",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 4096,
}


def _esm(hidden: int, layers: int, heads: int, intermediate: int) -> dict[str, Any]:
    """Return what both versions of Nucleotide Transformer have in their configuration."""
    return {
        "attention_probs_dropout_prob": 0.0,
        "emb_layer_norm_before": False,
        "esmfold_config": None,
        "hidden_dropout_prob": 0.0,
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "is_folding_model": False,
        "layer_norm_eps": 1e-12,
        "mask_token_id": 2,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 1,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": False,
        "vocab_list": None,
    }


def _nt(hidden: int, layers: int, heads: int, intermediate: int) -> Config:
    return {
        **_esm(hidden, layers, heads, intermediate),
        "architectures": ["EsmForMaskedLM"],
        "max_position_embeddings": 1002,
        "model_type": "esm",
        "position_embedding_type": "absolute",
        "token_dropout": True,
        "transformers_version": "4.22.0.dev0",
        "vocab_size": 4105,
    }


def _nt_v2(hidden: int, layers: int, heads: int, intermediate: int) -> Config:
    kinds = ("MaskedLM", "TokenClassification", "SequenceClassification")
    classes = {f"AutoModelFor{kind}": f"modeling_esm.EsmFor{kind}" for kind in kinds}
    return {
        **_esm(hidden, layers, heads, intermediate),
        "add_bias_fnn": False,
        "architectures": [f"EsmFor{kind}" for kind in kinds],
        "auto_map": {"AutoConfig": "esm_config.EsmConfig", **classes},
        "max_position_embeddings": 2050,
        "position_embedding_type": "rotary",
        "token_dropout": False,
        "transformers_version": "4.32.0.dev0",
        "vocab_size": 4107,
    }


def _caduceus(*, both_strands: bool) -> Config:
    return {
        "architectures": ["CaduceusForMaskedLM"],
        "auto_map": {
            "AutoConfig": "configuration_caduceus.CaduceusConfig",
            "AutoModel": "modeling_caduceus.Caduceus",
            "AutoModelForMaskedLM": "modeling_caduceus.CaduceusForMaskedLM",
            "AutoModelForSequenceClassification": "modeling_caduceus.CaduceusForSequenceClassification",
        },
        "bidirectional": True,
        "bidirectional_strategy": "add",
        "bidirectional_weight_tie": True,
        # A 7, C 8, G 9, T 10; all else is its own complement.
        "complement_map": {str(token): {7: 10, 8: 9, 9: 8, 10: 7}.get(token, token) for token in range(16)},
        "d_model": 256,
        "fused_add_norm": True,
        "initializer_cfg": {"initializer_range": 0.02, "n_residuals_per_layer": 1, "rescale_prenorm_residual": True},
        "model_type": "caduceus",
        "n_layer": 16,
        "norm_epsilon": 1e-05,
        "pad_vocab_size_multiple": 8,
        "rcps": both_strands,
        "residual_in_fp32": False,
        "rms_norm": True,
        "ssm_cfg": {
            "bias": False,
            "conv_bias": True,
            "d_conv": 4,
            "d_state": 16,
            "dt_init": "random",
            "dt_init_floor": 0.0001,
            "dt_max": 0.1,
            "dt_min": 0.001,
            "dt_rank": "auto",
            "dt_scale": 1.0,
            "expand": 2,
            "use_fast_path": True,
        },
        "torch_dtype": "float32",
        "transformers_version": "4.38.1",
        "vocab_size": 16,
    }


PUBLISHED: Final[Mapping[str, Config]] = {
    "dnabert2": _DNABERT2,
    "nt-500m-1000g": _nt(1280, 24, 20, 5120),
    "nt-500m-human": _nt(1280, 24, 20, 5120),
    "nt-2.5b-1000g": _nt(2560, 32, 20, 10_240),
    "nt-2.5b-multi": _nt(2560, 32, 20, 10_240),
    "ntv2-50m": _nt_v2(512, 12, 16, 2048),
    "ntv2-100m": _nt_v2(512, 22, 16, 2048),
    "ntv2-250m": _nt_v2(768, 24, 16, 3072),
    "ntv2-500m": _nt_v2(1024, 29, 16, 4096),
    "caduceus-ph": _caduceus(both_strands=False),
    "caduceus-ps": _caduceus(both_strands=True),
}
"""What ``config.json`` of each model says, by its name in `mutbert.encoders.known`."""

# A second name of a weight, and the first.
_TIED: Final = {
    r"^cls\.predictions\.decoder\.weight$": "bert.embeddings.word_embeddings.weight",
    r"\.mamba_rev\.(in|out)_proj\.": r".mamba_fwd.\1_proj.",
    r"^lm_head\.weight$": "caduceus.backbone.embeddings.word_embeddings.weight",
    r"^lm_head\.lm_head\.weight$": "caduceus.backbone.embeddings.word_embeddings.embedding.weight",
}
_CONSTANTS: Final = ("complement_map", "inv_freq")
_BASES_TO_LEARN_FROM: Final = (2_000, 300)
"""Sequences and bases of each: enough of them for 4,096 byte pairs."""


def main() -> None:
    """Read the command line, and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=PUBLISHED, help="the model, by its name in `mutbert bench list`")
    parser.add_argument("--output", "-o", type=Path, required=True, help="the folder to write")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the model (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same arguments give the same files (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace the folder where it exists")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with atomic_directory(arguments.output, force=arguments.force, mark="config.json") as folder:
        write(arguments.kind, folder, arguments.size, seed=arguments.seed)
    size = sum(path.stat().st_size for path in arguments.output.iterdir())
    seconds = time.perf_counter() - start
    print(f"{arguments.output}: {arguments.kind}, {arguments.size} size, {size:,} bytes, {seconds:.1f} s")


def write(name: str, folder: Path, size: str = "tiny", *, seed: int = 0) -> None:
    """Write a checkpoint into a folder.

    Parameters
    ----------
    name : str
        One of `PUBLISHED`.
    folder : Path
        Made where it is not there.
    size : str
        One of `SIZES`.
    seed : int
        Of the weights.
    """
    config = PUBLISHED[name] if size == "published" else tiny(PUBLISHED[name])
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config)
    weights = make_weights(config, seed)
    if _is_dnabert2(config):
        torch.save(weights, folder / "pytorch_model.bin")
        _write_byte_pairs(folder, config["vocab_size"])
        return
    # Safetensors hold no tensor twice, so that the second names of tied ones are not in the published files.
    kept = {key: weight for key, weight in weights.items() if tied_to(key) is None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    if _is_caduceus(config):
        _write_letters(folder)
    else:
        _write_six_mers(folder, config)


def tiny(config: Config) -> dict[str, Any]:
    """Return the same configuration with a width of 24 and two layers.

    Positions, and vocabularies that are no matter of training, stay as they are. Three heads are no power of two, as
    the published numbers are not, which ALiBi's slopes depend on.
    """
    if _is_caduceus(config):
        return {**config, "d_model": 24, "n_layer": 2}
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    return {**config, **small, **({"vocab_size": 64} if _is_dnabert2(config) else {})}


def count(name: str) -> int:
    """Return the number of parameters of a published masked model: each weight once, no constants, nothing unused."""
    config = PUBLISHED[name]
    return sum(
        math.prod(shape)
        for key, shape in shapes_of(config).items()
        if tied_to(key) is None and not key.endswith(_CONSTANTS) and not is_unused(key, config)
    )


def shapes_of(config: Config) -> Shapes:
    """Return the shape of each tensor of a checkpoint by its published name; tied ones under all their names."""
    if _is_dnabert2(config):
        return dnabert2_shapes(config)
    return caduceus_shapes(config) if _is_caduceus(config) else nt_shapes(config)


def tied_to(key: str) -> str | None:
    """Return the first name of a weight of which this is the second; None for all others."""
    for pattern, first in _TIED.items():
        if re.search(pattern, key):
            return re.sub(pattern, first, key)
    return None


def is_unused(key: str, config: Config) -> bool:
    """Return whether a published file has a tensor that no result depends on."""
    return key == "esm.embeddings.position_embeddings.weight" and config["position_embedding_type"] == "rotary"


def dnabert2_shapes(config: Config) -> Shapes:
    """Return names and shapes of DNABERT-2."""
    width, inner, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    shapes: Shapes = {
        "bert.embeddings.word_embeddings.weight": (words, width),
        "bert.embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        **_norm("bert.embeddings.LayerNorm", width),
    }
    for layer in range(config["num_hidden_layers"]):
        here = f"bert.encoder.layer.{layer}"
        shapes |= {
            # Queries, keys and values, one below the other.
            **_linear(f"{here}.attention.self.Wqkv", width, 3 * width),
            **_linear(f"{here}.attention.output.dense", width, width),
            **_norm(f"{here}.attention.output.LayerNorm", width),
            f"{here}.mlp.gated_layers.weight": (2 * inner, width),
            **_linear(f"{here}.mlp.wo", inner, width),
            **_norm(f"{here}.mlp.layernorm", width),
        }
    return shapes | {
        **_linear("cls.predictions.transform.dense", width, width),
        **_norm("cls.predictions.transform.LayerNorm", width),
        **_linear("cls.predictions.decoder", width, words),
    }


def nt_shapes(config: Config) -> Shapes:
    """Return names and shapes of Nucleotide Transformer, of either version."""
    width, inner, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    second = "add_bias_fnn" in config
    shapes: Shapes = {
        "esm.embeddings.word_embeddings.weight": (words, width),
        "esm.embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
    }
    for layer in range(layers):
        here = f"esm.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{here}.attention.self.{part}", width, width)
        if second:
            shapes[f"{here}.attention.self.rotary_embeddings.inv_freq"] = (width // heads // 2,)
        shapes |= {
            **_linear(f"{here}.attention.output.dense", width, width),
            **_norm(f"{here}.attention.LayerNorm", width),
            # Of the second version gated, and without biases.
            **_linear(f"{here}.intermediate.dense", width, 2 * inner if second else inner, bias=not second),
            **_linear(f"{here}.output.dense", inner, width, bias=not second),
            **_norm(f"{here}.LayerNorm", width),
        }
    return shapes | {
        **_norm("esm.encoder.emb_layer_norm_after", width),
        **_linear("esm.contact_head.regression", layers * heads, 1),
        "lm_head.bias": (words,),
        **_linear("lm_head.dense", width, width),
        **_norm("lm_head.layer_norm", width),
        "lm_head.decoder.weight": (words, width),
    }


def caduceus_shapes(config: Config) -> Shapes:
    """Return names and shapes of Caduceus, for one strand (Ph) or both (PS)."""
    width, words, both = config["d_model"], config["vocab_size"], config["rcps"]
    settings = config["ssm_cfg"]
    inner, states, kernel = settings["expand"] * width, settings["d_state"], settings["d_conv"]
    rank = math.ceil(width / 16)
    embedding = "caduceus.backbone.embeddings.word_embeddings"
    shapes: Shapes = {f"{embedding}.embedding.weight" if both else f"{embedding}.weight": (words, width)}
    if both:
        shapes |= {f"{embedding}.complement_map": (words,), "lm_head.complement_map": (words,)}
    for layer in range(config["n_layer"]):
        here = f"caduceus.backbone.layers.{layer}"
        shapes[f"{here}.norm.weight"] = (width,)
        for direction in ("mamba_fwd", "mamba_rev"):
            mixer = f"{here}.mixer.{'submodule.' * both}{direction}"
            shapes |= {
                f"{mixer}.A_log": (inner, states),
                f"{mixer}.D": (inner,),
                f"{mixer}.in_proj.weight": (2 * inner, width),
                f"{mixer}.conv1d.weight": (inner, 1, kernel),
                f"{mixer}.conv1d.bias": (inner,),
                f"{mixer}.x_proj.weight": (rank + 2 * states, inner),
                **_linear(f"{mixer}.dt_proj", rank, inner),
                f"{mixer}.out_proj.weight": (width, inner),
            }
    return shapes | {
        "caduceus.backbone.norm_f.weight": (width,),
        f"lm_head.{'lm_head.' * both}weight": (words, width),
    }


def make_weights(config: Config, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint by all their names; tied names share a tensor."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for key, shape in shapes_of(config).items():
        first = tied_to(key)
        weights[key] = _make_weight(key, shape, config, generator) if first is None else weights[first]
    return weights


def _make_weight(key: str, shape: tuple[int, ...], config: Config, generator: torch.Generator) -> torch.Tensor:
    last = key.rpartition(".")[2]
    if last == "complement_map":
        return torch.tensor(list(config["complement_map"].values()))
    if last == "inv_freq":
        return 10_000 ** -(torch.arange(shape[0]) / shape[0])
    if last == "A_log":
        return torch.arange(1.0, shape[1] + 1).log().repeat(shape[0], 1)
    if last == "D":
        return torch.ones(shape)
    noise = torch.empty(shape).normal_(generator=generator)
    if key.endswith("dt_proj.bias"):
        # Steps, which are its softplus, of about 0.02.
        return noise.mul_(0.5).sub_(4)
    if len(shape) > 1:
        # About 0.02 at the published widths. A narrower model of so small weights would hardly mix its tokens.
        return noise.mul_(math.prod(shape[1:]) ** -0.5)
    # Vectors are biases, or weights of norms.
    return noise.mul_(0.02).add_(last == "weight")


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), **({f"{name}.bias": (outputs,)} if bias else {})}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _is_dnabert2(config: Config) -> bool:
    return "alibi_starting_size" in config


def _is_caduceus(config: Config) -> bool:
    return config.get("model_type") == "caduceus"


def _write_byte_pairs(folder: Path, size: int) -> None:
    """Write DNABERT-2's kind of tokenizer, with byte pairs of random DNA."""
    special = [f"[{name}]" for name in ("UNK", "CLS", "SEP", "PAD", "MASK")]
    generator = random.Random(0)
    sequences, bases = _BASES_TO_LEARN_FROM
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        ("".join(generator.choices("ACGT", k=bases)) for _ in range(sequences)),
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=list("ACGT"), show_progress=False
        ),
    )
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"{tokenizer.get_vocab_size()} byte pairs instead of {size}; learn from more bases")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, special.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{token.strip('[]').lower()}_token": token for token in special}
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    # The padding token that it names is [UNK]; the tokenizer's is right.
    generation = {"_from_model_config": True, "pad_token_id": 0, "transformers_version": "4.28.0"}
    _write_json(folder / "generation_config.json", generation)


def _write_six_mers(folder: Path, config: Config) -> None:
    """Write Nucleotide Transformer's tokenizer: all 6-mers, and single bases for the rest."""
    second = "add_bias_fnn" in config
    special = ["<unk>", "<pad>", "<mask>", "<cls>", *(["<eos>", "<bos>"] if second else [])]
    words = [*special, *map("".join, itertools.product("ATCG", repeat=6)), *"ATCGN"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    settings = {
        "clean_up_tokenization_spaces": True,
        "eos_token": None,
        "model_max_length": 2048 if second else 1000,
        "tokenizer_class": "EsmTokenizer",
    }
    _write_json(folder / "tokenizer_config.json", settings)
    names = {f"{name}_token": f"<{name}>" for name in ("cls", "mask", "pad", "unk")}
    _write_json(folder / "special_tokens_map.json", names)


def _write_letters(folder: Path) -> None:
    """Write the tokenizer files of Caduceus' repositories; the vocabulary is in code."""
    special = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", None, "[UNK]")
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("bos", "cls", "mask", "pad", "sep", "unk")}
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(number): {"content": token, **flags, "special": True}
            for number, token in enumerate(special)
            if token is not None
        },
        "auto_map": {"AutoTokenizer": ["tokenization_caduceus.CaduceusTokenizer", None]},
        "clean_up_tokenization_spaces": True,
        "eos_token": "[SEP]",
        "model_max_length": 131_072,
        "padding_side": "left",
        "tokenizer_class": "CaduceusTokenizer",
        **names,
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
