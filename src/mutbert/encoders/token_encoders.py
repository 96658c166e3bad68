"""Models that read tokens: any encoder of transformers, and the peers, which need no code of their repositories."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers

from mutbert import alphabet
from mutbert.encoders.adapter import Encoder
from mutbert.encoders.inputs import TokenInputs
from mutbert.encoders.peers import load_model, make_model, read_config
from mutbert.encoders.probe import PROBE, ProbedClassifier
from mutbert.errors import InputError, one_line
from mutbert.model.checkpoints import library_bars_off, local_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mutbert.encoders.adapter import Kind, RopeScaling
    from mutbert.encoders.inputs import PaddedWindows
    from mutbert.encoders.peers import Peer
    from mutbert.examples.table import Examples
    from mutbert.genome.store import ProbabilisticGenome


# Parts of a model without its head that hidden states do not depend on.
_HEADS: Final = frozenset({"pooler", "contact_head"})


class AutoEncoder(Encoder):
    """Any other model of transformers, through its Auto classes and its own tokenizer."""

    family = "other"
    lora_targets: tuple[str, ...] = ("query", "key", "value", "dense")
    fresh_modules: tuple[str, ...] = ("classifier", "score")
    one_token_a_base = False
    special_tokens = True

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
        self, examples: Examples | PaddedWindows, *, max_tokens: int | None = None,
        genome: ProbabilisticGenome | None = None, special_tokens: bool = True,
    ) -> TokenInputs:  # fmt: skip
        """Return the tokens of sequences."""
        if genome is not None:
            raise InputError(f"{self.name}: reads tokens, not allele frequencies; leave the genome out for it")
        special_tokens = special_tokens and self.special_tokens
        return TokenInputs(self.tokenizer, examples, max_tokens=max_tokens, special_tokens=special_tokens)

    def trained_classifier(self, longest: int) -> tuple[Any, bool]:
        """Return a fine-tuned model, or a probe with its model."""
        if (Path(self._path) / PROBE).is_file():
            return ProbedClassifier.read(Path(self._path), self.body(longest), self.hidden_states), False
        return super().trained_classifier(longest)

    def layer_states(self, body: Any, batch: Mapping[str, torch.Tensor], layers: Sequence[int]) -> list[torch.Tensor]:
        """Return the hidden states of several layers, from 0, the embedding layer's, each (B, L, D)."""
        outputs = body(**batch, output_hidden_states=True)
        # The last of them is the last layer's output before a last norm, in some models.
        last = len(outputs.hidden_states) - 1
        return [outputs[0] if layer == last else outputs.hidden_states[layer] for layer in layers]

    def save_tokenizer(self, folder: Path, longest: int) -> None:  # noqa: ARG002
        """Write the tokenizer."""
        self.tokenizer.save_pretrained(folder)

    def _load(
        self, kind: Kind, longest: int, rope_scaling: RopeScaling, *, fresh_head: bool = True, **overrides: Any
    ) -> Any:
        if rope_scaling is not None:
            raise InputError(f"{self.name}: rope_scaling is for MutBERT; leave it out for other models")
        model = self._open(kind, fresh_head=fresh_head, **overrides)
        if (most := most_tokens(model)) is not None and longest > most:
            more = f"{longest} tokens are more than the {most} that it has positions for"
            raise InputError(f"{self.name}: {more}; lower max_tokens")
        return model.eval()

    def _open_tokenizer(self) -> Any:
        return self._loaded(transformers.AutoTokenizer.from_pretrained)

    def _open(self, kind: Kind, *, fresh_head: bool, **overrides: Any) -> Any:
        load = transformers.AutoModel if kind == "body" else transformers.AutoModelForSequenceClassification
        config = self._loaded(transformers.AutoConfig.from_pretrained, **overrides)
        if self._fresh:
            return self._loaded(load.from_config, config, trust_remote_code=self._settings["trust_remote_code"])
        model, info = self._loaded(load.from_pretrained, config=config, output_loading_info=True)
        # The library initialises whatever a checkpoint does not have.
        if missing := _missing_weights(model, info["missing_keys"], fresh_head=fresh_head):
            whole = "is whole" if fresh_head else "was fine-tuned"
            raise InputError(f"{self.name}: has no {', '.join(missing[:3])}; choose a model that {whole}")
        return model

    def _loaded(self, load: Any, *arguments: Any, **settings: Any) -> Any:
        """Return what the library loads; code that comes with a checkpoint may raise anything."""
        try:
            with library_bars_off():
                return load(*arguments, **settings) if arguments else load(self._path, **self._settings, **settings)
        except Exception as error:
            raise InputError(f"{self.name}: cannot be loaded: {one_line(error)}") from error


class PeerEncoder(AutoEncoder):
    """A model of the families that MutBERT is compared with, which need none of the code in their repositories."""

    def __init__(
        self, name: str, path: str, settings: Mapping[str, Any], peer: Peer, values: Mapping[str, Any], *, fresh: bool
    ) -> None:
        super().__init__(name, path, settings, fresh=fresh)
        self.family, self.lora_targets, self.fresh_modules = peer.family, peer.lora_targets, peer.fresh
        self.special_tokens, self.context, self.likelihood = peer.special_tokens, peer.context, peer.likelihood
        self._peer, self._values = peer, values

    def hidden_states(self, body: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the last hidden states, a vector per token."""
        return self._peer.fold(super().hidden_states(body, batch), body.config)

    def layer_states(self, body: Any, batch: Mapping[str, torch.Tensor], layers: Sequence[int]) -> list[torch.Tensor]:
        """Return the hidden states of several layers, a vector per token."""
        return [self._peer.fold(state, body.config) for state in super().layer_states(body, batch, layers)]

    def masked(self, longest: int) -> Any:
        """Return the masked language model."""
        return self._load("masked", longest, None, fresh_head=False)

    def masked_logits(self, model: Any, batch: Mapping[str, torch.Tensor], token_B: torch.Tensor) -> torch.Tensor:
        """Return the logits of one token of each row, (B, V); the head runs at those alone."""
        states_BLD = model.base_model(**batch)[0]
        logits: torch.Tensor = model.logits(states_BLD[torch.arange(len(token_B), device=token_B.device), token_B])
        return logits.float()

    def _open_tokenizer(self) -> Any:
        try:
            folder = local_folder(self._path, self._settings.get("revision"), weights=not self._fresh)
            tokenizer = self._peer.tokenizer(folder)
        except Exception as error:  # of several libraries, which raise many kinds
            raise InputError(f"{self.name}: its tokenizer cannot be loaded: {one_line(error)}") from None
        known = self._values.get("vocab_size")
        # Caduceus' embedding is rounded up to a multiple of eight.
        if self.family != "caduceus" and len(tokenizer) != known:
            sizes = f"its tokenizer has {len(tokenizer)} tokens and its weights are of {known}"
            raise InputError(f"{self.name}: {sizes}; get the tokenizer that belongs to them")
        return tokenizer

    def _open(self, kind: Kind, *, fresh_head: bool, **overrides: Any) -> Any:
        config = read_config(self._peer, self._values, self.name, **overrides)
        model_class = getattr(self._peer, kind)
        if self._fresh:
            model = make_model(model_class, self.name, config)
        else:
            folder = local_folder(self._path, self._settings.get("revision"))
            model = load_model(self._peer, model_class, config, folder, fresh_head=fresh_head)
        # By which others find the configuration, such as peft when it saves adapters.
        model.name_or_path = model.config.name_or_path = self._path
        return model


def _missing_weights(model: Any, missing: Iterable[str], *, fresh_head: bool) -> list[str]:
    """Return those of a checkpoint's missing weights that cannot be fresh; a head's can, where it is to be."""
    wanted = {name for name, _ in model.named_parameters()} & set(missing)
    if fresh_head:
        prefix = f"{model.base_model_prefix}."
        has_head = isinstance(getattr(model, model.base_model_prefix, None), torch.nn.Module)
        body = {name for name in wanted if name.startswith(prefix) or not has_head}
        wanted = {name for name in body if not _HEADS.intersection(name.split("."))}
    return sorted(wanted)


def most_tokens(model: Any) -> int | None:
    """Return how many positions a model has learned; None where positions have no end, as rotary ones."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, torch.nn.Embedding):
            # The first token comes after the position of padding, where there is one.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None
