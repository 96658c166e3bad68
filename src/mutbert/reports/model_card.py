"""The card of a model, Markdown with the Hub's metadata, so that the Hub shows its metrics."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from huggingface_hub import EvalResult, ModelCardData

from mutbert.reports.page import render

# By the end of a class's name: the Hub's name of its task, and its output.
_KINDS: Final = {
    "": ("feature-extraction", "last_hidden_state  # (batch, length, {hidden})"),
    "ForMaskedLM": ("fill-mask", "logits  # (batch, length, 9)"),
    "ForSequenceClassification": ("text-classification", "logits  # (batch, {labels})"),
    "ForTokenClassification": ("token-classification", "logits  # (batch, length, {labels})"),
}
# What the Hub calls our metrics, where it is not the same.
_METRICS: Final = {
    "mcc": "matthews_correlation", "auroc": "roc_auc", "auprc": "average_precision", "pearson": "pearsonr",
    "spearman": "spearmanr",
}  # fmt: skip


def model_card(
    name: str, model: Any, *, licence: str | None, recipe: str | None, genomes: Mapping[str, Any] | None,
    metrics: Mapping[str, Any] | None,
) -> str:  # fmt: skip
    """Return the card of a model, with its recipe, the manifests of its genomes and its run's ``metrics.json``."""
    kind = type(model).__name__.removeprefix("MutBertModel").removeprefix("MutBert")
    task, output = _KINDS[kind]
    results = list(_results(metrics, task)) if metrics else []
    head = ModelCardData(
        license=licence, library_name="transformers", pipeline_tag=task, tags=["mutbert", "dna", "genomics", "biology"],
        model_name=name if results else None, eval_results=results or None,
    )  # fmt: skip
    # A fence longer than any in the recipe, so that none ends it.
    longest = max(map(len, re.findall("`+", recipe or "")), default=0)
    return render(
        "model_card.md.j2", head=head.to_yaml(), name=name, quoted=json.dumps(name), auto=f"AutoModel{kind}",
        output=output.format(hidden=model.config.hidden_size, labels=model.config.num_labels),
        config=model.config.to_dict(), parameters=sum(parameter.numel() for parameter in model.parameters()),
        licence=licence, recipe=recipe, fence="`" * max(3, longest + 1), genomes=genomes, metrics=metrics,
        escaped=_escaped, number=lambda value: "none" if value is None else f"{value:.4f}",
    )  # fmt: skip


def _results(metrics: Mapping[str, Any], task: str) -> Iterator[EvalResult]:
    """Yield the metrics on test data or, of pre-training, on held-out targets."""
    if metrics["kind"] == "pretrain":
        part, found = "held out", metrics["cross_entropy"].get("model", {})
        kinds = {group: ("cross_entropy", f"cross-entropy ({group}), {metrics['unit']}") for group in found}
    else:
        part, found = "test", metrics["metrics"].get("test", {})
        kinds = {name: (_METRICS.get(name, name), name) for name in found}
    for key, value in found.items():
        if value is not None and math.isfinite(value):
            yield EvalResult(
                task_type=task, dataset_type="own", dataset_name=metrics["name"], dataset_split=part,
                metric_type=kinds[key][0], metric_name=kinds[key][1], metric_value=value,
            )  # fmt: skip


def _escaped(value: object) -> str:
    """Return text that Markdown shows as it is, in one line."""
    text = " or ".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"([\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
