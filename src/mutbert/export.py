"""A trained model as a folder to share: weights, tokenizer, the code that loads them, and a card."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutbert.errors import reading
from mutbert.files import atomic_directory, check_output
from mutbert.model.checkpoints import local_folder, write_model
from mutbert.reports.model_card import model_card
from mutbert.run_folder import GENOMES, METRICS, MODEL, RECIPE


def export_model(
    source: str | Path, output: str | Path, *, name: str | None = None,
    license: str | None = None, force: bool = False,  # noqa: A002 - the Hub's word
) -> dict[str, Any]:  # fmt: skip
    """Write a model folder that the Auto classes of `transformers` load, also without this package, with its card.

    Parameters
    ----------
    source : str or Path
        A run's folder, a model's folder (published ones too), or a repository of the Hub.
    output : str or Path
        The folder to write.
    name : str, optional
        The name in the card, such as the repository that it is going to; by default the folder's.
    license : str, optional
        The licence, as the Hub names it (``"cc-by-4.0"``).
    force : bool
        Replace a model folder there.

    Returns
    -------
    dict
        ``output``, ``model_class``, ``parameters``, and what the card lacks as ``missing``: licence, recipe, data,
        held-out figures.

    Raises
    ------
    InputError
        A folder without a model of this package, and an output that exists.

    Examples
    --------
    >>> mutbert.export_model("model", "to-share", license="cc-by-4.0")["missing"]
    ['recipe', 'data', 'held-out figures']
    """
    output, folder = Path(output), local_folder(source)
    if (folder / RECIPE).is_file() and (folder / MODEL).is_dir():
        folder = folder / MODEL
    check_output(output, force=force, directory=True, inputs=[folder])
    recipe, genomes = _content(folder / RECIPE, str), _content(folder / GENOMES, json.loads)
    metrics = _content(folder.parent / METRICS, json.loads) if folder.name == MODEL else None
    # A card cannot show those of version 1.
    metrics = metrics if metrics and metrics.get("version") == 2 else None
    with atomic_directory(output, force=force) as partial:
        model, *_ = write_model(folder, partial, custom_code=True)
        with reading(f"{folder}: {GENOMES} or {METRICS}", "remove it to go without"):
            card = model_card(
                name or output.name, model, licence=license, recipe=recipe,
                genomes=genomes and genomes["genomes"], metrics=metrics,
            )  # fmt: skip
        (partial / "README.md").write_text(card, encoding="utf-8")
    data = genomes or (metrics and metrics["kind"] == "finetune")
    known = {"licence": license, "recipe": recipe, "data": data, "held-out figures": metrics}
    return {
        "output": output, "model_class": type(model).__name__, "missing": [what for what in known if not known[what]],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }  # fmt: skip


def _content(path: Path, parse: Callable[[str], Any]) -> Any:
    """Return the content of a file, or None where there is none."""
    with reading(path, "remove it to go without"):
        return parse(path.read_text(encoding="utf-8")) if path.is_file() else None
