"""The folder of a run: created or resumed, locked by one run at a time; checkpoints appear and are used complete."""

import errno
import json
import math
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

import mutbert
from mutbert import files
from mutbert.errors import InputError, MissingExtraError, is_out_of_memory, one_line, reading
from mutbert.genome.store import ProbabilisticGenome
from mutbert.run_folder import CHECKPOINTS, HISTORY, METRICS, MODEL, PROVENANCE, RECIPE, REPORT, RUN_FILES, WRITING
from mutbert.settings import Settings, read_settings
from mutbert.tables import notebook_html

FILES: Final = "files.json"  # in a checkpoint: the size in bytes of every other file, by its path
# How a step is divided and what is kept may differ when a run is resumed; what a step is may not.
_MAY_CHANGE: Final = (
    "training.per_device_train_batch_size", "training.per_device_eval_batch_size", "training.dataloader_",
    "training.save_total_limit", "trust_remote_code", "finetune.micro_batch_size", "finetune.training.dataloader_",
)  # fmt: skip
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# How torch and safetensors report a file that could not be written.
_NOT_WRITTEN: Final = (
    "No space left", "PytorchStreamWriter", "file write failed", "unexpected pos", "I/O error", "iostream error",
)  # fmt: skip


@dataclass(frozen=True)
class RunResult:
    """What a training run left behind; processes other than the main one have neither metrics nor report."""

    model: Path  # the trained model's folder, for ``from_pretrained`` and the other commands
    metrics: dict[str, Any] = field(repr=False)  # the content of ``metrics.json``
    history: list[dict[str, float]] = field(repr=False)  # the content of ``history.json``
    report: Path | None  # the HTML page; None without matplotlib

    def _repr_html_(self) -> str:
        shown = self.metrics.get("metrics") or self.metrics.get("cross_entropy") or {}
        return notebook_html(repr(self), [{"": name, **values} for name, values in shown.items()])


def folder_of(output: str | Path, *, resume: bool, force: bool) -> Path:
    """Return where a run works: until it is finished, one that replaces a directory is not in its place."""
    output, new = Path(output), files.unfinished(Path(output))
    chosen = [new if (new.is_dir() if resume else force and output.exists()) else output]
    # By the main process alone, which may have created it by now.
    return Path(broadcast_object_list(chosen)[0])


class Run:
    """A run: its folder until it is finished and after that, and what it is made of."""

    def __init__(self, folder: Path, output: str | Path, recipe: Settings, provenance: Mapping[str, Any]) -> None:
        self.folder, self.output, self.recipe, self.provenance = folder, Path(output), recipe, provenance

    @contextmanager
    def open(self, inputs: Sequence[str | None], *, resume: bool, force: bool) -> Iterator[tuple[int, list[str]]]:
        """Yield the step to resume after, or 0, and notes, with the folder created and locked, and errors explained."""
        state = PartialState()
        found: list[Any] = [None]  # until the main process has succeeded
        with ExitStack() as held, _explained(self.folder):
            try:
                if state.is_main_process:
                    self._create(held, inputs, resume=resume, force=force)
                    held.enter_context(files.locked(self.folder))
                    shutil.rmtree(self.folder / WRITING, ignore_errors=True)
                    self.write_records(self.folder)
                    found = [_resumable_step(self.folder) if resume else (0, [])]
            finally:
                broadcast_object_list(found)
            if found[0] is None:
                raise InputError("the main process has stopped; see its message")
            step, notes = found[0]
            for note in notes:
                state.print(note, file=sys.stderr)
            yield step, notes
            # A process that ended now would take the main one with it, which may still be writing.
            state.wait_for_everyone()

    def finished(self) -> RunResult | None:
        """Return the result of a run that is finished, and say so; None of any other."""
        if not (self.folder / METRICS).is_file():
            return None
        self._check_same()
        with reading(self.folder, f"remove {METRICS}, and --resume ends the run again"):
            texts = ((self.folder / name).read_text(encoding="utf-8") for name in (METRICS, HISTORY))
            metrics, history = map(json.loads, texts)
        PartialState().print(f"{self.folder}: the run is finished; nothing is left to resume", file=sys.stderr)
        with ExitStack() as stack:
            if self.folder == self.output:
                files.settle(self.output)
            elif PartialState().is_main_process:
                stack.enter_context(files.making(self.output, resume=True))
            return self._published(metrics, history)

    def _create(self, held: ExitStack, inputs: Sequence[str | None], *, resume: bool, force: bool) -> None:
        folder = self.folder
        try:
            if not (force or resume) and (folder / RECIPE).is_file():
                step = max(_saved_steps(folder), default=0)
                stopped = f"a run that was stopped; use --resume to go on from step {step}, or"
                found = "a finished run;" if (folder / METRICS).is_file() else stopped
                raise InputError(f"{folder}: holds {found} choose another output")
            if not (resume and folder.exists()):
                self.output.parent.mkdir(parents=True, exist_ok=True)
                files.check_output(self.output, force=force, directory=True, inputs=inputs)
            if folder != self.output:
                if self.output.exists():
                    held.enter_context(files.locked(self.output))
                held.enter_context(files.making(self.output, resume=resume))
            # One without a recipe was created by a run that was killed right then.
            if resume and any(one.name != PROVENANCE for one in folder.glob("[!.]*")):
                self._check_same()
            else:
                folder.mkdir(exist_ok=True)
                files.mark_directory(folder, RUN_FILES)
        except OSError as error:
            raise InputError(f"{folder}: cannot be created ({one_line(error)}); choose another output") from None

    def _check_same(self) -> None:
        """Raise InputError where the run was started with another recipe or other data."""
        path = self.folder / RECIPE
        if not path.is_file():
            raise InputError(f"{path}: there is no run to resume; omit --resume, or choose the folder of a run")
        started = read_settings(type(self.recipe), path).model_dump(mode="json")
        for key, was, now in _differences(started, self.recipe.model_dump(mode="json")):
            if not key.startswith(_MAY_CHANGE):
                raise InputError(f"{path}: the run was started with '{key}: {was}', the recipe now has '{key}: {now}'")
        path, found = self.folder / PROVENANCE, None
        with suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
        for key, _, _ in _differences(found, self.provenance):
            if not key.startswith(("versions", "commit")):
                what = f"{key or 'its content'} is not what the run was started with"
                raise InputError(f"{path}: {what}; resume with the same, or start anew")

    def write_records(self, folder: Path) -> None:
        """Write the recipe and the provenance into a folder."""
        files.write_json(folder / PROVENANCE, self.provenance, force=True)
        with files.atomic_file(folder / RECIPE, force=True) as file:
            file.write_text(self.recipe.as_yaml(), encoding="utf-8")

    @contextmanager
    def publish_model(self) -> Iterator[Path]:
        """Yield the folder to write the trained model into, which then appears complete."""
        with files.atomic_directory(self.folder / MODEL, force=True) as folder:
            yield folder
            self.write_records(folder)

    def finish(self, kind: str, metrics: dict[str, Any], history: list[dict[str, float]]) -> RunResult:
        """Return the result, with metrics and report written; of a process without metrics, without these."""
        if metrics:
            versions = ", ".join(f"{name} {number}" for name, number in self.provenance["versions"].items())
            commit = self.provenance["commit"] or "not from a checkout"
            facts = {"facts": {**metrics["facts"], "versions": versions, "commit": commit}}
            metrics = {"kind": kind, "version": 2, "name": self.output.name, **metrics, **facts}
            files.write_json(self.folder / METRICS, metrics, force=True)
        return self._published(metrics, history)

    def _published(self, metrics: dict[str, Any], history: list[dict[str, float]]) -> RunResult:
        """Return the result under its final name, with the report, which a process killed before it leaves out."""
        if PartialState().is_main_process:
            shutil.rmtree(self.folder / WRITING, ignore_errors=True)
            if not (self.folder / REPORT).is_file():
                try:
                    mutbert.report(self.folder)
                except MissingExtraError as error:
                    PartialState().print(f"no report was written: {error}", file=sys.stderr)
            if self.folder != self.output:
                files.publish(self.folder, self.output)
        page = self.output / REPORT
        return RunResult(self.output / MODEL, metrics, history, page if metrics and page.is_file() else None)


def provenance_of(genomes: Sequence[ProbabilisticGenome] = ()) -> dict[str, Any]:
    """Return ``versions`` of the libraries, the ``commit`` of a checkout, and each genome's identity by its name."""
    libraries = {name: version(name) for name in ("torch", "transformers", "accelerate", "numpy")}
    return {
        "versions": {"python": platform.python_version(), "mutbert": mutbert.__version__, **libraries},
        "commit": _commit(Path(mutbert.__file__).parent),
        "genomes": {genome.path.name: genome.identity for genome in genomes},
    }


def _commit(folder: Path) -> str | None:
    """Return the commit of a checkout of this package, with ``+`` where files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        # An installed package may lie in somebody else's checkout.
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return None


def plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers as JSON can hold them, None for what is not a number."""
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two nested mappings differ: keys joined by dots, and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


@contextmanager
def _explained(run: Path) -> Iterator[None]:
    """Raise InputError with what is left and what to do, for a loss, a memory or a disk that failed."""
    try:
        yield
    except Exception as error:
        said, own = one_line(error, 160), isinstance(error, RuntimeError | OSError | SafetensorError)
        # A loading process that the system kills while it hands a batch over closes its connection.
        if is_out_of_memory(error) or isinstance(error, ConnectionError):
            batch = "dataloader_num_workers, training.per_device_train_batch_size or finetune.micro_batch_size"
            what = f"out of memory ({said}); lower {batch} (the result stays the same)"
        elif getattr(error, "errno", None) in _FULL or (own and any(text in str(error) for text in _NOT_WRITTEN)):
            what = f"cannot be written, the disk is full ({said}); make room and use --resume"
        else:
            raise
        steps = _saved_steps(run)
        left = f"the last checkpoint is {checkpoint_of(run, steps[-1])}" if steps else "no checkpoint was saved yet"
        raise InputError(f"{run}: {what}; {left}") from error
    except BaseException as error:
        error.add_note(f"--resume goes on from step {max(_saved_steps(run), default=0)}")
        raise


def publish_checkpoint(writing: Path, run: Path, last: int, best: str | None) -> None:
    """Rename a complete checkpoint to its final path, and remove all but the last few and the best; 0 keeps all."""
    (run / CHECKPOINTS).mkdir(exist_ok=True)
    files.write_json(writing / FILES, _sizes(writing), force=True)
    mode = (writing / FILES).stat().st_mode
    for file in (one for one in writing.rglob("*") if one.is_file()):
        files.set_mode(file, mode)
    if (final := run / CHECKPOINTS / writing.name).exists():
        _discard(run, int(final.name.rpartition("-")[2]))
    writing.rename(final)
    for step in _saved_steps(run)[:-last] if last else []:
        if str(checkpoint_of(run, step)) != best:
            _discard(run, step)


def _discard(run: Path, step: int) -> None:
    """Remove a checkpoint; it loses its name first, so that no half of it ever has it."""
    (run / WRITING).mkdir(exist_ok=True)
    shutil.rmtree(checkpoint_of(run, step).rename(run / WRITING / f"old-{step}"))


def checkpoint_of(run: Path, step: int) -> Path:
    """Path of the checkpoint of a step."""
    return run / CHECKPOINTS / f"checkpoint-{step}"


def _saved_steps(run: Path) -> list[int]:
    """Return the steps of a run's checkpoints; one that a killed process was removing has another name."""
    return sorted(int(one.name.rpartition("-")[2]) for one in (run / CHECKPOINTS).glob("checkpoint-*[0-9]"))


def _resumable_step(run: Path) -> tuple[int, list[str]]:
    """Return the step of the last complete checkpoint, or 0, and a line for each later one, which is removed."""
    notes: list[str] = []
    for step in reversed(_saved_steps(run)):
        sizes, listed = _sizes(checkpoint := checkpoint_of(run, step)), {FILES: 0}
        with suppress(OSError, ValueError):
            listed = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        damaged = [name for name, size in sorted(listed.items()) if sizes.get(name) != size]
        if not damaged:
            return step, notes
        notes.append(f"{checkpoint}: {', '.join(damaged)} is missing or damaged; it was removed")
        _discard(run, step)
    return 0, notes


def _sizes(folder: Path) -> dict[str, int]:
    every = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != FILES)
    return {str(file.relative_to(folder)): file.stat().st_size for file in every}
