"""Recipes: a whole experiment in one YAML file; and how a model is fine-tuned, on a table or on a benchmark's task."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mutbert.examples.table import Columns
from mutbert.settings import Settings, Words
from mutbert.windows.masking import LONGEST_WINDOW, Masking, Tempering, Weighting
from mutbert.windows.sampler import Train

METHODS: Final = ("full", "lora", "probe")  # every weight; low-rank adapters; a linear model on frozen embeddings
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Evaluation(Settings):
    """The fixed held-out evaluation: the same windows and targets at every evaluation and for every recipe.

    Every target is hidden, so that predictors can be compared. Frequencies are never tempered here.
    """

    windows: PositiveInt = 512
    seed: Seed = 1
    share: Annotated[float, Field(gt=0, le=1)] = 0.15  # of positions that are targets, variant positions first

    @property
    def masking(self) -> Masking:
        """Masking that hides every target and takes variant positions first."""
        return Masking(policy="variants_first", share=self.share, replace=1.0, random=0.0, keep=0.0)


class Dropout(Settings):
    """When dropout is on in training; its rate is the model's own setting.

    With ``epoch_start``, for the first `on_steps` of each `epoch_steps` alone: the published code left the model in
    evaluation mode from an epoch's first evaluation on, for 97% of the steps, as the defaults do.
    """

    schedule: Literal["throughout", "epoch_start"] = "throughout"
    on_steps: NonNegativeInt = 500
    epoch_steps: PositiveInt = 16_700

    def is_on(self, step: int) -> bool:
        """Return whether dropout is on in a step, counted from 0."""
        return self.schedule == "throughout" or step % self.epoch_steps < self.on_steps


class PretrainRecipe(Settings):
    """A pre-training run."""

    genome: Annotated[Words, Field(min_length=1)]  # the genome store, or several
    output: str  # the run's folder
    held_out: Annotated[Words, Field(min_length=1)]  # contigs, regions (chr22:101-200) or BED files, for the evaluation
    # Likewise to train on, by default all that is not held out; or a mixture of sets with weights, their shares of the
    # windows: [{bed: exons.bed, weight: 1}, {bed: promoters.bed}].
    train: Train = ()
    seed: Seed = 66  # of windows, masks, initial weights and dropout
    window_length: Annotated[int, Field(ge=1, le=LONGEST_WINDOW)] = 510  # bases, without [CLS] and [SEP]
    # Windows per step over all processes, from which gradient accumulation follows, so that the recipe trains the same
    # model with any number of processes; by default the product of per_device_train_batch_size,
    # gradient_accumulation_steps and processes.
    windows_a_step: PositiveInt | None = None
    reverse_complement: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of training windows on the reverse strand
    # Whether the model is trained on allele frequencies or on the reference base; the evaluation is of frequencies.
    frequencies: Literal["population", "reference"] = "population"
    masking: Masking = Masking()
    tempering: Tempering = Tempering()
    weighting: Weighting = Weighting()
    dropout: Dropout = Dropout()
    evaluation: Evaluation = Evaluation()
    # With muon, the matrices of the encoder's layers have it, and all else has training.optim, which is AdamW.
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_scale: PositiveFloat = 1.0  # learning rate of Muon, over that of the rest, in steps of the same size
    initial_model: str | None = None  # folder or repository of a model to start from instead of random weights
    model: dict[str, Any] = {}  # fields of MutBertConfig; with initial_model, those that differ
    training: dict[str, Any] = {}  # fields of transformers.TrainingArguments, with max_steps

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.masking.policy == "spans" and self.masking.span_length > self.window_length:
            spans = f"masking.span_length is {self.masking.span_length}"
            raise ValueError(f"{spans}, longer than a window of {self.window_length}")
        if self.optimizer == "muon" and self.training.get("fsdp"):
            raise ValueError("optimizer muon needs whole matrices; use adamw, or train without sharding")
        evaluated, last = self.evaluation.masking, self.masking.at(1)
        for name, masking in (("masking.", self.masking), ("masking.final_", last), ("evaluation.", evaluated)):
            if masking.targets(self.window_length) < 1:
                raise ValueError(f"{name}share of {self.window_length} positions is none; raise the share")
        return self


class Lora(Settings):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), updates scaled by ``alpha / rank``; published defaults."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05


class FinetuneSettings(Settings):
    """How a model is fine-tuned."""

    method: Literal["full", "lora", "probe"] = "full"  # a probe uses no optimiser setting
    learning_rate: PositiveFloat = 3e-5  # of AdamW; rises linearly over the warm-up and falls linearly to 0
    weight_decay: NonNegativeFloat = 0.01
    warmup_steps: NonNegativeInt | None = None  # 50 by default, at most a tenth of the steps
    max_grad_norm: NonNegativeFloat = 1.0
    epochs: PositiveFloat = 3.0
    max_steps: PositiveInt | None = None  # overrides epochs
    batch_size: PositiveInt = 32  # sequences per step, over all processes
    micro_batch_size: PositiveInt | None = None  # sequences in memory at once; the result is the same
    eval_steps: PositiveInt | None = None  # once per epoch by default
    patience: PositiveInt | None = None  # stop after this many evaluations without improvement
    metric: str | None = None  # what the best step is chosen on; the task's own metric by default
    class_weights: Literal["none", "balanced"] = "none"  # balanced: n / (classes * count)
    reverse_complement: bool = False  # read each training sequence on the other strand half of the time
    strands: Literal["forward", "both"] = "forward"  # both: predictions are averaged over the two strands
    max_tokens: Annotated[int, Field(ge=3)] | None = None  # truncate sequences, special tokens counted
    # {"type": "linear" | "dynamic", "factor": f}; by default as much as the longest sequence needs
    rope_scaling: dict[str, Any] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"  # of training and predictions
    lora: Lora = Lora()
    training: dict[str, Any] = {}  # other fields of transformers.TrainingArguments


class FinetuneRecipe(Settings):
    """A fine-tuning run."""

    # Folder, a name of mutbert.encoders.known, or repository of the Hub; random: before it for fresh weights.
    model: str
    # CSV, TSV, Parquet or FASTA (>name|label), also of the Hub (hf://datasets/...). Without validation data, a share of
    # the training data is held out to choose the best step on.
    train: str
    output: str  # the run's folder
    validation: str | None = None
    test: str | None = None
    columns: Columns = Columns()  # meaning of the tables' columns
    # Inferred from the training data by default, as are the classes in the order of their numbers.
    problem: Literal["binary", "multiclass", "multilabel", "regression", "token"] | None = None
    classes: Words = ()
    # Of each class; equal sequences, also on the other strand, stay together.
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    drop_leaks: bool = False  # drop training sequences that validation or test data contain, on either strand
    genome: str | None = None  # a store, whose frequencies MutBERT reads where columns.region locates a sequence
    seed: Seed = 42  # of order, fresh weights and dropout
    finetune: FinetuneSettings = FinetuneSettings()
    revision: str | None = None  # commit, tag or branch of the model's repository
    trust_remote_code: bool = False  # run code that comes with the model

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.genome is not None and self.columns.region is None:
            raise ValueError("genome is given, but not columns.region, which locates a sequence; set both")
        return self
