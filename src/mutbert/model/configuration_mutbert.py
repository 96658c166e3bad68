"""The model's configuration. Like ``modeling_mutbert.py`` it imports nothing of its package, to be custom code."""

import json
import math
import re
from typing import Any, Final

from transformers import PreTrainedConfig

DEFAULTS: Final[dict[str, Any]] = {
    "vocab_size": 9, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "classifier_dropout": None,
    "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
    "pad_token_id": 3, "rope_theta": 10000.0, "pooler_type": "mean", "tie_word_embeddings": True, "check_inputs": True,
    "pre_norm": False, "gated_feed_forward": False,
}  # fmt: skip
_COUNTS: Final = tuple(name for name, value in DEFAULTS.items() if type(value) is int and name != "pad_token_id")
_NEW: Final = ("pre_norm", "gated_feed_forward")  # which earlier versions cannot read
_SCALES: Final = ("initializer_range", "layer_norm_eps", "rope_theta")


class MutBertConfig(PreTrainedConfig):
    """The architecture of a MutBERT model; by default the published full-size one (85.7 M parameters).

    Parameters
    ----------
    rope_theta, rope_scaling
        Base of the rotary positions, and for inputs longer than `max_position_embeddings` ``{"type": "linear" |
        "dynamic", "factor": f}``, f ≥ 1; see `layers_mutbert.rotary_tables`. Saved in one, as ``rope_parameters``.
    pre_norm, gated_feed_forward : bool
        What no published model has: RMSNorm before each block, and of queries and keys, instead of LayerNorm after it;
        a feed-forward of three matrices, ``down(hidden_act(gate(x)) * up(x))``. Saved where true.
    pooler_type : str
        ``"mean"`` over the tokens, or ``"first_token_transform"`` (dense, tanh; also read from the older ``"cls"``).
    check_inputs : bool
        Whether probabilities in CPU memory must be distributions. Not saved.
    **kwargs
        As for `transformers.BertConfig`. A, C, G, T are the last four tokens.
    """

    model_type = "mutbert"
    # `transformers` has a property of this name that warns of its end; here it is a plain value.
    rope_scaling = None
    is_decoder = add_cross_attention = False  # What BERT of `transformers` asks for.

    def __init__(self, *, rope_scaling: Any = None, rope_parameters: Any = None, **kwargs: Any) -> None:
        if not type(self).__module__.startswith("transformers_modules"):
            # Names the code that came with a checkpoint, where this class did not come with it itself.
            kwargs.pop("auto_map", None)
        super().__init__(**{**DEFAULTS, **kwargs})
        self.rope_scaling = rope_scaling if rope_parameters is None else rope_parameters
        self.check()

    def __setattr__(self, name: str, value: Any) -> None:
        # `from_pretrained` sets overrides on the finished configuration.
        if name in {"rope_scaling", "rope_parameters"}:
            name = "rope_scaling"
            if isinstance(value, dict) and value.get("rope_theta") is not None:
                self.rope_theta = value["rope_theta"]
            value = None if value is None else _normalized_scaling(value)
        elif name == "pooler_type" and value == "cls":
            value = "first_token_transform"
        super().__setattr__(name, value)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return a configuration with the values of `to_dict`; keyword arguments override them."""
        if "rope_parameters" in kwargs:
            # The library overrides only what a configuration has under the same name.
            kwargs["rope_scaling"] = kwargs.pop("rope_parameters")
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the values of ``config.json``."""
        values: dict[str, Any] = super().to_dict()
        values.pop("check_inputs", None)
        values = {name: value for name, value in values.items() if value or name not in _NEW}
        if scaling := values.pop("rope_scaling", None):
            values["rope_parameters"] = {"rope_type": scaling["type"], "factor": scaling["factor"]}
        return values

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return int(self.hidden_size) // int(self.num_attention_heads)

    @property
    def most_tokens(self) -> int:
        """Tokens of the longest input: those of training, as many times as RoPE scaling has it."""
        factor = self.rope_scaling["factor"] if self.rope_scaling else 1.0
        return int(self.max_position_embeddings * factor + 1e-6)  # Where the factor is a quotient, it is rounded.

    def check(self) -> None:
        """Raise ValueError where a value is out of range, as models do before they are built."""
        for names, what, is_valid in (
            (_COUNTS, "a whole number of at least 1", lambda x: isinstance(x, int) and x >= 1),
            (_SCALES, "a number above 0", lambda x: _is_number(x) and x > 0),
            (_NEW, "true or false", lambda x: isinstance(x, bool)),
            (("hidden_act",), "the name of an activation", lambda x: isinstance(x, str)),
            (("pad_token_id",), "a token id", lambda x: isinstance(x, int) and 0 <= x < self.vocab_size),
            (("pooler_type",), "one of mean, first_token_transform", lambda x: x in ("mean", "first_token_transform")),
        ):
            for name in names:
                if not is_valid(value := getattr(self, name)):
                    raise ValueError(f"{name} is {value!r}; it must be {what}")
        smallest = 4 if self.rope_scaling is not None and self.rope_scaling["type"] == "dynamic" else 2
        if self.hidden_size % self.num_attention_heads or self.head_size % 2 or self.head_size < smallest:
            what = f"hidden_size {self.hidden_size} over num_attention_heads {self.num_attention_heads}"
            raise ValueError(f"{what} must be an even whole number of at least {smallest}, for rotary positions")

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict[str, Any], Any]:
        """Return a configuration file's values, translated where published, and unused keyword arguments."""
        values, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if not isinstance(values, dict):
            raise ValueError("its config is no JSON object")  # noqa: TRY004
        model_type = values.get("model_type", cls.model_type)
        named = json.dumps([values.get("auto_map"), values.get("architectures")])
        # The published layout says "bert", as any BERT does, and is recognised by the classes that it names.
        if model_type == "bert" and re.search(r"\bRoPEBert", named):
            values = {key: value for key, value in values.items() if key not in {"auto_map", "architectures"}}
            values["model_type"] = cls.model_type
        elif model_type != cls.model_type:
            found = "'bert' (a stock BERT, which has learned positions)" if model_type == "bert" else repr(model_type)
            raise ValueError(f"its config has model_type {found} and no RoPEBert classes; give a MutBERT checkpoint")
        return values, unused


def _normalized_scaling(value: Any) -> dict[str, Any] | None:
    """Return a RoPE scaling in its one form ``{"type": ..., "factor": ...}``, or ``None`` where it scales nothing."""
    given = {key: each for key, each in value.items() if key != "rope_theta"} if isinstance(value, dict) else {}
    kinds = {given.pop("type", None), given.pop("rope_type", None)} - {None}
    factor: Any = given.pop("factor", 1.0 if kinds == {"default"} else None)
    if given or kinds not in ({"linear"}, {"dynamic"}, {"default"}) or not _is_number(factor) or factor < 1:
        right = '{"type": "linear" or "dynamic", "factor": a number of at least 1}'
        raise ValueError(f"rope_scaling is {value!r}; give {right}")
    return None if factor == 1 or kinds == {"default"} else {"type": kinds.pop(), "factor": float(factor)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
