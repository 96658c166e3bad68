"""One adapter for every model: its inputs, its classifier, its hidden states.

A model is named by a name of `mutbert.encoders.known`, a folder, or a repository of the Hub; ``random:`` before it
means the same model with fresh weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import transformers

from mutbert.encoders.cnn import CnnClassifier
from mutbert.encoders.inputs import BaseInputs
from mutbert.encoders.known import RANDOM, resolve_model
from mutbert.encoders.peers import find_peer
from mutbert.encoders.token_encoders import AutoEncoder, PeerEncoder, checkpoint_identity
from mutbert.errors import InputError, one_line
from mutbert.model import (
    MutBertConfig,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
    MutBertTokenizer,
)
from mutbert.model.checkpoints import check_folder, library_bars_off, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from mutbert.encoders.inputs import Inputs, PaddedWindows
    from mutbert.examples.table import Examples
    from mutbert.genome.store import ProbabilisticGenome

CNN: Final = "cnn"
_OWN_TYPE: Final = "mutbert"


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
        examples: Examples | PaddedWindows,
        *,
        max_tokens: int | None = None,
        genome: ProbabilisticGenome | None = None,
        special_tokens: bool = True,
    ) -> Inputs:
        """Prepare sequences; `genome` gives allele frequencies to models that can read them, and so do windows.

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
        examples: Examples | PaddedWindows,
        *,
        max_tokens: int | None = None,
        genome: ProbabilisticGenome | None = None,
        special_tokens: bool = True,
    ) -> BaseInputs:
        """Prepare sequences; see `Encoder.inputs`."""
        return BaseInputs(examples, max_tokens=max_tokens, genome=genome, special_tokens=special_tokens)


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
        identity = checkpoint_identity(self._place, self._settings.get("revision"), config_alone=self._fresh)
        return (RANDOM if self._fresh else "") + identity

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
