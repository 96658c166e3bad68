"""A run becomes a folder to share: its card says what it is, and what it says works."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig

import yaml

from mutbert import MutBertForMaskedLM


def head_of(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def test_a_run_is_exported_with_all_that_is_known_of_it(demo, mutbert, tmp_path):
    done = mutbert("export", demo / "run", "-o", tmp_path / "shared", "--license", "cc-by-4.0", "--json")
    report = json.loads(done.stdout)
    model = MutBertForMaskedLM.from_pretrained(demo / "run" / "model")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert (report["parameters"], report["missing"]) == (parameters, [])
    card = (tmp_path / "shared" / "README.md").read_text()
    head = head_of(card)
    table = json.loads((demo / "run" / "metrics.json").read_text())
    (results,) = head.pop("model-index")[0]["results"]
    # What the Hub shows.
    known = [value for value in table["cross_entropy"]["model"].values() if value is not None]
    assert [metric["value"] for metric in results["metrics"]] == known
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == ("cc-by-4.0", "transformers", "fill-mask")
    assert f"{report['parameters']:,} parameters" in card
    manifest = json.loads((demo / "population.genome" / "manifest.json").read_text())
    for source in manifest["sources"]:
        assert source["sha256"] in card
    assert f"{manifest['records'][0]['read']:,} records" in card
    assert (demo / "run" / "model" / "recipe.yaml").read_text().rstrip() in card
    for group in ("all", "variant", "other"):
        cells = " | ".join(f"{values[group]:.4f}" for values in table["cross_entropy"].values())
        assert f"| {group} | {table['targets'][group]:,} | {cells} |" in card
    assert str(tmp_path) not in card


def test_the_card_s_example_runs_where_this_package_is_not(demo, mutbert_here, tmp_path):
    mutbert_here("export", demo / "run" / "model", "-o", tmp_path / "shared", "--name", "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    program = (
        "import sys; sys.modules['mutbert'] = None; sys.path.append(sys.argv[1])\n"
        f"{example}\n"
        "assert output.shape == (2, 14, 9) and output.isfinite().all()\n"
        "assert not torch.equal(model(**batch).logits, output)\n"
    )
    # A Python that sees the libraries, at `sys.argv[1]`, and not this package.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, sysconfig.get_paths()["purelib"]],
        capture_output=True, text=True, check=False, cwd=tmp_path, stdin=subprocess.DEVNULL,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_is_not_known_is_said(demo, mutbert_here, tmp_path):
    mutbert_here("convert", demo / "run" / "model", tmp_path / "bare")
    done = mutbert_here("export", tmp_path / "bare", "-o", tmp_path / "shared")
    assert "missing: licence, recipe, data, held-out figures" in done.stdout
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "license" not in head_of(card)
    assert "## Data\n\nNot known" in card
    (tmp_path / "bare" / "genomes.json").write_text("{")
    refused = mutbert_here("export", tmp_path / "bare", "-o", tmp_path / "other", status=2)
    assert "genomes.json: cannot be read" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_odd_names_licences_and_recipes_stay_text(demo, mutbert_here, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(demo / "run" / "model", folder)
    recipe = "name: |\n  ```\n  # not a heading\n"
    (folder / "recipe.yaml").write_text(recipe)
    named = ("--name", 'a"b\\c', "--license", "other: [x")
    mutbert_here("export", folder, "-o", tmp_path / "shared", *named)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert head_of(card)["license"] == "other: [x"
    (example,) = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    compile(example, "README.md", "exec")
    assert r'from_pretrained("a\"b\\c"' in example
    # The fence of a recipe is longer than any in it.
    assert f"````yaml\n{recipe}````\n" in card
