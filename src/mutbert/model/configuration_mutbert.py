"""The model's configuration.

This file and ``modeling_mutbert.py`` import nothing of their package but each other, so that they can travel with
a checkpoint as the Hub's custom code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from transformers import PreTrainedConfig

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

_ROPE_TYPES: Final = ("linear", "dynamic")
_ROPE_KEYS: Final = frozenset({"type", "rope_type", "factor", "rope_theta"})
_POOLER_TYPES: Final = ("mean", "first_token_transform")
# The published checkpoints name their own classes, in an `auto_map` or as `architectures`.
_PUBLISHED_CLASSES: Final = "RoPEBert"
# The package in which `transformers` keeps code that came with a checkpoint.
_REMOTE_CODE: Final = "transformers_modules"


class MutBertConfig(PreTrainedConfig):
    """What a MutBERT model is built from. The defaults are the published full-size model (85.7 M parameters).

    Parameters
    ----------
    vocab_size : int
        Tokens: five special ones, then A, C, G, T.
    hidden_size : int
        Features of a position; a multiple of `num_attention_heads`.
    num_hidden_layers : int
        Encoder layers.
    num_attention_heads : int
        Heads of a layer. The size of a head, ``hidden_size / num_attention_heads``, is even.
    intermediate_size : int
        Features inside the feed-forward block.
    hidden_act : str
        Activation, by its name in `transformers`; ``"gelu"`` is the exact one.
    hidden_dropout_prob, attention_probs_dropout_prob : float
        Dropout of features and of attention weights, in 0 to 1.
    max_position_embeddings : int
        Length in tokens that the model is trained for. Longer inputs run; `rope_scaling` says how.
    type_vocab_size : int
        Token types: the first and the second sequence of a pair.
    initializer_range : float
        Standard deviation of fresh weights.
    layer_norm_eps : float
        Added to the variance in layer norms.
    pad_token_id : int
        Id of ``[PAD]``, whose embedding starts as zeros.
    rope_theta : float
        Base of the rotary positions (Su et al. 2021, RoFormer, arXiv 2104.09864).
    rope_scaling : dict, optional
        ``{"type": "linear" | "dynamic", "factor": f}`` with ``f >= 1``, for inputs longer than trained; see
        `mutbert.model.modeling_mutbert.rotary_tables` for the formulas. ``"rope_type"`` is read as ``"type"``.
        A factor of 1 is no scaling and is kept as ``None``.
    pooler_type : str
        ``"mean"`` over the positions that are not padding, or ``"first_token_transform"``: the first token through
        a dense layer and tanh. ``"cls"`` is read as the latter, as earlier versions of this package wrote it.
    classifier_dropout : float, optional
        Dropout before a classifier; `hidden_dropout_prob` where left out.
    tie_word_embeddings : bool
        Whether the masked model's decoder is the embedding itself.
    rope_parameters : dict, optional
        `rope_scaling` and `rope_theta` in one, as newer checkpoints of other models write them.
    check_inputs : bool
        Refuse token ids, distributions and labels whose *values* cannot be right (rows that do not sum to 1, NaN),
        where they lie in a CPU's memory. Shapes are always checked. A setting of a run: it is not saved.
    **kwargs
        What every `transformers` configuration takes (``num_labels``, ``id2label``, ``problem_type``...).

    Raises
    ------
    ValueError
        When a value is out of range, or values contradict each other.
    """

    model_type = "mutbert"
    # `transformers` has a property of this name that warns of its end; here it is a plain value.
    rope_scaling = None

    def __init__(
        self,
        vocab_size: int = 9,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int = 3,
        rope_theta: float = 10000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        pooler_type: str = "mean",
        classifier_dropout: float | None = None,
        tie_word_embeddings: bool = True,
        rope_parameters: Mapping[str, Any] | None = None,
        check_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        if not type(self).__module__.startswith(_REMOTE_CODE):
            # Names the code that a checkpoint brings along. This class needs none, and saves none.
            kwargs.pop("auto_map", None)
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling if rope_parameters is None else rope_parameters
        self.pooler_type = pooler_type
        self.classifier_dropout = classifier_dropout
        self.check_inputs = check_inputs
        self.check()

    def __setattr__(self, name: str, value: Any) -> None:
        # `from_pretrained` sets what it is given on the finished configuration, so this is the one door.
        if name == "rope_parameters":
            name = "rope_scaling"
        if name == "rope_scaling" and value is not None:
            if isinstance(value, dict) and value.get("rope_theta") is not None:
                self.rope_theta = value["rope_theta"]
            value = _checked_rope_scaling(value)
        if name == "pooler_type" and value == "cls":
            value = "first_token_transform"
        super().__setattr__(name, value)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from what `to_dict` gives.

        Parameters
        ----------
        config_dict : dict
            The values.
        **kwargs
            Values that override these, and what else `transformers` takes.

        Returns
        -------
        MutBertConfig
            With ``return_unused_kwargs=True`` a pair: that, and the keyword arguments not used.
        """
        if "rope_parameters" in kwargs:
            # The library overrides only what a configuration has under the same name.
            kwargs["rope_scaling"] = kwargs.pop("rope_parameters")
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Give the values as JSON can hold them, with RoPE scaling under its current name, ``rope_parameters``."""
        values: dict[str, Any] = super().to_dict()
        values.pop("check_inputs", None)
        scaling = values.pop("rope_scaling", None)
        if scaling is not None:
            values["rope_parameters"] = {"rope_type": scaling["type"], "factor": scaling["factor"]}
        return values

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return int(self.hidden_size) // int(self.num_attention_heads)

    def check(self) -> None:
        """Check the values, alone and against each other; a model does so before it is built.

        Raises
        ------
        ValueError
            Names the value and what it must be.
        """
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if not (value is None and name == "classifier_dropout") and not (_is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{name} is {value!r}; it must be a number in 0 to 1")
        for name in ("initializer_range", "layer_norm_eps", "rope_theta"):
            value = getattr(self, name)
            if not _is_number(value) or value <= 0:
                raise ValueError(f"{name} is {value!r}; it must be a number above 0")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.head_size % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} over num_attention_heads {self.num_attention_heads} is "
                f"{self.head_size}; rotary positions need an even size of a head"
            )
        if self.rope_scaling is not None and self.rope_scaling["type"] == "dynamic" and self.head_size < 4:
            raise ValueError(f"dynamic rope_scaling needs heads of at least 4 features; these have {self.head_size}")
        if not isinstance(self.pad_token_id, int) or not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id is {self.pad_token_id!r}; it must be a token id below {self.vocab_size}")
        if self.pooler_type not in _POOLER_TYPES:
            raise ValueError(f"pooler_type is {self.pooler_type!r}; it must be one of {', '.join(_POOLER_TYPES)}")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration file; one in the published layout is turned into ours.

        Parameters
        ----------
        pretrained_model_name_or_path : str or path
            A folder, a file, or a repository of the Hub.
        **kwargs
            As `transformers` takes them.

        Returns
        -------
        tuple of dict
            The configuration's values, and the keyword arguments not used.

        Raises
        ------
        ValueError
            When it configures another model. The published layout says ``model_type: "bert"``, just as any BERT
            does; it is told apart by the classes it names.
        """
        values, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if not isinstance(values, dict):
            raise ValueError(f"{pretrained_model_name_or_path}: its config is no JSON object")  # noqa: TRY004
        model_type = values.get("model_type", cls.model_type)
        if model_type == "bert" and _names_published_classes(values):
            # Its classes live in a file of its own, which is neither needed nor trusted here.
            values = {key: value for key, value in values.items() if key not in {"auto_map", "architectures"}}
            values["model_type"] = cls.model_type
        elif model_type != cls.model_type:
            what = "a stock BERT, whose learned positions this model has no place for" if model_type == "bert" else ""
            raise ValueError(
                f"{pretrained_model_name_or_path}: its config says model_type {model_type!r}"
                f"{what and f' ({what})'}; expected {cls.model_type!r}, or a published MutBERT checkpoint, "
                f"whose auto_map names {_PUBLISHED_CLASSES} classes"
            )
        return values, unused


def _names_published_classes(values: Mapping[str, Any]) -> bool:
    auto_map, architectures = values.get("auto_map"), values.get("architectures")
    names = [
        *(auto_map.values() if isinstance(auto_map, dict) else ()),
        *(architectures if isinstance(architectures, list) else ()),
    ]
    return any(str(name).rpartition(".")[2].startswith(_PUBLISHED_CLASSES) for name in names)


def _checked_rope_scaling(value: Any) -> dict[str, Any] | None:
    """Bring a RoPE scaling into the one form ``{"type": ..., "factor": ...}``, or ``None`` where there is none."""
    wrong = ValueError(
        f'rope_scaling is {value!r}; give {{"type": "linear" or "dynamic", "factor": a number of at least 1}}'
    )
    if not isinstance(value, dict) or value.keys() - _ROPE_KEYS:
        raise wrong
    kind = value.get("rope_type", value.get("type"))
    if kind != value.get("type", kind):
        raise wrong
    if kind == "default":
        return None
    factor: Any = value.get("factor")
    if kind not in _ROPE_TYPES or not _is_number(factor) or factor < 1:
        raise wrong
    return None if factor == 1 else {"type": kind, "factor": float(factor)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["MutBertConfig"]
