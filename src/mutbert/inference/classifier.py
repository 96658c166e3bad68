"""What a fine-tuned model predicts for windows of a genome.

Shape suffixes: N windows, K outputs.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mutbert.arrays import Float64
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import PaddedWindows, read_as_trained
from mutbert.encoders.known import resolve_model
from mutbert.encoders.token_encoders import AutoEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.inference.run import Surroundings, check_run, sequence_outputs
from mutbert.progress import Advance, scaled


def problem_of(config: Any) -> str:
    """Return the kind of problem that a classifier of sequences was trained for."""
    named = {"regression": "regression", "multi_label_classification": "multilabel"}.get(config.problem_type)
    return named or {1: "regression", 2: "binary"}.get(config.num_labels, "multiclass")


class WindowClassifier:
    """A fine-tuned model of sequences that reads windows of a genome, over the strands that it was trained with."""

    def __init__(self, model: str, seen: Surroundings, settings: Any) -> None:
        check_run(settings.strands or "both", settings.precision, settings.batch_size)
        encoder, is_around = open_encoder(model), seen.kind != "reference"
        self.model, each_token = encoder.trained_classifier()
        self.name, self.inputs, config = model, encoder.inputs, self.model.config
        genome = seen.genome.path if seen.kind == "population" else "none"
        trained, _, self.notes = read_as_trained(model, config, genome=genome, strands=settings.strands)
        limits = [one for one in (trained.max_tokens, most_tokens(self.model)) if one is not None]
        self.strands, self._most = trained.strands, min(limits, default=None)
        usual = [getattr(encoder, "context", None), self._most and self._most - 2]
        self.context = min(bases for bases in usual if bases) if settings.context is None else settings.context
        for is_wrong, what in (
            (each_token, "predicts a label for each base; give a classifier of sequences"),
            (self.context < 1, f"context is {self.context}; it must be at least 1"),
            (settings.rope_scaling is not None, "has the rope_scaling of its training; leave it out"),
            (is_around and isinstance(encoder, AutoEncoder), "reads tokens; choose reference surroundings for it"),
        ):
            if is_wrong:
                raise InputError(f"{model}: {what}")
        self._how = {"strands": self.strands, "batch_size": settings.batch_size, "precision": settings.precision}
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._problem = problem_of(config)
        # Of two classes there is the second alone.
        labels = [str(config.id2label[number]) for number in range(self._problem == "binary", config.num_labels)]
        what = {"regression": "predicted", "multiclass": "log-probability of"}.get(self._problem, "log-odds of")
        names = ["delta_" + re.sub(r"\W", "_", label, flags=re.ASCII) for label in labels]
        if len(set(names)) < len(names):
            names = [f"{name}_{number}" for number, name in enumerate(names)]
        texts = [f"Change of the {what} {label}, window with ALT minus window with REF" for label in labels]
        self.fields = dict(zip(names, texts, strict=True))

    def outputs(self, windows: PaddedWindows, advance: Advance, name: Callable[[int], str] | None = None) -> Float64:
        """Return the outputs (N, K): log-odds, of several classes log-probabilities, or numbers in their own units."""
        inputs = self.inputs(windows)
        if self._most is not None and (longest := int(inputs.length_N.max(initial=0))) > self._most:
            what = f"a window of {self.context:,} bases has {longest:,} tokens, and the model reads {self._most:,}"
            raise InputError(f"{self.name}: {what}; use a smaller --context")
        how = {**self._how, "advance": scaled(advance, 1 / max(len(windows), 1)), "name": name}
        logits = sequence_outputs(self.model, lambda batch: self.model(**batch).logits, inputs, **how)
        value_NK = torch.from_numpy(logits).double()
        value_NK = value_NK[:, 1:] - value_NK[:, :1] if self._problem == "binary" else value_NK
        return (value_NK.log_softmax(dim=1) if self._problem == "multiclass" else value_NK).numpy()


def open_classifier(model: Any, seen: Surroundings, settings: Any) -> WindowClassifier | None:
    """Return the classifier of a folder that `finetune`, or another program, wrote; None where it is none."""
    if not isinstance(model, str | Path):
        return None
    folder = resolve_model(str(model))
    try:
        values = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        is_classifier = "input_settings" in values or "ForSequenceClassification" in str(values.get("architectures"))
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # Whoever reads it next raises what is wrong.
    return WindowClassifier(folder, seen, settings) if is_classifier else None
