"""The page that goes with a model: what it is, how to use it, what it was made of, what it reaches.

Markdown with the Hub's metadata at its head.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# By class: the Auto class that loads it, what the Hub calls its task, and what its output is.
_KINDS = {
    "MutBertModel": ("AutoModel", "feature-extraction", "last_hidden_state  # (batch, length, {hidden})"),
    "MutBertForMaskedLM": ("AutoModelForMaskedLM", "fill-mask", "logits  # (batch, length, 9)"),
    "MutBertForSequenceClassification": (
        "AutoModelForSequenceClassification",
        "text-classification",
        "logits  # (batch, {labels})",
    ),
    "MutBertForTokenClassification": (
        "AutoModelForTokenClassification",
        "token-classification",
        "logits  # (batch, length, {labels})",
    ),
}


@dataclass(frozen=True)
class ModelFacts:
    """What a model's card says.

    Parameters
    ----------
    name : str
        Its name.
    model_class : str
        Its class, ``"MutBertForMaskedLM"`` say.
    parameters : int
        Numbers in it.
    config : mapping
        The values of its configuration.
    num_labels : int
        Outputs of its classifier, if it has one.
    licence : str, optional
        What it may be used for, as the Hub names licences (``"cc-by-4.0"``).
    recipe : str, optional
        The recipe that it was trained by, as YAML.
    genomes : mapping, optional
        The manifests of the genomes that it was trained on, by name.
    held_out : mapping, optional
        What ``held_out.json`` of its run holds.
    finetuned : mapping, optional
        What ``metrics.json`` of its run holds, where it was fine-tuned.
    """

    name: str
    model_class: str
    parameters: int
    config: Mapping[str, Any]
    num_labels: int
    licence: str | None = None
    recipe: str | None = None
    genomes: Mapping[str, Mapping[str, Any]] | None = None
    held_out: Mapping[str, Any] | None = None
    finetuned: Mapping[str, Any] | None = None


def model_card(facts: ModelFacts) -> str:
    """Write the card, as Markdown.

    Parameters
    ----------
    facts : ModelFacts
        What it says; what is not known is said not to be.

    Returns
    -------
    str
        The whole text.
    """
    parts = [_head(facts), _introduction(facts), _use(facts), _data(facts), _training(facts), _figures(facts)]
    return "\n".join([*parts, _licence(facts)])


def _head(facts: ModelFacts) -> str:
    _, task, _ = _KINDS[facts.model_class]
    # As JSON, which is YAML too, so that no licence is taken for anything but text.
    licence = [f"license: {json.dumps(facts.licence)}"] if facts.licence else []
    tags = [f"- {tag}" for tag in ("mutbert", "dna", "genomics", "biology")]
    lines = ["---", *licence, "library_name: transformers", f"pipeline_tag: {task}", "tags:", *tags, "---", ""]
    return "\n".join(lines)


def _introduction(facts: ModelFacts) -> str:
    config = facts.config
    length = config["max_position_embeddings"]
    scaling = config.get("rope_parameters")
    longer = f" RoPE scaling: {scaling['rope_type']}, factor {scaling['factor']:g}." if scaling else ""
    return f"""# {" ".join(facts.name.split())}

A DNA language model that takes a *distribution* over A, C, G, T at every position, so that a population's allele
frequencies can go in: a BERT encoder with rotary positions, after MutBERT
([Long et al. 2025](https://doi.org/10.1101/2025.01.23.634452)), made with `mutbert`.

{facts.parameters:,} parameters in {config["num_hidden_layers"]} layers of {config["hidden_size"]} features and
{config["num_attention_heads"]} heads. Trained for {length} tokens, which are {length - 2} bases between `[CLS]` and
`[SEP]`.{longer}
"""


def _use(facts: ModelFacts) -> str:
    auto, _, output = _KINDS[facts.model_class]
    output = output.format(hidden=facts.config["hidden_size"], labels=facts.num_labels)
    return f"""## How to use

With `transformers` alone, which runs the code that lies in this folder; with `mutbert` installed and
`import mutbert.model` before it, leave `trust_remote_code` out.

```python
import torch
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({json.dumps(facts.name)}, trust_remote_code=True)
model = {auto}.from_pretrained({json.dumps(facts.name)}, trust_remote_code=True).eval()

batch = tokenizer(["ACGTTGCAACGT", "acgtn"], padding=True, return_tensors="pt")  # a token a base; N is [UNK]
with torch.no_grad():
    output = model(**batch).{output}

# The same with probabilities. At the third base of the first sequence, 80 % of the population has G and 20 % has A:
probabilities = torch.nn.functional.one_hot(batch["input_ids"], 9).float()
probabilities[0, 3] = torch.tensor([0, 0, 0, 0, 0, 0.2, 0, 0.8, 0])  # five special tokens, then A, C, G, T
with torch.no_grad():
    output = model(input_probs=probabilities, attention_mask=batch["attention_mask"]).{output}
```
"""


def _data(facts: ModelFacts) -> str:
    if facts.finetuned is not None:
        table = _table(
            ("part", "sequences", "of these also in the training data", "SHA-256 of the file"),
            (
                (part["split"], f"{part['examples']:,}", f"{part['in_train']:,}", f"`{part['sha256']}`")
                for part in facts.finetuned["splits"]
            ),
        )
        return f"## Data\n\nFine-tuned on labelled sequences ({facts.finetuned['problem']}):\n\n{table}\n"
    if facts.genomes is None:
        return "## Data\n\nNot known: the checkpoint does not say what it was trained on.\n"
    parts = [_genome(name, genome) for name, genome in facts.genomes.items()]
    return "\n".join(["## Data", "", *parts])


def _genome(name: str, genome: Mapping[str, Any]) -> str:
    contigs = genome["contigs"]
    bases = sum(contig["length"] for contig in contigs)
    variants = sum(contig["variants"][1] - contig["variants"][0] for contig in contigs)
    settings = ", ".join(
        f"{setting.replace('_', ' ')} {_text(value)}" for setting, value in genome["settings"].items() if value
    )
    sources = _table(
        ("kind", "file", "bytes", "SHA-256"),
        (
            (entry["kind"], f"`{entry['file']}`", f"{entry['bytes']:,}", f"`{entry['sha256']}`")
            for entry in genome["sources"]
        ),
    )
    size = f"{len(contigs):,} contig{'s' * (len(contigs) != 1)} and {bases:,} bases, {variants:,} of which vary"
    lines = [f"`{name}`, a probabilistic genome of {size} ({settings}).", "", sources]
    for entry in genome["records"]:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in entry["not_used"].items())
        lines += [
            "",
            f"Of the {entry['read']:,} records of `{entry['file']}`, {entry['used']:,} are used"
            + (f"; not used: {reasons}." if reasons else "."),
        ]
    return "\n".join([*lines, ""])


def _training(facts: ModelFacts) -> str:
    if facts.recipe is None:
        return "## Training\n\nNot known: the checkpoint has no recipe beside it.\n"
    return f"""## Training

By this recipe, every setting told:

```yaml
{facts.recipe.rstrip()}
```
"""


def _figures(facts: ModelFacts) -> str:
    if facts.finetuned is not None:
        return _metrics(facts.finetuned)
    if facts.held_out is None:
        return "## Held-out figures\n\nNone: the run was not evaluated, or its figures are not beside the checkpoint.\n"
    predictors = facts.held_out["cross_entropy"]
    table = _table(
        ("targets", "number", *(f"**{name}**" if name == "model" else name for name in predictors)),
        (
            (group, f"{count:,}", *(_number(values[group]) for values in predictors.values()))
            for group, count in facts.held_out["targets"].items()
            if count
        ),
    )
    return f"""## Held-out figures

Cross-entropy in {facts.held_out["unit"]} after {facts.held_out["steps"]:,} steps, on regions that were never trained
on, with every target hidden; lower is better. Beside the model stand trivial predictors, and the floor that nothing can
go below.

{table}
"""


def _metrics(finetuned: Mapping[str, Any]) -> str:
    metrics = finetuned["metrics"]
    names = list(next(iter(metrics.values())))
    table = _table(
        ("part", *names), ((part, *(_number(found[name]) for name in names)) for part, found in metrics.items())
    )
    chosen = f"The step with the best {finetuned['metric']} on the validation data was taken, which flatters these."
    interval = finetuned["interval"]
    if interval is not None:
        chosen += (
            f" On the test data, the {finetuned['metric']} is {_number(interval['value'])} (95 % interval "
            f"{_number(interval['low'])} to {_number(interval['high'])}, test rows drawn anew)."
        )
    return f"## Held-out figures\n\n{chosen}\n\n{table}\n"


def _licence(facts: ModelFacts) -> str:
    stated = f"{facts.licence}." if facts.licence else "None is stated: ask whoever shares this model."
    return f"""## Licence

{stated} The code in this folder, `configuration_mutbert.py` and `modeling_mutbert.py`, is under the MIT licence.
"""


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _text(value: object) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
