"""The program itself: help, version, quick start-up, one line for a user's mistake."""

import ast
import inspect
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import mutbert
from mutbert import build_genome
from mutbert.cli.main import app

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
RECIPE = PYPROJECT.parent / "packaging" / "bioconda" / "meta.yaml"
MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml"}

MISTAKES = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text(encoding="utf-8"))
LATE = {"torch", "transformers", "matplotlib", "msprime", "polars", "pyarrow", "pydantic", "numpy"}


def test_every_verb_and_every_option_has_help(verbs):
    commands = {words: command for words, command in verbs.items() if not hasattr(command, "list_commands")}
    assert {("pretrain",), ("genome", "build"), ("bench", "cell"), ("report",)} < set(commands)
    for words, command in commands.items():
        assert command.help, words
        assert command.epilog.startswith(f"Example: [bold]mutbert {' '.join(words)}")
        assert [option.name for option in command.params if not option.help] == [], words
        assert "--json" in [name for option in command.params for name in option.opts]
        # No flag only negates another.
        negations = [name for option in command.params for name in option.secondary_opts]
        assert negations == ["--no-baselines"] * (words == ("bench", "run"))


# They are about the program itself; what `genome inspect` prints, `summarise_genome` returns.
NO_FUNCTION = {("demo",), ("genome", "inspect"), ("bench", "list"), ("workflow", "list"), ("workflow", "copy")}
# Options with another name than the parameter: a word of Python, a column next to an option of that name, settings of a
# recipe; and those of the program or of other functions (score_alleles, score_all_snvs, draw_mutagenesis), and names of
# columns.
OPTIONS = {
    "as": "kind", "set": "settings", "seed": "first_seed", "contigs": "regions", "settings": "recipe",
    **{f"{name}_column": name for name in ("sequence", "name", "region")},
    **dict.fromkeys(("json", "device", "threads", "variant", "all_snvs", "figure", "columns"), "progress"),
}  # fmt: skip
# Parameters without an option: `report` replaces a page, `predict` needs no label, `bench cell` runs one seed.
NO_OPTION = {
    "report": {"force"}, "predict": {"label", "where"}, "bench run": {"first_seed"},
    "bench cell": {"seeds", "baselines"},
    "bench vep": {"chrom", "pos", "ref", "alt", "flank", "longest", "distance_bases"},
}  # fmt: skip


def parameters_of(function):
    """Return the names of a function's parameters; in place of settings, those of their fields."""
    for parameter in inspect.signature(function).parameters.values():
        found = re.search(r"\w+(Settings|Columns|Request)\b|\bColumns\b", str(parameter.annotation))
        yield from inspect.signature(getattr(mutbert, found[0])).parameters if found else [parameter.name]


def test_a_command_has_the_parameters_of_its_function(verbs):
    hidden = {"progress", "bases_at_once"}
    for words, command in verbs.items():
        name = (getattr(command, "epilog", "") or "").partition("In Python: mutbert.")[2]
        if not name:
            assert hasattr(command, "list_commands") or words in NO_FUNCTION, words
            continue
        known = {*parameters_of(getattr(mutbert, name)), *hidden}
        options = {one.name if one.param_type_name == "argument" else one.opts[0].strip("-").replace("-", "_")
                   for one in command.params}  # fmt: skip
        # An option that may be repeated is in the singular.
        found = {one if one in known else OPTIONS.get(one, f"{one}s") for one in options} | hidden
        assert found ^ known == NO_OPTION.get(" ".join(words), set()), words


def test_defaults_are_shown_and_options_completed():
    help_text = CliRunner().invoke(app, ["score", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).output
    for default in ("llr", "centred", "reference", "8", "50", "MUTBERT", "32", "fp32"):
        assert f"[default: {default}]" in help_text
    words = {"_MUTBERT_COMPLETE": "complete_bash", "COMP_WORDS": "mutbert score --pre", "COMP_CWORD": "2"}
    done = CliRunner().invoke(app, prog_name="mutbert", env=words)
    assert set(done.output.split()) == {"--precision", "--prefix"}


@pytest.mark.parametrize("words", ["", "--help", "score --help"])
def test_large_libraries_are_imported_late(words):
    run = f"from mutbert.cli.main import app; app({words.split()}, standalone_mode=False)"
    program = run if words else "import mutbert; mutbert.Region"
    # Regions need numpy, and Typer takes pydantic itself to read options.
    late = LATE - {"": {"numpy"}, "score --help": {"pydantic"}}.get(words, set())
    check = f"import sys; assert not {late} & set(sys.modules), {late} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{program}; {check}"], check=True, stdout=subprocess.DEVNULL)


def test_the_recipe_of_bioconda_has_our_requirements_and_its_tests_pass(mutbert_here, tmp_path, monkeypatch):
    jinja2, text = pytest.importorskip("jinja2"), RECIPE.read_text(encoding="utf-8")
    recipe = yaml.safe_load(jinja2.Template(text).render(PYTHON="python", pin_subpackage=lambda name, **_: name))
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    ours = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["all"]
    ours = [re.sub("^torch>", "pytorch>", re.sub("^matplotlib>", "matplotlib-base>", one.lower())) for one in ours]
    python = f"python{project['project']['requires-python']}"
    host, run = ([one.replace(" ", "") for one in recipe["requirements"][kind]] for kind in ("host", "run"))
    assert sorted(run) == sorted([python, *ours])
    assert sorted(host) == sorted([python, "pip", *project["build-system"]["requires"]])
    assert recipe["build"]["entry_points"] == [" = ".join(one) for one in project["project"]["scripts"].items()]
    assert [*recipe["about"]["license_file"]] == project["project"]["license-files"]
    monkeypatch.chdir(tmp_path)
    for line in recipe["test"]["commands"]:
        mutbert_here(*shlex.split(line)[1:])


def test_public_names_are_those_that_are_there():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mutbert.nothing  # noqa: B018
    assert set(mutbert.__all__) == set(dir(mutbert))


def test_types_of_public_functions_are_public():
    for function in (one for name in mutbert.__all__ if inspect.isfunction(one := getattr(mutbert, name))):
        source = ast.parse(Path(inspect.getsourcefile(function)).read_text())
        home = {
            alias.name: node.module
            for node in ast.walk(source)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mutbert.")
            for alias in node.names
        }
        words = set(re.findall(r"\w+", " ".join(map(str, function.__annotations__.values()))))
        named = [getattr(import_module(home[word]), word) for word in words & home.keys()]
        named += [getattr(sys.modules[function.__module__], word, None) for word in words - home.keys()]
        own = {one.__name__ for one in named if inspect.isclass(one) and one.__module__.startswith("mutbert.")}
        assert own <= set(mutbert.__all__), function


@pytest.mark.parametrize("order", ["mutbert, transformers", "transformers, mutbert"])
def test_auto_classes_know_the_models_once_transformers_is_imported(order):
    program = (
        "import importlib.util, sys\n"
        f"import {order.split(', ')[0]}\n"
        "assert importlib.util.find_spec('transformers')\n"
        f"import {order.split(', ')[1]}\n"
        "from transformers import AutoConfig, AutoModelForMaskedLM\n"
        "config = AutoConfig.for_model('mutbert', hidden_size=8, num_attention_heads=2, num_hidden_layers=1)\n"
        "assert type(AutoModelForMaskedLM.from_config(config)) is mutbert.MutBertForMaskedLM\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_one_word_is_one_value(tmp_path, mistaken):
    import mutbert

    genome = mistaken / "small.genome"
    words = {"contigs": "chr1", "filters": "PASS"}
    built = mutbert.build_genome(mistaken / "small.fa", tmp_path / "out", mistaken / "small.vcf", **words)
    assert list(built["lengths"]) == ["chr1"]
    assert mutbert.export_genome(genome, tmp_path / "a.fa", "reference", regions="chr1")["regions"] == 1
    assert mutbert.merge_genomes(str(genome), tmp_path / "b.genome")["lengths"]
    assert mutbert.ScoreSettings(scores="llr") == mutbert.ScoreSettings(scores=["llr"])
    assert mutbert.GridRequest(suites="tfbs", models="kmer").models == ("kmer",)
    assert mutbert.VepColumns(label="x", positive="bad").positive == ("bad",)
    with pytest.raises(mutbert.InputError, match="tracks are depth; give"):
        mutbert.write_tracks("model", genome, tmp_path / "x.bedgraph", tracks="depth")
    with pytest.raises(mutbert.InputError, match="region 'chrZ'"):
        mutbert.write_tracks("model", genome, tmp_path / "x.bedgraph", regions="chrZ")


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """A folder of a small genome, a model and tables, and of files that are wrong."""
    folder = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(Path(__file__).resolve().parents[1] / "golden" / "inputs", folder, dirs_exist_ok=True)
    build_genome(folder / "small.fa", folder / "small.genome", folder / "small.vcf")
    for name, text in MISTAKES["files"].items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("named", "command"), MISTAKES["commands"])
def test_a_mistake_is_one_line_and_status_2(mutbert_here, mistaken, monkeypatch, named, command):
    monkeypatch.chdir(mistaken)
    before = sorted(mistaken.rglob("*"))
    done = mutbert_here(*shlex.split(command), status=2)
    (said,) = re.findall("^mutbert: (?!runs on ).*", done.stderr, re.MULTILINE)
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)
    assert named in said
    assert sorted(mistaken.rglob("*")) == before


@pytest.mark.parametrize(
    "command",
    [
        "pretrain small", "embed --model m --fasta f.fa -o x.parquet", "bench list", "report x",
        "genome export x.genome -o x.parquet", "genome inspect x.genome --plot x.svg", "simulate -o population",
    ],
)  # fmt: skip
def test_without_the_extra_a_command_names_it(tmp_path, command):
    needed = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]["all"]
    modules = [MODULES.get(name, name) for name in (re.match(r"\w[\w-]*", one)[0] for one in needed)]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({modules!r})); sys.argv = ['mutbert', *{command.split()!r}]\n"
        "from mutbert.cli.main import run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"mutbert: [\w-]+ is not installed; remedy: pip install 'mutbert\[all\]'\n", done.stderr)
    assert list(tmp_path.iterdir()) == []
