"""Models that read tokens: any encoder of transformers, and the peers, which need no code of their repositories."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
import transformers

from mutbert import alphabet
from mutbert.encoders.inputs import TokenInputs
from mutbert.encoders.known import RANDOM
from mutbert.encoders.peers import load_model, make_model, read_config
from mutbert.encoders.probe import PROBE, ProbedClassifier
from mutbert.errors import InputError, one_line
from mutbert.files import sha256_of
from mutbert.model.checkpoints import library_bars_off, local_folder, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mutbert.encoders.inputs import PaddedWindows
    from mutbert.encoders.peers import Peer
    from mutbert.examples.table import Examples
    from mutbert.genome.store import ProbabilisticGenome

    Kind = Literal["body", "masked", "classifier"]

# Parts of a model without its head that hidden states do not depend on.
_HEADS: Final = frozenset({"pooler", "contact_head"})


class AutoEncoder:
    """Any other model of transformers, through its Auto classes and its own tokenizer."""

    family = "other"
    lora_targets: tuple[str, ...] = ("query", "key", "value", "dense")
    fresh_modules: tuple[str, ...] = ("classifier", "score")
    pretrained = True
    one_token_a_base = False
    special_tokens = True

    def __init__(
        self, name: str, place: str, settings: Mapping[str, Any], *, fresh: bool, trust_remote_code: bool = False
    ) -> None:
        self.name = name
        self._place = place
        # Said aloud, as the library would ask at the terminal otherwise.
        self._settings = {**settings, "trust_remote_code": trust_remote_code}
        self._fresh = fresh
        self._tokenizer: Any = None

    @property
    def tokenizer(self) -> Any:
        """The model's own tokenizer; each model has one, and no two share what they have tokenised."""
        if self._tokenizer is None:
            tokenizer = self._open_tokenizer()
            if tokenizer.pad_token_id is None:
                raise InputError(f"{self.name}: its tokenizer has no padding token; name one in tokenizer_config.json")
            special = set(tokenizer.all_special_tokens)
            letters = {letter for token in tokenizer.get_vocab() if token not in special for letter in token}
            # The library makes an empty one where there is none, to which everything is unknown.
            if not letters.issuperset(alphabet.BASES):
                raise InputError(f"{self.name}: has no tokenizer that knows A, C, G and T; put its files there too")
            self._tokenizer = tokenizer
        return self._tokenizer

    def inputs(
        self,
        examples: Examples | PaddedWindows,
        *,
        max_tokens: int | None = None,
        genome: ProbabilisticGenome | None = None,
        special_tokens: bool = True,
    ) -> TokenInputs:
        """Prepare sequences; see `Encoder.inputs`."""
        if genome is not None:
            raise InputError(f"{self.name}: reads tokens, not allele frequencies; leave the genome out for it")
        special_tokens = special_tokens and self.special_tokens
        return TokenInputs(self.tokenizer, examples, max_tokens=max_tokens, special_tokens=special_tokens)

    def classifier(
        self, outputs: int, longest: int, *, each_token: bool = False, rope_scaling: Mapping[str, Any] | None = None
    ) -> Any:
        """Load it; see `Encoder.classifier`."""
        if each_token:
            raise InputError(f"{self.name}: its tokens are not single bases, so it cannot learn a label for each base")
        # The number of labels is all it is told; the loss is ours.
        return self._load("classifier", longest, rope_scaling, num_labels=outputs)

    def trained_classifier(self, longest: int) -> tuple[Any, bool]:
        """Load it; see `Encoder.trained_classifier`."""
        if (Path(self._place) / PROBE).is_file():
            return ProbedClassifier.read(Path(self._place), self.body(longest), self.hidden_states), False
        return self._load("classifier", longest, None, fresh_head=False), False

    def body(self, longest: int, *, rope_scaling: Mapping[str, Any] | None = None) -> Any:
        """Load it; see `Encoder.body`."""
        return self._load("body", longest, rope_scaling)

    def hidden_states(self, body: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run it; see `Encoder.hidden_states`."""
        # Remote code often gives a plain tuple.
        states: torch.Tensor = body(**batch)[0]
        return states

    def layer_states(self, body: Any, batch: Mapping[str, torch.Tensor], layers: Sequence[int]) -> list[torch.Tensor]:
        """Return the hidden states of several layers, from 0, the embedding layer's, each (B, L, D)."""
        outputs = body(**batch, output_hidden_states=True)
        # What stands last among them is the last layer's output before a last norm, in some models.
        last = len(outputs.hidden_states) - 1
        return [outputs[0] if layer == last else outputs.hidden_states[layer] for layer in layers]

    def save_tokenizer(self, folder: Path, longest: int) -> None:  # noqa: ARG002
        """Save it; see `Encoder.save_tokenizer`."""
        self.tokenizer.save_pretrained(folder)

    def identity(self) -> str:
        """Say which weights these are; see `Encoder.identity`."""
        identity = checkpoint_identity(self._place, self._settings.get("revision"), config_alone=self._fresh)
        return (RANDOM if self._fresh else "") + identity

    def _load(
        self,
        kind: Kind,
        longest: int,
        rope_scaling: Mapping[str, Any] | None,
        *,
        fresh_head: bool = True,
        **overrides: Any,
    ) -> Any:
        if rope_scaling is not None:
            raise InputError(f"{self.name}: rope_scaling is for MutBERT; leave it out for other models")
        model = self._open(kind, fresh_head=fresh_head, **overrides)
        places = most_tokens(model)
        if places is not None and longest > places:
            raise InputError(
                f"{self.name}: {longest} tokens are more than the {places} that it has positions for; give max_tokens"
            )
        return model.eval()

    def _open_tokenizer(self) -> Any:
        return self._loaded(transformers.AutoTokenizer.from_pretrained)

    def _open(self, kind: Kind, *, fresh_head: bool, **overrides: Any) -> Any:
        load = {
            "body": transformers.AutoModel,
            "masked": transformers.AutoModelForMaskedLM,
            "classifier": transformers.AutoModelForSequenceClassification,
        }[kind]
        config = self._loaded(transformers.AutoConfig.from_pretrained, **overrides)
        if self._fresh:
            return self._loaded(load.from_config, config, trust_remote_code=self._settings["trust_remote_code"])
        model, info = self._loaded(load.from_pretrained, config=config, output_loading_info=True)
        # The library gives fresh values to whatever a checkpoint does not have.
        if missing := _missing_weights(model, info["missing_keys"], fresh_head=fresh_head):
            whole = "is whole" if fresh_head else "was fine-tuned"
            raise InputError(f"{self.name}: has no {', '.join(missing[:3])}; give a model that {whole}")
        return model

    def _loaded(self, load: Any, *arguments: Any, **settings: Any) -> Any:
        """Call the library, and say in one line what is wrong; code that comes with a checkpoint may raise anything."""
        try:
            with library_bars_off():
                if arguments:
                    return load(*arguments, **settings)
                return load(self._place, **self._settings, **settings)
        except Exception as error:
            raise InputError(f"{self.name}: cannot be loaded: {one_line(error)}") from error


class PeerEncoder(AutoEncoder):
    """A model of the families that MutBERT is compared with, which need none of the code in their repositories."""

    def __init__(
        self,
        name: str,
        place: str,
        settings: Mapping[str, Any],
        peer: Peer,
        values: Mapping[str, Any],
        *,
        fresh: bool,
    ) -> None:
        super().__init__(name, place, settings, fresh=fresh)
        self.family = peer.family
        self.lora_targets = peer.lora_targets
        self.fresh_modules = peer.fresh
        self.special_tokens = peer.special_tokens
        self.context = peer.context
        self.likelihood = peer.likelihood
        self._peer = peer
        self._values = values

    def hidden_states(self, body: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run it; see `Encoder.hidden_states`."""
        return self._peer.fold(super().hidden_states(body, batch), body.config)

    def layer_states(self, body: Any, batch: Mapping[str, torch.Tensor], layers: Sequence[int]) -> list[torch.Tensor]:
        """Return the hidden states of several layers; see `AutoEncoder.layer_states`."""
        return [self._peer.fold(state, body.config) for state in super().layer_states(body, batch, layers)]

    def masked(self, longest: int) -> Any:
        """Load the masked language model."""
        return self._load("masked", longest, None, fresh_head=False)

    def masked_logits(self, model: Any, batch: Mapping[str, torch.Tensor], token_B: torch.Tensor) -> torch.Tensor:
        """Run the masked model, and give the logits of one token of each row, (B, V); the head runs at those alone."""
        states_BLD = model.base_model(**batch)[0]
        logits: torch.Tensor = model.logits(states_BLD[torch.arange(len(token_B), device=token_B.device), token_B])
        return logits.float()

    def _open_tokenizer(self) -> Any:
        try:
            folder = local_folder(self._place, self._settings.get("revision"), weights=not self._fresh)
            tokenizer = self._peer.tokenizer(folder)
        except Exception as error:  # of several libraries, which raise many kinds
            raise InputError(f"{self.name}: its tokenizer cannot be loaded: {one_line(error)}") from None
        known = self._values.get("vocab_size")
        # Caduceus' embedding is rounded up to a multiple of eight.
        if self.family != "caduceus" and len(tokenizer) != known:
            raise InputError(
                f"{self.name}: its tokenizer has {len(tokenizer)} tokens and its weights are of {known}; get the "
                "tokenizer that belongs to them"
            )
        return tokenizer

    def _open(self, kind: Kind, *, fresh_head: bool, **overrides: Any) -> Any:
        config = read_config(self._peer, self._values, self.name, **overrides)
        model_class = getattr(self._peer, kind)
        if self._fresh:
            model = make_model(model_class, config, self.name)
        else:
            folder = local_folder(self._place, self._settings.get("revision"))
            model = load_model(self._peer, model_class, config, folder, fresh_head=fresh_head)
        # By which others find the configuration, such as peft when it saves adapters.
        model.name_or_path = model.config.name_or_path = self._place
        return model


def _missing_weights(model: Any, missing: Iterable[str], *, fresh_head: bool) -> list[str]:
    """Of the weights that a checkpoint has not, keep those that cannot be fresh; a head can, where it is to be."""
    wanted = {name for name, _ in model.named_parameters()} & set(missing)
    if fresh_head:
        prefix = f"{model.base_model_prefix}."
        has_head = isinstance(getattr(model, model.base_model_prefix, None), torch.nn.Module)
        wanted = {
            name
            for name in wanted
            if (name.startswith(prefix) or not has_head) and not _HEADS.intersection(name.split("."))
        }
    return sorted(wanted)


def most_tokens(model: Any) -> int | None:
    """Return how many positions a model has learned; None where positions have no end, as rotary ones."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, torch.nn.Embedding):
            # Where padding has a place of its own, the first token's is the one behind it.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def checkpoint_identity(place: str, revision: str | None = None, *, config_alone: bool = False) -> str:
    """Return a line that differs where a checkpoint's configuration or weights do, or the configuration alone."""
    folder = Path(place)
    if not folder.is_dir():
        return f"{place}@{revision or 'main'}"
    files = [folder / "config.json", *([] if config_alone else weight_files(folder))]
    digests = {path.name: _digest(path, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


@cache
def _digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001
    """Return a file's digest, computed again where it has been written anew."""
    return sha256_of(path)
