"""Models that read tokens: any encoder of transformers, and linear probes of their hidden states.

A probe is kept with the model that it reads: the folder is the model's own checkpoint and ``probe.safetensors``, with
``weight`` (K, D) and ``bias`` (K,). Shape suffixes: B batch, L tokens, D features, K outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mutbert import alphabet
from mutbert.encoders.adapter import Classes, Encoder, Kind, Scaling
from mutbert.encoders.inputs import PaddedWindows, TokenInputs
from mutbert.errors import InputError, reading
from mutbert.examples.table import Examples
from mutbert.model import MutBertConfig
from mutbert.model.checkpoints import library_bars_off, load_quietly, local_folder, read_weights, without_other_head

_PROBE: Final = "probe.safetensors"


class AutoEncoder(Encoder):
    """Any other model of transformers, through its Auto classes and its own tokenizer."""

    family = "other"
    lora_targets: tuple[str, ...] = ("query", "key", "value", "dense")
    fresh_modules: tuple[str, ...] = ("classifier", "score")
    one_token_a_base = False
    special_tokens = True  # whether its paper has them around a sequence
    context = 512  # bases of the windows in which variants are scored, by default

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer; no two models share what they have tokenised."""
        tokenizer = self._open_tokenizer()
        if tokenizer.pad_token_id is None:
            raise InputError(f"{self.name}: its tokenizer has no padding token; name one in tokenizer_config.json")
        special = set(tokenizer.all_special_tokens)
        letters = {letter for token in tokenizer.get_vocab() if token not in special for letter in token}
        # The library makes an empty one where there is none, to which everything is unknown.
        if not letters.issuperset(alphabet.BASES):
            raise InputError(f"{self.name}: has no tokenizer that knows A, C, G and T; add its files")
        return tokenizer

    def inputs(
        self, examples: Examples | PaddedWindows, *, genome: object = None, special_tokens: bool = True, **settings: Any
    ) -> TokenInputs:
        """Return the tokens of sequences."""
        if genome is not None:
            raise InputError(f"{self.name}: reads tokens, not allele frequencies; leave the genome out for it")
        own = {"special_tokens": special_tokens and self.special_tokens}
        return self._loaded(TokenInputs, self.tokenizer, examples, **own, **settings)  # type: ignore[no-any-return]

    def trained_classifier(self) -> tuple[Any, bool]:
        """Return a fine-tuned model, or a probe with its model."""
        if (probe := Path(self._path, _PROBE)).is_file():
            weight_KD, bias_K = self._loaded(lambda: itemgetter("weight", "bias")(load_file(probe)))
            return ProbedClassifier(self.body(0), self.hidden_states, weight_KD, bias_K).eval(), False
        return super().trained_classifier()

    def layer_states(self, body: Any, batch: Mapping[str, Tensor], layers: Sequence[int]) -> list[Tensor]:
        """Return the hidden states of several layers, from 0, the embedding layer's, each (B, L, D)."""
        outputs = body(**batch, output_hidden_states=True)
        # The last of them is the last layer's output before a last norm, in some models.
        every = [*outputs.hidden_states[:-1], outputs[0]]
        return [every[layer] for layer in layers]

    def save_tokenizer(self, folder: Path, longest: int | None) -> None:
        """Write the tokenizer."""
        if longest:
            self.tokenizer.model_max_length = longest
        self.tokenizer.save_pretrained(folder)

    def _load(self, kind: Kind, longest: int, rope_scaling: Scaling, outputs: int = 0, classes: Classes = None) -> Any:
        if rope_scaling is not None:
            raise InputError(f"{self.name}: rope_scaling is for MutBERT; leave it out for other models")
        # On no device, which is enough to know its class, and the names and shapes of its weights.
        with nullcontext() if self._fresh else torch.device("meta"):
            model = self._build(kind, {"num_labels": outputs} if outputs else {})
        if not self._fresh:
            model = self._with_weights(model, kind, outputs, classes)
        # By which others find the configuration, such as peft when it saves adapters.
        model.name_or_path = model.config.name_or_path = self._path
        self._check_tokens(model)
        if (most := most_tokens(model)) is not None and longest > most:
            more = f"{longest} tokens are more than the {most} that it has positions for"
            raise InputError(f"{self.name}: {more}; lower max_tokens")
        return model.eval()

    def _open_tokenizer(self) -> Any:
        return self._loaded(transformers.AutoTokenizer.from_pretrained, self._path, **self._settings)

    def _build(self, kind: Kind, overrides: Mapping[str, Any]) -> Any:
        """Return a model of the configuration."""
        load = transformers.AutoModel if kind == "body" else transformers.AutoModelForSequenceClassification
        config = self._loaded(transformers.AutoConfig.from_pretrained, self._path, **self._settings, **overrides)
        return self._loaded(load.from_config, config, trust_remote_code=self._settings["trust_remote_code"])

    def _with_weights(self, model: Any, kind: Kind, outputs: int, classes: Classes) -> Any:
        """Return a model with the weights of the checkpoint; with `outputs`, its head may be fresh."""
        weights = read_weights(local_folder(self._path, self._settings.get("revision")))
        if classes is not None:
            weights = without_other_head(self.name, weights, self._values.get("id2label"), classes)
        model, info = self._loaded(load_quietly, type(model), model.config, self._own_weights(model, weights))
        fresh = outputs > 0 or kind == "body"
        # The library initialises whatever a checkpoint does not have.
        if missing := self._missing(model, info, fresh_head=fresh):
            whole = "is whole" if fresh or kind == "masked" else "was fine-tuned"
            raise InputError(f"{self.name}: has no {', '.join(missing[:3])}; choose a model that {whole}")
        for weight, found, expected in info["mismatched_keys"]:
            head = outputs and weight.startswith(self.fresh_modules)
            why = "is needed; use the pre-trained model" if head else "follows from config.json; get both anew"
            raise InputError(f"{self.name}: {weight} has shape {tuple(found)}, and {tuple(expected)} {why}")
        return model

    def _own_weights(self, model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """Return a checkpoint's weights by the names of a model."""
        return weights

    def _missing(self, model: Any, info: Mapping[str, Any], *, fresh_head: bool) -> list[str]:
        """Return those of a checkpoint's missing weights that cannot be fresh; a head's can, where it is to be."""
        wanted = {name for name, _ in model.named_parameters()} & {*info["missing_keys"]}
        unread = {"contact_head", *["pooler"] * fresh_head}  # by hidden states
        if fresh_head and isinstance(getattr(model, model.base_model_prefix, None), nn.Module):
            wanted = {name for name in wanted if name.startswith(f"{model.base_model_prefix}.")}
        return sorted(name for name in wanted if not unread & set(name.split(".")))

    def _check_tokens(self, model: Any) -> None:
        """Have a model know its tokenizer's padding; raise InputError where it does not know all of its tokens."""
        model.config.pad_token_id, last = self.tokenizer.pad_token_id, max(self.tokenizer.get_vocab().values())
        # Code that comes with a checkpoint may not have it found.
        with suppress(AttributeError, NotImplementedError):
            if (known := len(model.get_input_embeddings().weight)) <= last:
                sizes = f"its tokenizer has ids up to {last:,}, and its embedding ends at {known - 1:,}"
                raise InputError(f"{self.name}: {sizes}; get the tokenizer that belongs to it")

    def _loaded(self, load: Any, *arguments: Any, **settings: Any) -> Any:
        """Return what the library loads; code that comes with a checkpoint may raise anything."""
        with reading(self.name, "get it anew"), library_bars_off():
            return load(*arguments, **settings)


def most_tokens(model: Any) -> int | None:
    """Return how many positions a model has learned, or MutBERT reads; None where positions have no end."""
    if isinstance(model.config, MutBertConfig):
        return model.config.most_tokens
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            # The first token comes after the position of padding, where there is one.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


class ProbedClassifier(nn.Module):
    """A frozen model of transformers with a linear layer on the mean of its hidden states over all tokens."""

    def __init__(self, body: Any, hidden_states: Callable[..., Tensor], weight_KD: Tensor, bias_K: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(weight_KD), nn.Buffer(bias_K)
        # The configuration says what the outputs mean.
        self.body, self.config, self._hidden_states = body, body.config, hidden_states

    def forward(self, **batch: Tensor) -> SimpleNamespace:
        """Return ``logits``, (B, K)."""
        mean_BD = mean_over_tokens(self._hidden_states(self.body, batch), batch.get("attention_mask"))
        return SimpleNamespace(logits=nn.functional.linear(mean_BD, self.weight, self.bias))

    def save_pretrained(self, folder: Path) -> None:
        """Write the body and the probe."""
        self.body.save_pretrained(folder)
        save_file({"weight": self.weight.cpu().contiguous(), "bias": self.bias.cpu()}, folder / _PROBE)


def mean_over_tokens(states_BLD: Tensor, mask_BL: Tensor | None) -> Tensor:
    """Return the mean over all tokens but padding, special ones included, as published: float32 (B, D)."""
    states_BLD = states_BLD.float()
    if mask_BL is None:
        return states_BLD.mean(dim=1)
    return (states_BLD * mask_BL[..., None]).sum(dim=1) / mask_BL.sum(dim=1, keepdim=True)
