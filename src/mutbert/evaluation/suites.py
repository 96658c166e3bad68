"""Suites of tasks as data: a task is a row, and one's own suite is a YAML file of the same form."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, Field, model_serializer, model_validator

from mutbert.encoders.known import Family
from mutbert.examples.table import Columns
from mutbert.scoring.metrics import BY_CHROM, LOWER_IS_BETTER, metric_names
from mutbert.settings import Settings, Words, read_settings
from mutbert.training.recipe import FinetuneSettings

PROTOCOLS: Final = ("published", "corrected")  # as published, known flaws included; and with these flaws fixed
EQTL_COLUMNS: Final = {
    "contig": "CHROM", "position": "POS", "reference": "REF", "alternate": "ALT", "tissue": "tissue", "label": "label",
    "distance": "distance_to_nearest_tss", "split": "split",
}  # fmt: skip
"""The columns of a table of variants: positions are 1-based, labels 1 where causal, distances in bases."""
# Of models, and of the baseline that is trained; settings may differ by them.
_Families: TypeAlias = Literal[(*get_args(Family), "cnn")]  # type: ignore[valid-type]
_EqtlColumns: TypeAlias = Literal[tuple(EQTL_COLUMNS)]  # type: ignore[valid-type]
_VepColumns: TypeAlias = Literal[
    "label", "positive", "negative", "exclude", "frequency", "splice_distance", "group", "chrom", "pos", "ref", "alt"
]
_VEP_METRICS: Final = tuple(metric + by for metric in ("auroc", "auprc") for by in ("", BY_CHROM))
_Protocols: TypeAlias = Literal[PROTOCOLS]  # type: ignore[valid-type]
_Count = Annotated[int, Field(ge=1)]


class Task(Settings):
    """One task of a suite."""

    name: str
    length: int  # bases of its sequences, for lists; others are taken as they are
    problem: Literal["binary", "multiclass", "multilabel", "regression", "token"] = "binary"
    classes: Words = ("0", "1")  # in the order of their numbers
    published_tokens: dict[_Families, int] = {}  # in place of the published protocol's max_tokens
    published_rope_factor: float | None = None  # dynamic RoPE scaling of the published protocol
    metric: str | None = None  # in place of the suite's


class Protocol(Settings):
    """How models are fine-tuned and compared; the method is the user's choice."""

    finetune: FinetuneSettings = FinetuneSettings()
    by_family: dict[_Families, dict[str, Any]] = {}  # what differs, such as a CNN's learning rate
    max_tokens: dict[_Families, int] = {}  # longer sequences are cut, special tokens counted
    # A file; a random share of the training data; or one where equal sequences, of either strand, stay on one side.
    validation: Literal["file", "random", "grouped"] = "grouped"
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    max_train_rows: Annotated[int, Field(ge=2)] | None = None  # the same for every seed and model
    first_seed: Annotated[int, Field(ge=0)] = 1
    seeds: _Count = 5

    @model_validator(mode="after")
    def _check(self) -> Self:
        for changed in self.by_family.values():
            self.finetune.replace(**changed)
        return self


class EqtlTask(Settings):
    """Variants at some distance from the nearest transcription start site, in bases on either side."""

    name: str
    from_distance: int
    to_distance: int | None = None


class EqtlProtocol(Settings):
    """How variants are classified by embeddings of the window around them."""

    c: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]  # inverse penalties to try
    choose_c_on: Literal["validation", "test"]  # on contigs held out of the training data; or as published
    scores: Literal["decision", "labels"]  # the AUROC is of decision values; or of hard labels, as published
    tissue: Literal["one-hot", "number"]  # a feature for each; or a number, as if tissues had an order
    special_tokens: bool  # [CLS] and [SEP] around a window, as in training
    edges: Literal["lower", "both"]  # a variant at the border of two tasks is in the farther one; or in both
    max_train_rows: Annotated[int, Field(ge=2)] = 5000  # drawn by seed
    rope_factor: float | None = None  # dynamic RoPE scaling; as much as the window needs where left out
    pooled_tokens: _Count = 1536  # the window's embedding is the mean over these around the variant
    first_seed: Annotated[int, Field(ge=0)] = 1
    seeds: _Count = 5


class EqtlSuite(Settings):
    """A table of variants, told apart by embeddings of windows of `length` bases."""

    tasks: Annotated[tuple[EqtlTask, ...], Field(min_length=1)]
    protocols: Annotated[dict[_Protocols, EqtlProtocol], Field(min_length=1)]
    columns: Annotated[dict[_EqtlColumns, str], AfterValidator(lambda named: EQTL_COLUMNS | named)] = EQTL_COLUMNS
    length: int = 2048


class VepSuite(Settings):
    """A table of labelled variants, for `mutbert bench vep`."""

    columns: dict[_VepColumns, str | tuple[str, ...]]  # as the options of the same names
    probe: bool = False  # compare a linear probe of each model's embeddings too


class Suite(Settings):
    """A suite of tasks, of labelled sequences or, with `eqtl`, of variants; or, with `vep`, one table of variants."""

    version: Literal[1]  # of the form of this file
    name: Annotated[str, Field(pattern="^[^/]+$")]
    title: str
    metric: str  # models are compared by it
    files: tuple[str, ...]  # a task's, with {task} and {split}, below --data; the first that exists is read
    source: str = ""
    splits: dict[Literal["train", "validation", "test"], str] = {"train": "train", "test": "test"}  # names in `files`
    columns: Columns = Columns()
    tasks: tuple[Task, ...] = ()
    protocols: dict[_Protocols, Protocol] = {}
    eqtl: EqtlSuite | None = None
    vep: VepSuite | None = None
    # What the paper reports for a model, `name` here: the suite's metric, over all tasks, or for a `score` with `vep`.
    paper: tuple[dict[Literal["model", "name", "value", "parameters", "score"], Any], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        last = "score" if self.vep else "parameters"
        for row in self.paper:
            if not {"model", "name", "value", last} <= row.keys() or not isinstance(row["value"], float | int):
                raise ValueError(f"paper: {row}: a row has a model, its name, its value and its {last}")
        if self.vep:
            if self.metric not in _VEP_METRICS:
                raise ValueError(f"metric is {self.metric!r}; variants are compared by {', '.join(_VEP_METRICS)}")
            return self
        names = [task.name for task in self.grid.tasks]
        if not names or not self.grid.protocols:
            raise ValueError("has no tasks or no protocols; add at least one of each")
        if len(set(names)) < len(names):
            raise ValueError(f"task {max(names, key=names.count)} comes twice")
        own = [(f"task {task.name}: ", task.metric or self.metric, task.problem) for task in self.tasks]
        for prefix, metric, problem in own if self.eqtl is None else [("", self.metric, "binary")]:
            known = set(metric_names("multiclass" if problem == "token" else problem)) - LOWER_IS_BETTER
            if metric not in known:
                compared = f"{problem} problems are compared by {', '.join(sorted(known))}"
                raise ValueError(f"{prefix}metric is {metric!r}; {compared}")
        for pattern in () if self.eqtl else self.files:
            if set(re.findall("{(.*?)}", pattern)) - {"task"} != {"split"}:
                raise ValueError(f"files: {pattern!r}: expected {{split}}, perhaps {{task}}, and no other")
        if not {"train", "test"} <= self.splits.keys() or len(set(self.splits.values())) < len(self.splits):
            raise ValueError("splits: name train and test, each differently")
        return self

    @model_serializer(mode="wrap")
    def _dump(self, values: Any) -> dict[str, Any]:
        """Return the suite without `vep` where it has none, as earlier versions wrote it."""
        return {name: value for name, value in values(self).items() if name != "vep" or value}

    @property
    def grid(self) -> Any:
        """The part that has tasks and protocols: the suite itself, or that of variants."""
        return self.eqtl or self

    @property
    def by_name(self) -> dict[str, Any]:
        """The tasks by their names."""
        return {task.name: task for task in self.grid.tasks}

    def with_protocols(self, protocols: dict[Any, Any]) -> Self:
        """Return the suite with other protocols."""
        changed = {"protocols": protocols}
        return self.replace(**changed) if self.eqtl is None else self.replace(eqtl=self.eqtl.replace(**changed))

    def settings_of(self, task: Task, protocol: str, family: str) -> FinetuneSettings:
        """Return how a family of models is fine-tuned on a task; sequences are cut and RoPE is scaled as published."""
        settings, published = self.protocols[protocol], protocol == "published"
        most: dict[Any, int] = settings.max_tokens | (task.published_tokens if published else {})
        changed: dict[str, Any] = {"max_tokens": most[family]} if family in most else {}
        if published and family == "mutbert" and task.published_rope_factor is not None:
            changed["rope_scaling"] = {"type": "dynamic", "factor": task.published_rope_factor}
        return settings.finetune.replace(**settings.by_family.get(family, {}) | changed)


def load_suite(name: str | Path) -> Suite:
    """Return the suite of a YAML file, or of a name that comes with this package."""
    return read_settings(Suite, name, shipped="suites")
