"""The model, its configuration and its tokenizer; importing this makes the Auto classes of `transformers` know them."""

from mutbert.errors import MissingExtraError

try:
    import torch  # noqa: F401 - first, as transformers would go on without it for a while
    import transformers

    from mutbert.model.checkpoints import read_checkpoint as read_checkpoint
    from mutbert.model.configuration_mutbert import MutBertConfig as MutBertConfig
    from mutbert.model.modeling_mutbert import MutBertForMaskedLM as MutBertForMaskedLM
    from mutbert.model.modeling_mutbert import MutBertForSequenceClassification as MutBertForSequenceClassification
    from mutbert.model.modeling_mutbert import MutBertForTokenClassification as MutBertForTokenClassification
    from mutbert.model.modeling_mutbert import MutBertModel as MutBertModel
    from mutbert.model.modeling_mutbert import MutBertPreTrainedModel as MutBertPreTrainedModel
    from mutbert.model.tokenization_mutbert import MutBertTokenizer as MutBertTokenizer
    from mutbert.model.tokenization_mutbert import reverse_complement as reverse_complement
except ModuleNotFoundError as error:
    if error.name in {"torch", "transformers", "safetensors"}:
        raise MissingExtraError(error.name) from error
    raise

transformers.AutoConfig.register(MutBertConfig.model_type, MutBertConfig)
transformers.AutoTokenizer.register(MutBertConfig, MutBertTokenizer)
transformers.AutoModel.register(MutBertConfig, MutBertModel)
for head in (MutBertForMaskedLM, MutBertForSequenceClassification, MutBertForTokenClassification):
    getattr(transformers, head.__name__.replace("MutBert", "AutoModel")).register(MutBertConfig, head)
