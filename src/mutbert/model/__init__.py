"""The model, its configuration and its tokenizer, as citizens of Hugging Face `transformers`.

Importing this package makes the Auto classes know them, so that ``AutoModelForMaskedLM.from_pretrained(folder)``
and its like find a MutBERT checkpoint.
"""

from __future__ import annotations

from mutbert.errors import MissingExtraError

try:
    # First, because transformers would go on without it for a while.
    import torch  # noqa: F401
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
    )

    from mutbert.model.checkpoints import read_checkpoint
    from mutbert.model.configuration_mutbert import MutBertConfig
    from mutbert.model.modeling_mutbert import (
        MutBertForMaskedLM,
        MutBertForSequenceClassification,
        MutBertForTokenClassification,
        MutBertModel,
        MutBertPreTrainedModel,
    )
    from mutbert.model.strands import reverse_complement
    from mutbert.model.tokenization_mutbert import MutBertTokenizer
except ModuleNotFoundError as error:
    if error.name in {"torch", "transformers", "safetensors"}:
        raise MissingExtraError(error.name, "model") from error
    raise

AutoConfig.register(MutBertConfig.model_type, MutBertConfig)
AutoTokenizer.register(MutBertConfig, MutBertTokenizer)
AutoModel.register(MutBertConfig, MutBertModel)
AutoModelForMaskedLM.register(MutBertConfig, MutBertForMaskedLM)
AutoModelForSequenceClassification.register(MutBertConfig, MutBertForSequenceClassification)
AutoModelForTokenClassification.register(MutBertConfig, MutBertForTokenClassification)

__all__ = [
    "MutBertConfig",
    "MutBertForMaskedLM",
    "MutBertForSequenceClassification",
    "MutBertForTokenClassification",
    "MutBertModel",
    "MutBertPreTrainedModel",
    "MutBertTokenizer",
    "read_checkpoint",
    "reverse_complement",
]
