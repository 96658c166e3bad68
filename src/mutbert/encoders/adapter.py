"""One adapter for every model: its inputs, its classifier, its hidden states.

A model is named by a name of `mutbert.encoders.known`, a folder, or a repository of the Hub; ``random:`` before it
means the same model with fresh weights.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import torch
import transformers

from mutbert import alphabet
from mutbert.encoders.cnn import CnnClassifier
from mutbert.encoders.inputs import BaseInputs, Population, TokenInputs
from mutbert.encoders.known import resolve_model
from mutbert.encoders.peers import find_peer, load_model, make_model, read_config
from mutbert.encoders.probe import PROBE, ProbedClassifier
from mutbert.errors import InputError, one_line
from mutbert.model import (
    MutBertConfig,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
    MutBertTokenizer,
)
from mutbert.model.checkpoints import check_folder, library_bars_off, local_folder, read_checkpoint, weight_files
from mutbert.publishing import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mutbert.encoders.inputs import Inputs, Sequences
    from mutbert.encoders.peers import Peer
    from mutbert.examples.table import Examples
    from mutbert.genome.store import ProbabilisticGenome

RANDOM: Final = "random:"
CNN: Final = "cnn"
_OWN_TYPE: Final = "mutbert"
# Parts of a model without its head that hidden states do not depend on.
_HEADS: Final = frozenset({"pooler", "contact_head"})


class Encoder(Protocol):
    """A model to compare or to fine-tune.

    Attributes
    ----------
    name : str
        What it is called in tables.
    family : str
        See `mutbert.encoders.known.KnownModel`.
    lora_targets : tuple of str
        Layers for low-rank adapters; empty where there can be none.
    fresh_modules : tuple of str
        Modules of its classifier that start from fresh weights, so that they are trained beside adapters.
    pretrained : bool
        Whether it has anything that a linear probe could use without training.
    one_token_a_base : bool
        Whether labels of single bases can be learnt.
    """

    name: str
    family: str
    lora_targets: tuple[str, ...]
    fresh_modules: tuple[str, ...]
    pretrained: bool
    one_token_a_base: bool

    def inputs(
        self,
        examples: Examples,
        *,
        max_tokens: int | None = None,
        genome: ProbabilisticGenome | None = None,
        special_tokens: bool = True,
    ) -> Inputs:
        """Prepare sequences; `genome` gives allele frequencies to models that can read them.

        Special tokens are put around a sequence, as in training, unless `special_tokens` says otherwise.

        Raises
        ------
        InputError
            When the tokenizer cannot be loaded, or frequencies are asked for and cannot be used.
        """

    def classifier(
        self, outputs: int, longest: int, *, each_token: bool = False, rope_scaling: Mapping[str, Any] | None = None
    ) -> Any:
        """Load the model with a fresh classifier, whose weights come from torch's generator.

        Parameters
        ----------
        outputs : int
            Numbers that it gives.
        longest : int
            Tokens of the longest sequence that it will be given.
        each_token : bool
            Whether it gives them for every token, and not for a sequence.
        rope_scaling : mapping, optional
            For models with rotary positions; as much as `longest` needs where left out.

        Returns
        -------
        nn.Module
            It takes a batch of `Inputs` and gives an output with ``logits``.

        Raises
        ------
        InputError
            When it cannot be loaded, or is trained for shorter sequences.
        """

    def trained_classifier(self, longest: int) -> tuple[Any, bool]:
        """Load a fine-tuned model, all of it.

        Returns
        -------
        tuple of (nn.Module, bool)
            The model, in evaluation mode, and whether it has an output for every token.

        Raises
        ------
        InputError
            When it was not fine-tuned, or weights are missing.
        """

    def body(self, longest: int, *, rope_scaling: Mapping[str, Any] | None = None) -> Any:
        """Load the model without a head; arguments as for `classifier`."""

    def hidden_states(self, body: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run it, and give the last hidden states, (B, L, D)."""

    def save_tokenizer(self, folder: Path, longest: int) -> None:
        """Put the tokenizer into a model's folder, where there is one; `longest` is the tokens that it cuts to."""

    def identity(self) -> str:
        """Say in one line which weights these are, so that results of others are not taken for theirs."""


def open_encoder(
    model: str | Path, *, name: str = "", revision: str | None = None, trust_remote_code: bool = False
) -> Encoder:
    """Make the adapter of a model.

    Parameters
    ----------
    model : str or Path
        A known name, a folder, or a repository of the Hub, with ``random:`` before it for fresh weights; or ``cnn``.
    name : str
        What to call it; the model as given where left out.
    revision : str, optional
        A commit, tag or branch of the repository.
    trust_remote_code : bool
        Run code that comes with a checkpoint.

    Returns
    -------
    Encoder
        Nothing but its configuration is read yet.

    Raises
    ------
    InputError
        When there is no such model, or it needs remote code that may not run.
    """
    text = str(model)
    if text == CNN:
        return CnnEncoder(name or CNN)
    fresh = text.startswith(RANDOM)
    place = text.removeprefix(RANDOM)
    place = resolve_model(place)
    if not fresh:
        check_folder(place)
    elif Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        raise InputError(f"{place}: has no config.json, which random weights are made by; give a model folder")
    settings = {"revision": revision} if revision else {}
    values, own = _config_values(place, settings)
    if own:
        return MutBertEncoder(name or text, place, settings, fresh=fresh)
    if peer := find_peer(values, place):
        return PeerEncoder(name or text, place, settings, peer, values, fresh=fresh)
    if values.get("auto_map") and not trust_remote_code:
        # The library would make a stock model of the same type instead, of whatever weights happen to fit.
        raise InputError(f"{place}: needs code that comes with the checkpoint; give --trust-remote-code to run it")
    return AutoEncoder(name or text, place, settings, fresh=fresh, trust_remote_code=trust_remote_code)


def _config_values(place: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Read a configuration, and say whether it is MutBERT's."""
    try:
        values, _ = transformers.PreTrainedConfig.get_config_dict(place, **settings)
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: cannot be loaded: {one_line(error)}") from None
    try:
        MutBertConfig.get_config_dict(place, **settings)
    except ValueError:
        return values, False
    return values, values.get("model_type") in {_OWN_TYPE, "bert"}


class _ReadsBases:
    """What models share that read single bases, or distributions over them."""

    one_token_a_base = True

    def inputs(
        self,
        examples: Examples,
        *,
        max_tokens: int | None = None,
        genome: ProbabilisticGenome | None = None,
        special_tokens: bool = True,
    ) -> BaseInputs:
        """Prepare sequences; see `Encoder.inputs`."""
        population = None if genome is None else Population(examples, genome)
        return BaseInputs(examples, max_tokens=max_tokens, population=population, special_tokens=special_tokens)


class MutBertEncoder(_ReadsBases):
    """MutBERT, published or one's own."""

    family = "mutbert"
    lora_targets: tuple[str, ...] = ("query", "key", "value", "dense")
    fresh_modules: tuple[str, ...] = ("classifier",)
    pretrained = True

    def __init__(self, name: str, place: str, settings: Mapping[str, Any], *, fresh: bool) -> None:
        self.name = name
        self._place = place
        self._settings = settings
        self._fresh = fresh

    def classifier(
        self, outputs: int, longest: int, *, each_token: bool = False, rope_scaling: Mapping[str, Any] | None = None
    ) -> Any:
        """Load it; see `Encoder.classifier`."""
        kind: Any = MutBertForTokenClassification if each_token else MutBertForSequenceClassification
        return self._load(kind, longest, rope_scaling, num_labels=outputs)

    def trained_classifier(self, longest: int) -> tuple[Any, bool]:
        """Load it; see `Encoder.trained_classifier`."""
        config = MutBertConfig.from_pretrained(self._place, **self._settings)
        each_token = MutBertForTokenClassification.__name__ in (config.architectures or ())
        kind: Any = MutBertForTokenClassification if each_token else MutBertForSequenceClassification
        return self._load(kind, longest, None, fresh_head=False).eval(), each_token

    def body(self, longest: int, *, rope_scaling: Mapping[str, Any] | None = None) -> Any:
        """Load it; see `Encoder.body`."""
        return self._load(MutBertModel, longest, rope_scaling, pooler_type="mean")

    def hidden_states(self, body: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run it; see `Encoder.hidden_states`."""
        states: torch.Tensor = body(**batch).last_hidden_state
        return states

    def save_tokenizer(self, folder: Path, longest: int) -> None:
        """Save it; see `Encoder.save_tokenizer`."""
        MutBertTokenizer(model_max_length=longest).save_pretrained(folder)

    def identity(self) -> str:
        """Say which weights these are; see `Encoder.identity`."""
        return _identity(self._place, self._settings.get("revision"), self._fresh)

    def _load(
        self,
        kind: Any,
        longest: int,
        rope_scaling: Mapping[str, Any] | None,
        *,
        fresh_head: bool = True,
        **overrides: Any,
    ) -> Any:
        config = MutBertConfig.from_pretrained(self._place, **self._settings)
        trained = config.max_position_embeddings
        if rope_scaling:
            try:
                config.rope_scaling = dict(rope_scaling)
            except ValueError as error:
                raise InputError(f"{self.name}: {error}") from None
        scaling = config.rope_scaling
        factor = scaling["factor"] if scaling else 1.0
        if longest > trained * factor:
            if rope_scaling:
                raise InputError(
                    f"{self.name}: {longest} tokens are more than {trained} times {factor:g}; raise the factor of "
                    "rope_scaling"
                )
            scaling = {"type": "dynamic", "factor": longest / trained}
        if not self._fresh:
            with library_bars_off():
                return read_checkpoint(
                    self._place, kind, fresh_head=fresh_head, rope_scaling=scaling, **overrides, **self._settings
                )
        config.rope_scaling = scaling
        for key, value in overrides.items():
            setattr(config, key, value)
        return kind(config).eval()


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
        examples: Examples | Sequences,
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
        return _identity(self._place, self._settings.get("revision"), self._fresh)

    def _load(
        self,
        kind: Literal["body", "masked", "classifier"],
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

    def _open(self, kind: Literal["body", "masked", "classifier"], *, fresh_head: bool, **overrides: Any) -> Any:
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
            tokenizer = self._peer.tokenizer(self._folder())
        except Exception as error:  # of several libraries, which raise many kinds
            raise InputError(f"{self.name}: its tokenizer cannot be loaded: {one_line(error)}") from None
        known = self._values.get("vocab_size")
        # Caduceus' embedding is rounded up to a multiple of eight.
        if self.family != "caduceus" and len(tokenizer) != known:
            raise InputError(
                f"{self.name}: its tokenizer has {len(tokenizer):,} tokens and its weights are of {known:,}; get the "
                "tokenizer that belongs to them"
            )
        return tokenizer

    def _open(self, kind: Literal["body", "masked", "classifier"], *, fresh_head: bool, **overrides: Any) -> Any:
        config = read_config(self._peer, self._values, self.name, **overrides)
        model_class = getattr(self._peer, kind)
        if self._fresh:
            model = make_model(model_class, config, self.name)
        else:
            model = load_model(self._peer, model_class, config, self._folder(), fresh_head=fresh_head)
        # By which others find the configuration, such as peft when it saves adapters.
        model.name_or_path = model.config.name_or_path = self._place
        return model

    def _folder(self) -> Path:
        return local_folder(self._place, self._settings.get("revision"))


class CnnEncoder(_ReadsBases):
    """A plain convolutional network, so that nobody takes for the merit of pre-training what is not."""

    family = "cnn"
    lora_targets: tuple[str, ...] = ()
    fresh_modules: tuple[str, ...] = ()
    pretrained = False

    def __init__(self, name: str) -> None:
        self.name = name

    def classifier(
        self,
        outputs: int,
        longest: int,  # noqa: ARG002
        *,
        each_token: bool = False,
        rope_scaling: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> CnnClassifier:
        """Make it; see `Encoder.classifier`."""
        return CnnClassifier(outputs, each_token=each_token)

    def trained_classifier(self, longest: int) -> tuple[Any, bool]:  # noqa: ARG002
        """Refuse; see `Encoder.trained_classifier`."""
        raise InputError(f"{self.name}: is there to compare with, and not kept once it is trained")

    def body(self, longest: int, *, rope_scaling: Mapping[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Refuse; see `Encoder.body`."""
        raise InputError(f"{self.name}: has no weights before it is trained, so nothing can be embedded by it")

    def hidden_states(self, body: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        """Refuse; see `Encoder.hidden_states`."""
        raise InputError(f"{self.name}: has no weights before it is trained, so nothing can be embedded by it")

    def save_tokenizer(self, folder: Path, longest: int) -> None:
        """Do nothing; see `Encoder.save_tokenizer`."""

    def identity(self) -> str:
        """Say which weights these are; see `Encoder.identity`."""
        return f"{CNN} 1"


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


@cache
def _digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001
    """Compute a file's digest, again where it has been written anew."""
    return sha256_of(path)


def _identity(place: str, revision: str | None, fresh: bool) -> str:
    folder = Path(place)
    if not folder.is_dir():
        return f"{RANDOM if fresh else ''}{place}@{revision or 'main'}"
    files: Sequence[Path] = [folder / "config.json"] if fresh else [folder / "config.json", *weight_files(folder)]
    digests = {path.name: _digest(path, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files}
    return (RANDOM if fresh else "") + hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
