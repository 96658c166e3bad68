"""Options that several verbs have, and values that are more than a word or a number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from mutbert.errors import InputError

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Sequences or windows a batch.")]
Context = Annotated[int | None, typer.Option("--context", min=1, help="Bases of a window; else as in training.")]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs where they exist.")]
Model = Annotated[
    str, typer.Option("--model", help="A model folder, ours or published, or a repository of the Hugging Face Hub.")
]
PersonVcf = Annotated[Path | None, typer.Option("--person-vcf", help="The genotypes of the person.")]
Precision = Annotated[str, typer.Option("--precision", help="fp32, or bf16 for bfloat16 autocast.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")]
RopeScaling = Annotated[
    str | None,
    typer.Option(
        "--rope-scaling",
        metavar="TYPE:FACTOR",
        help="For more bases than the model is trained for: linear or dynamic, and how many times as many.",
    ),
]
Sample = Annotated[str | None, typer.Option("--sample", help="The person, by the name in the VCF.")]
Strands = Annotated[str, typer.Option("--strands", help="forward, or both for the mean over the two strands.")]
Surroundings = Annotated[
    str, typer.Option("--surroundings", help="What a genome is seen as: reference, population or person.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a checkpoint; known models need none.")
]


def parse_rope_scaling(text: str | None) -> dict[str, Any] | None:
    """Return ``dynamic:2`` as the settings of `MutBertConfig`."""
    if text is None:
        return None
    kind, _, factor = text.partition(":")
    try:
        return {"type": kind, "factor": float(factor)}
    except ValueError:
        raise InputError(f"--rope-scaling {text}: give TYPE:FACTOR, for example dynamic:2") from None


def parse_shard(text: str) -> tuple[int, int]:
    """Return ``1/4`` as numbers."""
    part = re.fullmatch(r"(\d+)/(\d+)", text)
    if part is None:
        raise InputError(f"--shard {text}: give I/N, for example 1/4")
    return int(part[1]), int(part[2])
