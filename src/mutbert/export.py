"""A trained model as a folder to share: weights, tokenizer, the code that loads them, and a card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mutbert.errors import InputError
from mutbert.files import atomic_directory, check_output
from mutbert.model.checkpoints import local_folder, write_model
from mutbert.reports.model_card import ModelFacts, model_card
from mutbert.run_folder import GENOMES, METRICS, MODEL, RECIPE

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD: Final = "README.md"


@dataclass(frozen=True)
class ExportReport:
    """What `export_model` wrote, and what the card could not say: licence, recipe, data, held-out figures."""

    output: Path
    model_class: str
    parameters: int
    missing: tuple[str, ...]


def export_model(
    source: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    force: bool = False,
) -> ExportReport:
    """Write a model folder that needs nothing of this package.

    The Auto classes of `transformers` load it with ``trust_remote_code=True``; where this package is installed,
    without. Its card, ``README.md``, says how to use it, what it was trained on and how, and what it reaches.

    Parameters
    ----------
    source : str or Path
        A run's folder, a model's folder (published ones too), or a repository of the Hub.
    output : str or Path
        The folder to write.
    name : str, optional
        What the card calls the model and its examples load, such as the repository that it is going to;
        the folder's name where left out.
    licence : str, optional
        The licence, as the Hub names it (``"cc-by-4.0"``).
    force : bool
        Replace a model folder there.

    Returns
    -------
    ExportReport
        What was written, and what the card could not say.

    Raises
    ------
    InputError
        When there is no whole model, or the output cannot be written.
    """
    output, folder = Path(output), local_folder(source)
    if (folder / RECIPE).is_file() and (folder / MODEL).is_dir():
        folder = folder / MODEL
    check_output(output, force=force, directory=True, inputs=[folder])
    metrics = _values(folder.parent / METRICS, "kind") if folder.name == MODEL else None
    with atomic_directory(output, force=force) as partial:
        model, *_ = write_model(folder, partial, custom_code=True)
        facts = ModelFacts(
            name=name or output.name,
            model_class=type(model).__name__,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            config=model.config.to_dict(),
            num_labels=model.config.num_labels,
            licence=licence,
            recipe=_text(folder / RECIPE),
            genomes=_genomes(folder / GENOMES),
            held_out=metrics if metrics and metrics["kind"] == "pretrain" else None,
            finetuned=metrics if metrics and metrics["kind"] == "finetune" else None,
        )
        (partial / CARD).write_text(model_card(facts), encoding="utf-8")
    known = {
        "licence": licence,
        "recipe": facts.recipe,
        "data": facts.finetuned or facts.genomes,
        "held-out figures": facts.finetuned or facts.held_out,
    }
    missing = tuple(what for what, value in known.items() if value is None)
    return ExportReport(output, facts.model_class, facts.parameters, missing)


def _genomes(path: Path) -> Mapping[str, Any] | None:
    """Return the manifests of the genomes that a model was trained on, by name."""
    values = _values(path, "genomes")
    if values is None:
        return None
    for manifest in values["genomes"].values() if isinstance(values["genomes"], dict) else (None,):
        _require(path, manifest, "contigs", "settings", "sources", "records")
    genomes: Mapping[str, Any] = values["genomes"]
    return genomes


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text ({error}); remove it to go without") from None


def _values(path: Path, *keys: str) -> Mapping[str, Any] | None:
    """Return what a JSON file holds, or None where there is none."""
    text = _text(path)
    if text is None:
        return None
    try:
        values: Mapping[str, Any] = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}); remove it to go without") from None
    _require(path, values, *keys)
    return values


def _require(path: Path, values: Any, *keys: str) -> None:
    if not isinstance(values, dict) or not values.keys() >= set(keys):
        raise InputError(f"{path}: has not all of {', '.join(keys)}; remove it to go without")
