"""``mutbert bench vep``: a model's scores of labelled variants, next to what needs no model.

Shape suffixes: N rows of the table, A those that are scored and labelled, P predictors, F fields of a scorer.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from mutbert.effects.alleles import Alleles, Kind, Reason
from mutbert.effects.scores import ScoreSettings, TokenScorer, open_scorer
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import place_windows
from mutbert.encoders.token_encoders import AutoEncoder
from mutbert.errors import InputError
from mutbert.evaluation.vep_baselines import KIND_NAMES, Predictor, names_of, trivial_baselines
from mutbert.evaluation.vep_parts import (
    ALL,
    DIRECTIONS,
    Measured,
    Measuring,
    Split,
    compared_columns,
    count_steps,
    measure_parts,
)
from mutbert.evaluation.vep_table import LEFT_OUT, NO_LABEL, LabelledVariants, VepColumns, read_labelled
from mutbert.files import atomic_directory, check_output
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import model_hash
from mutbert.progress import progress_bar
from mutbert.regions import names_text
from mutbert.reports.vep import METRIC_NAMES, write_vep_page, write_vep_table
from mutbert.reports.vep_results import Shown, VepPart, VepReport
from mutbert.scoring.resampling import INTERVAL_METHOD
from mutbert.training.provenance import provenance_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from mutbert.arrays import Float64, Int64
    from mutbert.effects.scores import Scorer
    from mutbert.model import MutBertForMaskedLM
    from mutbert.progress import Advance

    Texts = npt.NDArray[np.object_]
    Model = str | Path | MutBertForMaskedLM

VERSION: Final = 1
"""Of ``vep.json``."""
RESULT: Final = "vep.json"
SCORES: Final = "scores.parquet"
TABLE: Final = "table.csv"
REPORT: Final = "report.html"
RESAMPLES: Final = 1000

DUPLICATE: Final = "duplicate"
CONTRADICTORY: Final = "contradictory"

_REASONS: Final = {
    NO_LABEL: "the row has no label",
    LEFT_OUT: "its label is one that was to be left out",
    DUPLICATE: "the same allele with the same label came before",
    CONTRADICTORY: "the same allele has different labels in different rows",
    **{reason.text: reason.meaning for reason in Reason},
}
_MOST_MISMATCHES: Final = 0.1
# Rounded up to whole windows where these are shared.
_ALLELES_AT_ONCE: Final = 2000
# Below this share of the labelled variants that are compared, the reader is told.
_FEW_COMPARED: Final = 0.9
# From here on, labels may have been made from a baseline; where so many variants of either side say so.
_FOLLOWED: Final = {"auroc": 0.99, "spearman": 0.99}
_ENOUGH: Final = 5


@dataclass(frozen=True)
class VepResult:
    """What `evaluate_variant_effects` gives.

    Parameters
    ----------
    output : Path
        The folder.
    report : VepReport
        Every number of the report.
    """

    output: Path
    report: VepReport


def evaluate_variant_effects(
    models: Model | Sequence[Model],
    genome: str | Path | ProbabilisticGenome,
    variants: str | Path,
    output: str | Path,
    *,
    columns: VepColumns,
    settings: ScoreSettings | None = None,
    surroundings: str = "reference",
    direction: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    trust_remote_code: bool = False,
    force: bool = False,
    progress: bool = False,
) -> VepResult:
    """Measure how well a model's scores tell labels of variants, next to trivial baselines.

    Parameters
    ----------
    models : str, Path or MutBertForMaskedLM, or a sequence of these
        Checkpoints of MutBERT or any other model, or names of ``mutbert bench list``, ``NAME=PLACE`` to give one a
        name; or loaded models, which run where they are. Models that read tokens have the scores of
        `mutbert.effects.scores.TokenScorer`.
    genome : str, Path or ProbabilisticGenome
        The store of the assembly that the variants are of.
    variants : str or Path
        As for `mutbert.evaluation.vep_table.read_labelled`.
    output : str or Path
        The folder to make: ``vep.json``, ``scores.parquet``, ``table.csv`` and ``report.html``.
    columns : VepColumns
        Which columns or INFO fields mean what.
    settings : ScoreSettings, optional
        How alleles are scored, the same for all models.
    surroundings : {"reference", "population"}
        What stands around variants.
    direction : {"damaging", "tolerated", "either"}, optional
        Which variants are positive: those that a model finds unusual, those that it finds usual; or each score and
        each baseline is turned to where it is better. By default the first for two classes, and the last for several
        and for numbers, where nothing else is possible.
    resamples : int
        Of intervals and p-values.
    seed : int
        Of the random draws; the same one gives the same files.
    trust_remote_code : bool
        Run code that comes with a checkpoint; no model that is known by name needs any.
    force : bool
        Replace the folder where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    VepResult

    Raises
    ------
    InputError
        When something cannot be opened or read, a column is missing, labels are of one class, no variant can be used,
        or more than a tenth of the reference alleles are not the genome's.
    MissingExtraError
        When a library is needed and not installed.
    """
    folder = Path(output)
    columns.check()
    if surroundings not in {"reference", "population"}:
        raise InputError(f"surroundings is {surroundings!r}; it must be reference or population")
    if resamples < 1 or seed < 0:
        raise InputError(f"resamples is {resamples} and seed {seed}; give at least 1, and a seed from 0 on")
    named = _named(cast("Sequence[Model]", models) if isinstance(models, list | tuple) else [cast("Model", models)])
    inputs = [path for path in (genome, variants, *named.values()) if isinstance(path, str | Path)]
    check_output(folder, force=force, directory=True, inputs=inputs)
    table = read_labelled(variants, columns)
    direction = _direction(direction, table.labels.problem)
    opened = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    scorers = {
        name: _open(name, model, opened, surroundings, settings or ScoreSettings(), trust_remote_code=trust_remote_code)
        for name, model in named.items()
    }
    # What is too long for one of them is scored by none, so that all are compared on the same variants.
    shortest = min(scorers.values(), key=lambda scorer: scorer.settings.longest)
    found = _find(table, shortest)
    _check_usable(table, found, opened)

    used = np.flatnonzero(found.reason_N == "")
    alleles = found.alleles.take(used)
    predictors: list[Predictor] = []
    values: list[Float64] = []
    made_of: dict[str, Any] = {}
    with progress_bar("scoring", len(named) * len(alleles), unit="alleles", show=progress) as advance:
        for name, scorer in scorers.items():
            own, value_AF = _scores(name, scorer, alleles, advance)
            predictors += own
            values.append(value_AF)
            used_settings = replace(scorer.settings, longest=shortest.settings.longest)
            made_of[name] = {"sha256": model_hash(scorer.model), "settings": _said(used_settings)}
    context = max(entry["settings"]["context"] for entry in made_of.values())
    baselines = trivial_baselines(
        opened,
        alleles,
        context,
        table.labels.label_N[used],
        table.labels.problem,
        frequency_A=None if table.frequency_N is None else table.frequency_N[used],
        splice_A=None if table.splice_N is None else table.splice_N[used],
    )
    measured = Measured(
        (*predictors, *baselines.predictors),
        np.concatenate([*values, baselines.value_AP], axis=1),
        alleles.kind_A,
        table.labels.label_N[used],
        table.labels.problem,
        table.labels.classes,
        None if table.groups is None else [table.groups[row] for row in used.tolist()],
    )
    with progress_bar("resampling", count_steps(measured), unit="comparisons", show=progress) as advance:
        parts, note = measure_parts(measured, Measuring(direction, resamples, seed), advance)
    meanings = _REASONS | {Reason.TOO_LONG.text: f"more than {shortest.settings.longest:,} bases change"}
    report = VepReport(
        Path(table.source.place).name,
        table.labels.problem,
        table.labels.classes,
        len(table),
        {name: int(count) for kind, name in KIND_NAMES.items() if (count := (alleles.kind_A == kind).sum())},
        found.counts,
        {reason: meanings[reason] for reason in found.counts},
        _left_out(table, found),
        tuple(parts),
        _facts(table, opened, made_of, surroundings, resamples, seed),
        (*_notes(parts, table, found), *baselines.notes, *([note] if note else [])),
        INTERVAL_METHOD,
        direction,
    )
    made = {
        "variants": asdict(table.source),
        "columns": {name: value for name, value in asdict(columns).items() if value},
        "models": made_of,
        "surroundings": surroundings,
        "resamples": resamples,
        "seed": seed,
        **provenance_of([opened]),
    }
    with atomic_directory(folder, force=force) as partial:
        _write_scores(partial / SCORES, table, found, measured, used)
        write_vep_table(partial / TABLE, report)
        write_vep_page(partial / REPORT, report, _shown(measured))
        whole = {"version": VERSION, **asdict(report), "made_of": made}
        (partial / RESULT).write_text(json.dumps(_plain(whole), indent=1) + "\n", encoding="utf-8")
    return VepResult(folder, report)


def _open(
    name: str,
    model: Model,
    genome: ProbabilisticGenome,
    surroundings: str,
    settings: ScoreSettings,
    *,
    trust_remote_code: bool,
) -> Scorer:
    """Return what scores by a model, MutBERT or any other."""
    if isinstance(model, str | Path):
        encoder = open_encoder(model, name=name, trust_remote_code=trust_remote_code)
        if isinstance(encoder, AutoEncoder):
            if surroundings != "reference":
                raise InputError(f"{name}: reads tokens, not allele frequencies; give --surroundings reference")
            return TokenScorer(encoder, genome, settings)
    return open_scorer(model, genome, surroundings=surroundings, settings=settings)


def _named(models: Sequence[Model]) -> dict[str, Model]:
    """Give each model its name."""
    if not models:
        raise InputError("no model was given; give --model FOLDER")
    named: dict[str, Model] = {}
    for model in models:
        place = model
        if isinstance(model, str | Path):
            name, equals, rest = str(model).partition("=")
            # A folder may have the sign in its name.
            if equals and not Path(str(model)).exists():
                place = rest
            else:
                name = Path(str(model)).resolve().name if Path(str(model)).exists() else str(model)
        else:
            name = Path(str(model.config.name_or_path or type(model).__name__)).name
        name = " ".join(name.split())
        if not name:
            raise InputError(f"--model {model}: the name before = is empty; give NAME=PLACE")
        if name in named:
            raise InputError(f"two models are called {name}; name one with --model NAME=PLACE")
        named[name] = place
    return named


def _direction(direction: str | None, problem: str) -> str:
    if direction is not None and direction not in DIRECTIONS:
        raise InputError(f"direction is {direction!r}; it must be one of {', '.join(DIRECTIONS)}")
    if problem == "binary":
        return direction or "damaging"
    if direction not in {None, "either"}:
        raise InputError(f"direction is {direction}, which is for two classes; leave it out")
    return "either"


class _Found(NamedTuple):
    """The alleles of rows, and why some are not used; the reason is empty where they are."""

    alleles: Alleles
    reason_N: Texts
    counts: Mapping[str, int]
    repeated: int


def _find(table: LabelledVariants, scorer: Scorer) -> _Found:
    alleles = scorer.find(table.contigs, table.positions, table.references, table.alternates)
    assert len(alleles) == len(table), "a row has one alternate"
    reason_N = table.labels.reason_N.copy()
    words = np.array(["" if reason == Reason.SCORED else reason.text for reason in Reason], dtype=object)
    # What is wrong with the variant is said before that it has no label.
    reason_N = np.where(alleles.reason_A == Reason.SCORED, reason_N, words[alleles.reason_A]).astype(object)
    repeated = _mark_repeated(table, alleles, reason_N)
    counts = Counter(str(reason) for reason in reason_N.tolist() if reason)
    return _Found(alleles, reason_N, dict(sorted(counts.items())), repeated)


def _mark_repeated(table: LabelledVariants, alleles: Alleles, reason_N: Texts) -> int:
    """Mark rows of an allele that came before; of effects, such rows stay, and are counted."""
    used = np.flatnonzero(reason_N == "")
    if not len(used):
        return 0
    inserted = np.array([alleles.inserted[row] for row in used.tolist()], dtype=str)
    columns = (alleles.contig_A, alleles.start_A, alleles.end_A, alleles.alternate_A)
    _, text_U = np.unique(inserted, return_inverse=True)
    key_U5 = np.stack([*(column[used].astype(np.int64) for column in columns), text_U], axis=1)
    _, first, group_U = np.unique(key_U5, axis=0, return_index=True, return_inverse=True)
    group_U = group_U.reshape(-1)
    if table.labels.problem == "regression":
        return len(used) - len(first)
    label_U = table.labels.label_N[used]
    differs_G = np.zeros(len(first), dtype=np.bool_)
    differs_G[group_U[label_U != label_U[first][group_U]]] = True
    later_U = np.arange(len(used)) != first[group_U]
    reason_N[used[later_U]] = DUPLICATE
    reason_N[used[differs_G[group_U]]] = CONTRADICTORY
    return 0


def _left_out(table: LabelledVariants, found: _Found) -> dict[str, int]:
    """Count rows that were to be left out, by the label's value."""
    return dict(sorted(Counter(table.texts[row] for row in np.flatnonzero(found.reason_N == LEFT_OUT)).items()))


def _check_usable(table: LabelledVariants, found: _Found, genome: ProbabilisticGenome) -> None:
    place, reason_A = table.source.place, found.alleles.reason_A
    if (reason_A == Reason.CONTIG_NOT_IN_GENOME).all():
        raise InputError(
            f"{place}: none of its contigs ({names_text(dict.fromkeys(table.contigs))}) is in {genome.path} "
            f"({names_text(genome.contigs)}); give the genome of the table's species and assembly"
        )
    wrong = int((reason_A == Reason.REFERENCE_MISMATCH).sum())
    compared = int(np.isin(reason_A, [Reason.SCORED, Reason.REFERENCE_MISMATCH, Reason.NOT_A_CHANGE]).sum())
    if wrong > _MOST_MISMATCHES * compared:
        raise InputError(
            f"{place}: the reference allele is not what {genome.path} has in {wrong:,} of {compared:,} variants, more "
            f"than {100 * _MOST_MISMATCHES:.0f} %; give the genome of the table's assembly, and 1-based positions"
        )
    used = np.flatnonzero(found.reason_N == "")
    said = ", ".join(f"{reason} ({count:,})" for reason, count in found.counts.items())
    if not len(used):
        raise InputError(f"{place}: no variant can be used: {said}; give other variants, or another genome")
    label_U = table.labels.label_N[used]
    if len(np.unique(label_U)) == 1:
        classes = table.labels.classes
        value = f"{label_U[0]:g}" if table.labels.problem == "regression" else classes[int(label_U[0])]
        raise InputError(
            f"{place}: the labels of all {len(used):,} variants that can be used are one, {value}"
            + (f" (not used: {said})" if said else "")
            + "; give variants of both classes, or name others with --positive"
        )


def _scores(name: str, scorer: Scorer, alleles: Alleles, advance: Advance) -> tuple[list[Predictor], Float64]:
    """Score alleles; gives each field as a predictor, and what is made of them."""
    value_AF = _score_in_chunks(scorer, alleles, advance)
    snv, others = (Kind.SNV,), (Kind.MNV, Kind.INDEL)
    columns: list[tuple[Predictor, Float64]] = []
    by_name = {field.name: value_AF[:, number] for number, field in enumerate(scorer.fields)}
    for field in scorer.fields:
        kinds = {"LLR": snv, "ENT": snv, "ULLR": snv, "PLLR": others}.get(field.name, (*snv, *others))
        # The lower its entropy, the more a position is expected to be what it is.
        extreme = field.extreme or -1
        columns.append((Predictor(field.name, name, field.description, extreme, kinds), by_name[field.name]))
        if field.name in {"LLR", "PLLR", "ULLR"}:
            words = f"absolute value of {field.name}"
            columns.append((Predictor(f"|{field.name}|", name, words, 1, kinds), np.abs(by_name[field.name])))
    if "PLLR" in by_name:
        both_A = np.where(alleles.kind_A == Kind.SNV, by_name["LLR"], by_name["PLLR"])
        words = "LLR of SNVs and PLLR of MNVs and indels, which are not on one scale"
        mixed = [
            (Predictor("LLR or PLLR", name, words, -1, mixed=True), both_A),
            (Predictor("|LLR or PLLR|", name, f"absolute value of {words}", 1, mixed=True), np.abs(both_A)),
        ]
        columns = [*mixed, *columns]
    there = {int(kind) for kind in np.unique(alleles.kind_A)}
    # Such as PLLR where all are SNVs.
    columns = [
        (predictor, value_A)
        for predictor, value_A in columns
        if there & set(predictor.kinds) and (not predictor.mixed or len(there) > 1)
    ]
    return [predictor for predictor, _ in columns], np.stack([value_A for _, value_A in columns], axis=1)


def _score_in_chunks(scorer: Scorer, alleles: Alleles, advance: Advance) -> Float64:
    """Score alleles by their place in the genome, whatever the order of the table."""
    order = np.lexsort((alleles.start_A, alleles.contig_A))
    contig, start = alleles.contig_A[order], alleles.start_A[order]
    length = np.array(list(scorer.genome.lengths.values()), dtype=np.int64)[contig]
    context, windows = scorer.settings.context, scorer.settings.windows
    assert context is not None, "a scorer fills it in"
    # A chunk ends between windows, whose alleles may be masked together. At a contig's end several cells of the grid
    # have one window.
    window = place_windows(start, length, context, windows).start_P
    new = np.flatnonzero((np.diff(contig) != 0) | (np.diff(window) != 0)) + 1
    ends: list[int] = []
    for end in [*new.tolist(), len(order)]:
        if end - (ends[-1] if ends else 0) >= _ALLELES_AT_ONCE or end == len(order):
            ends.append(end)
    value_AF = np.full((len(alleles), len(scorer.fields)), np.nan)
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        rows = order[begin:end]
        value_AF[rows] = scorer.score(alleles.take(rows), advance)
    return value_AF


def _said(settings: ScoreSettings) -> dict[str, Any]:
    said = asdict(settings)
    # It changes nothing but how long it takes.
    said.pop("batch_size")
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


def _facts(
    table: LabelledVariants,
    genome: ProbabilisticGenome,
    made_of: Mapping[str, Any],
    surroundings: str,
    resamples: int,
    seed: int,
) -> dict[str, str]:
    facts = {"variants": f"{table.source.place}, SHA-256 {table.source.sha256[:12]}", "genome": genome.path.name}
    for name, entry in made_of.items():
        bases = f", context {entry['settings']['context']}" if len(made_of) > 1 else ""
        facts[f"model {name}"] = f"SHA-256 {entry['sha256'][:12]}{bases}"
    said = next(iter(made_of.values()))["settings"]
    facts["scoring"] = ", ".join(
        f"{key} {', '.join(value) if isinstance(value, list) else value}"
        for key, value in said.items()
        if value is not None and (key != "context" or len(made_of) == 1)
    )
    facts["surroundings"] = surroundings
    facts["resamples, seed"] = f"{resamples:,}, {seed}"
    return facts


def _notes(parts: Sequence[VepPart], table: LabelledVariants, found: _Found) -> list[str]:
    notes = list(table.labels.notes)
    first = parts[0]
    if first.rows and first.compared < _FEW_COMPARED * first.variants:
        lacking = [f"{row.predictor} ({row.missing:,})" for row in first.rows if row.missing]
        notes.append(
            f"Only {first.compared:,} of {first.variants:,} variants are compared, since others lack "
            f"{', '.join(lacking)}. If values are missing for a reason that has to do with the label, this is another "
            "question than that of all variants."
        )
    if found.repeated:
        notes.append(
            f"{found.repeated:,} rows are of an allele that came before; they stay, but are not independent, so that "
            "intervals are too narrow."
        )
    return [*notes, *_followed(parts)]


def _followed(parts: Sequence[VepPart]) -> list[str]:
    """Say which baselines labels follow, each where it is seen first."""
    notes: dict[str, str] = {}
    for part in parts:
        positives = part.compared_positives
        sides = [part.compared] if positives is None else [positives, part.compared - positives]
        if min(sides) < _ENOUGH:
            continue
        for row in part.rows:
            metric, measure = next(iter(row.measures.items()))
            if not row.model and abs(measure.value) >= _FOLLOWED[metric]:
                notes.setdefault(
                    row.predictor,
                    f"Labels follow the trivial baseline {row.predictor} ({part.name}, {part.target}: "
                    f"{METRIC_NAMES[metric]} {measure.value:.3f}). They may have been made from it, or the variants "
                    "chosen by it; how a model compares with it then says little.",
                )
    return list(notes.values())


def _shown(measured: Measured) -> Shown:
    everything = Split(ALL, np.ones(len(measured.kind_A), dtype=np.bool_))
    chosen, _, common_A = compared_columns(measured, everything)
    names = names_of(measured.predictors)
    histograms = {}
    masked = any(predictor.name in {"LLR", "PLLR"} for predictor in measured.predictors)
    drawn = {"LLR", "PLLR"} if masked else {"ULLR"}
    for number, predictor in enumerate(measured.predictors):
        if predictor.model and predictor.name in drawn:
            has_A = np.isfinite(measured.value_AP[:, number])
            if has_A.any():
                histograms[names[number]] = (measured.value_AP[has_A, number], measured.target_A[has_A])
    scores = {names[number]: measured.value_AP[common_A, number] for number in chosen}
    return Shown(measured.target_A[common_A], scores, histograms)


def _write_scores(path: Path, table: LabelledVariants, found: _Found, measured: Measured, used: Int64) -> None:
    """Write a row for each row of the table, with every predictor, and why one is not used."""
    import pyarrow as pa
    import pyarrow.parquet

    kinds = np.array(["", *KIND_NAMES.values()], dtype=object)[found.alleles.kind_A]
    kinds[found.alleles.reason_A != Reason.SCORED] = ""
    columns: dict[str, Any] = {
        "chromosome": pa.array(table.contigs, pa.string()),
        "position": pa.array(table.positions, pa.int64()),
        "ref": pa.array(table.references, pa.string()),
        "alt": pa.array(table.alternates, pa.string()),
        "kind": pa.array(kinds.tolist(), pa.string()),
        "label": pa.array(table.texts, pa.string()),
        "target": pa.array(table.labels.label_N, from_pandas=True),
    }
    if table.groups is not None:
        columns["group"] = pa.array(table.groups, pa.string())
    for number, name in enumerate(names_of(measured.predictors)):
        value_N = np.full(len(table), np.nan)
        value_N[used] = measured.value_AP[:, number]
        columns[name] = pa.array(value_N, from_pandas=True)
    columns["reason"] = pa.array(found.reason_N.tolist(), pa.string())
    pa.parquet.write_table(pa.table(columns), path)


def _plain(value: Any) -> Any:
    """Make JSON of a report: what is not a number becomes null, and tuples with names stay mappings."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(entry) for name, entry in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return value
