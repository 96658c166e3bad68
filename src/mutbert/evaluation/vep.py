"""``mutbert bench vep``: a model's scores of labelled variants, next to what needs no model.

The folder has ``vep.json``, all numbers and their origin; ``scores.parquet``, a row for each of the table's, with all
predictors; ``table.csv``, the numbers; and ``report.html``. Shape suffixes: A alleles, F fields of a scorer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from mutbert.effects.alleles import Alleles, Reason
from mutbert.effects.scores import Scorer, ScoreSettings, TokenScorer, open_scorer
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.token_encoders import AutoEncoder
from mutbert.errors import InputError
from mutbert.evaluation import vep_predictors, vep_probe, vep_table
from mutbert.evaluation.cells import HUB, task_file
from mutbert.evaluation.suites import Suite, load_suite
from mutbert.evaluation.vep_predictors import Predictor, Row
from mutbert.evaluation.vep_table import VARIANT_COLUMNS, VepColumns
from mutbert.files import atomic_directory, check_output, write_json
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import model_hash
from mutbert.model import MutBertForMaskedLM
from mutbert.progress import progress_bar
from mutbert.reports.page import METRIC_NAMES
from mutbert.reports.vep import RESULT, SCORES, write_page_of
from mutbert.scoring.metrics import BY_CHROM
from mutbert.scoring.resampling import BLOCK_METHOD, INTERVAL_METHOD
from mutbert.settings import listed
from mutbert.training.folder import provenance_of

Model = str | Path | MutBertForMaskedLM


_REASONS: Final = {
    vep_table.NO_LABEL: "the row has no label",
    vep_table.LEFT_OUT: "its label is one that was to be left out",
    "duplicate": "the same allele with the same label came before",
    "contradictory": "the same allele has different labels in different rows",
    **{reason.text: reason.meaning for reason in Reason},
}


def evaluate_variant_effects(
    models: Model | Sequence[Model], genome: str | Path | ProbabilisticGenome, variants: str | Path | None,
    output: str | Path, *, columns: VepColumns | None = None, suite: str | Path | None = None,
    settings: ScoreSettings | None = None, surroundings: str = "reference", direction: str | None = None,
    probe: bool = False, resamples: int = 1000, seed: int = 0, trust_remote_code: bool = False, force: bool = False,
    progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measure how well a model's scores predict labels of variants, next to trivial baselines.

    Parameters
    ----------
    models
        Checkpoints of MutBERT or any other model, or names of ``mutbert bench list``, as PATH or ``NAME=PATH``, or a
        loaded model; one or a sequence. Those that read tokens have the scores of
        `mutbert.effects.scores.TokenScorer`.
    genome, variants, output
        The store of the variants' assembly; CSV, TSV, Parquet, VCF or BCF, or ``hf://...``, positions 1-based, or of a
        suite a folder with its files, by default the Hub's; the folder to make.
    columns, suite, settings, surroundings
        The meaning of columns or INFO fields; a shipped suite (traitgym-mendelian, traitgym-complex or clinvar) or a
        YAML file, for columns and the metric; how alleles are scored; ``reference`` or ``population`` around variants.
    direction
        Positive variants are ``damaging``, what a model finds unusual, or ``tolerated``, what it finds usual;
        ``either`` turns each predictor to where it is better. By default damaging for two classes, else either.
    probe
        Compare a linear probe of each model's embeddings too, which learns labels of other chromosomes.
    resamples, seed, trust_remote_code, force, progress
        Resamples of intervals and p-values; the same seed results in the same files; run code that comes with a
        checkpoint; replace the folder; show progress on standard error.

    Returns
    -------
    dict
        The content of ``vep.json``.

    Raises
    ------
    InputError
        When an input cannot be used, labels are of one class, or over a tenth of REF alleles are not the genome's.

    Examples
    --------
    >>> columns = mutbert.VepColumns(label="label")
    >>> result = mutbert.evaluate_variant_effects("model", "population.genome", "labelled.csv", "vep", columns=columns)
    >>> result["problem"], result["metrics"]
    ('binary', ['auroc', 'auprc'])
    """
    folder, draws = Path(output), {"resamples": resamples, "seed": seed}
    _check_options(surroundings, direction, resamples, seed)
    known = None if suite is None else load_suite(suite)
    variants, columns = _table_of(known, variants, columns or VepColumns())
    named = _named(listed(models))
    check_output(folder, force=force, directory=True, inputs=[genome, variants, *named.values()])
    table, source, problem, classes = vep_table.read_labelled(variants, columns)
    metrics = tuple(dict.fromkeys([*([known.metric] if known else []), *vep_predictors.METRICS[problem]]))
    if problem != "binary" and direction not in {None, "either"}:
        raise InputError(f"direction is {direction}, which is for two classes; leave it out")
    direction = direction or ("damaging" if problem == "binary" else "either")
    store = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    how = store, surroundings, settings or ScoreSettings(), trust_remote_code
    scorers = {name: _open(name, model, *how) for name, model in named.items()}
    # What is too long for one of them is scored by none, so that all are compared on the same variants.
    shortest = min(scorers.values(), key=lambda scorer: scorer.settings.longest)
    alleles = shortest.find(*(table[name].to_list() for name in VARIANT_COLUMNS))
    vep_table.check_genome(source.place, table["chrom"], alleles, store)
    table = _with_reasons(table, alleles, problem)
    counts, used = _counts(table, shortest.settings.longest), table.filter(pl.col("reason").is_null())
    _check_targets(source.place, used["target"], problem, classes, counts["not_used"])
    alleles, context = alleles[used["row"].to_numpy()], max(scorer.context for scorer in scorers.values())
    labels = (used["target"], problem, metrics[0]) if probe or (known and known.vep and known.vep.probe) else None
    predictors, why = _predictors(scorers, alleles, labels, progress)
    baselines, lacking = vep_predictors.trivial(store, alleles, used, problem, context)
    predictors |= baselines
    values = {name: np.where(np.isfinite(one.values), one.values, np.nan) for name, one in predictors.items()}
    columns_A = [pl.Series(name, value_A, nan_to_null=True) for name, value_A in values.items()]
    used = used.with_columns(*columns_A, contig=alleles.contig_A)
    with progress_bar("resampling", 1, show=progress) as advance:
        parts, more = vep_predictors.measure(used, predictors, problem, classes, direction, metrics, draws, advance)
    numbers = _table(parts)
    result = {
        "kind": "vep", "version": 2, "name": Path(source.place).name, "problem": problem, "classes": list(classes),
        "metrics": list(metrics), "direction": direction, **counts,
        "notes": [*_notes(table, columns, parts, numbers), *lacking, *why, *more],
        "intervals": INTERVAL_METHOD + BLOCK_METHOD * metrics[0].endswith(BY_CHROM),
        "predictors": {name: {"model": one.model, "description": one.description} for name, one in predictors.items()},
        "parts": parts,
        "provenance": {
            "variants": asdict(source), "columns": {key: one for key, one in asdict(columns).items() if one},
            "models": {name: _identity(one, shortest) for name, one in scorers.items()}, "surroundings": surroundings,
            **draws, **provenance_of([store]),
        },
        **({"suite": known.model_dump(mode="json", include={"name", "title", "source", "paper"})} if known else {}),
    }  # fmt: skip
    whole = pl.concat([used, table.filter(pl.col("reason").is_not_null())], how="diagonal").sort("row")
    shown = [*VARIANT_COLUMNS, "kind", "label", "target", *["group"] * ("group" in whole), *predictors]
    with atomic_directory(folder, force=force) as partial:
        whole.select(*shown, pl.col("reason").fill_null("")).write_parquet(partial / SCORES)
        numbers.write_csv(partial / "table.csv")
        write_json(partial / RESULT, result)
        write_page_of(partial)
    return result


def _table_of(
    suite: Suite | None, variants: str | Path | None, columns: VepColumns
) -> tuple[str | Path, VepColumns]:  # fmt: skip
    """Return the table and its columns: of a suite those that are not given, from a folder or the Hub."""
    if suite is None:
        if variants is None:
            raise InputError("there are no variants; add --variants FILE, or --suite NAME")
    elif suite.vep is None:
        raise InputError(f"suite {suite.name}: is none of labelled variants; use mutbert bench run")
    else:
        root = str(variants or suite.source.replace("https://huggingface.co/", HUB) or ".")
        variants = task_file(suite, root, "", "test") or root
        named: Any = {**suite.vep.columns, **{name: value for name, value in asdict(columns).items() if value}}
        columns = VepColumns(**named)
    return variants, columns


def _check_options(surroundings: str, direction: str | None, resamples: int, seed: int) -> None:
    if surroundings not in {"reference", "population"}:
        raise InputError(f"surroundings is {surroundings!r}; it must be reference or population")
    if direction not in {None, "damaging", "tolerated", "either"}:
        raise InputError(f"direction is {direction!r}; it must be damaging, tolerated or either")
    if resamples < 1 or seed < 0:
        raise InputError(f"resamples is {resamples} and seed {seed}; use at least 1, and a seed from 0 on")


def _open(
    name: str, model: Model, genome: ProbabilisticGenome, surroundings: str, settings: ScoreSettings, trust: bool
) -> Scorer:
    """Return the scorer of a model, MutBERT or any other."""
    if isinstance(model, str | Path):
        encoder = open_encoder(model, name=name, trust_remote_code=trust)
        if isinstance(encoder, AutoEncoder):
            if surroundings != "reference":
                raise InputError(f"{name}: reads tokens, not allele frequencies; use --surroundings reference")
            return TokenScorer(encoder, genome, settings)
    return open_scorer(model, genome, surroundings=surroundings, settings=settings)


def _predictors(
    scorers: Mapping[str, Scorer], alleles: Alleles, labels: tuple[pl.Series, str, str] | None, show: bool
) -> tuple[dict[str, Predictor], list[str]]:
    """Return models' predictors, with labels for `vep_probe.probe` their probes too, and notes."""
    found, notes, total = dict[str, Predictor](), list[str](), (1 + bool(labels)) * len(scorers) * len(alleles)
    with progress_bar("scoring", total, unit="alleles", show=show) as advance:
        for name, scorer in scorers.items():
            score_AF = scorer.score(alleles, advance).astype(np.float64)
            found |= vep_predictors.of_model(name, scorer, alleles, score_AF)
            if labels:
                probe, why = vep_probe.probe(name, scorer, alleles, *labels, advance)
                found, notes = found | probe, notes + why
    return found, notes


def _named(models: Sequence[Model]) -> dict[str, Model]:
    """Return models by their names."""
    if not models:
        raise InputError("there is no model; add --model FOLDER")
    named: dict[str, Model] = {}
    for model in models:
        path = model
        if not isinstance(model, str | Path):
            name = Path(str(model.config.name_or_path or type(model).__name__)).name
        elif Path(model).exists():
            # A folder may have the sign in its name.
            name = Path(model).resolve().name
        else:
            name, equals, rest = str(model).partition("=")
            path = rest if equals else model
        name = " ".join(name.split())
        if not name or name in named:
            raise InputError(f"--model {model}: the name {name!r} is empty or another model's; write NAME=PATH")
        named[name] = path
    return named


def _with_reasons(table: pl.DataFrame, alleles: Alleles, problem: str) -> pl.DataFrame:
    """Return the table with each row's kind, why it is not used, and whether it repeats an allele in use."""
    kinds, reasons = np.array(["", *vep_predictors.KIND_NAMES]), np.array([reason.text for reason in Reason])
    fault = pl.Series("reason", reasons[alleles.reason_A]).replace(Reason.SCORED.text, None)
    # What is wrong with the variant counts before what is wrong with its label.
    table = table.with_row_index("row").with_columns(
        pl.Series("kind", np.where(alleles.reason_A == Reason.SCORED, kinds[alleles.kind_A], "")),
        reason=pl.coalesce(fault, "reason"),
    )
    places: dict[str, Any] = {"contig": alleles.contig_A, "start": alleles.start_A, "end": alleles.end_A}
    places["inserted"] = pl.Series(alleles.inserted, dtype=pl.String)
    key, same = ["reason", *places], table.select("reason", "target").with_columns(**places)
    differs = same.select(pl.col("target").n_unique().over(key) > 1).to_series()
    repeats = ~same.select(pl.struct(key).is_first_distinct()).to_series()
    table = table.with_columns(repeats=repeats & table["reason"].is_null())
    if problem == "regression":
        return table
    again = pl.when(differs).then(pl.lit("contradictory")).when(repeats).then(pl.lit("duplicate"))
    return table.with_columns(reason=pl.coalesce("reason", again), repeats=False)


def _counts(table: pl.DataFrame, longest: int) -> dict[str, Any]:
    """Return how many rows are used, by kind, and are not, by reason and by the label that was to be left out."""
    not_used = vep_table.count_values(table["reason"])
    meanings = _REASONS | {Reason.TOO_LONG.text: f"more than {longest:,} bases change"}
    return {
        "rows": len(table),
        "used": vep_table.count_values(table.filter(pl.col("reason").is_null())["kind"]),
        "not_used": not_used,
        "reasons": {reason: meanings[reason] for reason in not_used},
        "left_out": vep_table.count_values(table.filter(pl.col("reason") == vep_table.LEFT_OUT)["label"]),
    }


def _check_targets(
    place: str, targets: pl.Series, problem: str, classes: tuple[str, ...], not_used: dict[str, int]
) -> None:
    """Raise InputError where nothing can be compared, as there are no targets or they are all one."""
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in not_used.items()) or "none"
    if not len(targets):
        raise InputError(f"{place}: no variant can be used: {reasons}; use other variants, or another genome")
    if targets.n_unique() == 1:
        value = f"{targets[0]:g}" if problem == "regression" else classes[int(targets[0])]
        what = f"the labels of all {len(targets):,} variants that can be used are one, {value} (not used: {reasons})"
        raise InputError(f"{place}: {what}; add variants of other classes, or name others with --positive")


def _identity(scorer: Scorer, shortest: Scorer) -> dict[str, Any]:
    """Return what identifies a model and its scores."""
    settings = asdict(scorer.settings) | {"longest": shortest.settings.longest}
    del settings["batch_size"]  # which changes the time alone
    return {"sha256": model_hash(scorer.model), "settings": settings}


def _notes(table: pl.DataFrame, columns: VepColumns, parts: Sequence[Row], numbers: pl.DataFrame) -> Iterator[str]:
    """Yield what the reader should know first: what is missing or repeats, and labels that are like a baseline."""
    for option in ("positive", "negative", "exclude"):
        for value in getattr(columns, option):
            if value not in table["label"]:
                yield f"No variant has the value {value} that --{option} names."
    first = parts[0]
    if first["rows"] and first["compared"] < 0.9 * first["variants"]:
        lacking = ", ".join(f"{row['predictor']} ({row['missing']:,})" for row in first["rows"] if row["missing"])
        yield (
            f"Only {first['compared']:,} of {first['variants']:,} variants are compared, since others lack {lacking}. "
            "If the reason is related to the label, this is another question than that of all variants."
        )
    if repeated := int(table["repeats"].sum()):
        yield f"{repeated:,} rows are of an allele that came before; they are used, so that intervals are too narrow."
    if numbers.is_empty():
        return
    metric = "auroc" if "auroc" in numbers else "spearman"
    # So near to a baseline, labels may have been made from it; where there are some variants of either class.
    either = pl.min_horizontal("compared", "positives", pl.col("compared") - pl.col("positives")) >= 5
    followed = numbers.filter((pl.col("model") == "") & (pl.col(metric).abs() >= 0.99) & either)
    followed = followed.unique("predictor", keep="first", maintain_order=True)
    for name, part, target, value in followed.select("predictor", "part", "target", metric).iter_rows():
        yield (
            f"Labels follow the trivial baseline {name} ({part}, {target}: {METRIC_NAMES[metric]} {value:.3f}). They "
            "may have been made from it, or the variants chosen by it; how a model compares with it then means little."
        )


def _table(parts: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return every number of the parts, a row for each part, target and predictor."""
    rows = [
        {"part": part["name"], **{key: part[key] for key in ("target", "variants", "compared")},
         "positives": part["compared_positives"], **row} for part in parts for row in part["rows"]
    ]  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Float64).round(9))
