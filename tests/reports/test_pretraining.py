import math

import pytest

from mutbert.errors import InputError
from mutbert.reports.folder import report

NAN = math.nan
TITLES = [
    "Training curve", "Held-out curves", "Held-out table", "By frequency", "Calibration", "Optimiser", "Run details",
    "Recipe",
]  # fmt: skip
GROUPS = ["all", "variant", "other", "variant, up to 0.02", "variant, 0.02 to 0.05", "variant, 0.2 to 0.5"]


def of_groups(*values):
    return dict(zip(GROUPS, values, strict=True))


def logged(step):
    return [
        {"step": step, "loss": 1.3 + 2 / step, "grad_norm": 0.5 + 1 / step, "learning_rate": 1e-4},
        {"step": step, "eval_loss": 1.3 + 1 / step, "eval_loss_variant": 1.31, "eval_loss_other": 1.29 + 1 / step},
    ]


HISTORY = [entry for step in (10, 100, 400, 1200) for entry in logged(step)]
TABLE = {
    "uniform": of_groups(1.3863, 1.3863, 1.3863, 1.3863, None, 1.3863),
    "base composition": of_groups(1.3621, 1.3411, 1.3622, 1.3623, None, 1.3624),
    "order-5 Markov chain": of_groups(1.3302, 1.3425, 1.3303, 1.3304, None, 1.3305),
    "model": of_groups(1.2567, 1.3511, 1.2555, 1.3512, None, 1.3513),
    "entropy floor": of_groups(0.0081, 0.3112, 0.0, 0.0712, None, 0.6211),
}


def bins(*rows):
    return [dict(zip(("predicted", "observed", "pairs"), row, strict=True)) for row in rows]


@pytest.fixture
def write(page_of):
    def write(history=HISTORY, recipe="seed: 1\n", **changes):
        metrics = {
            "kind": "pretrain", "version": 2, "name": "small", "steps": 1200, "unit": "nats per target",
            "targets": of_groups(250123, 6512, 243611, 6065, 0, 1), "cross_entropy": TABLE,
            "calibration": {
                "all targets": bins((0.25, 0.27, 900), (0.5, 0.4, 100), (NAN, NAN, 3)),
                "variant targets": bins((0.25, 0.2, 40)),
            },
            "facts": {"parameters": "86,123,456", "genome": "population.genome"},
            "notes": ["Resumed from checkpoint-120."],
        }  # fmt: skip
        return page_of(metrics | changes, history, recipe)

    return write


def test_a_page_has_its_parts_and_fetches_nothing(write, tmp_path, evil):
    table = TABLE | {evil: of_groups(1.4, 1.4, 1.4, 1.4, None, 1.4)}
    page = write(recipe=evil, name=evil, cross_entropy=table, facts={evil: evil}, notes=[evil])
    assert page.texts("h1") == [f"Pre-training: {evil}"]
    assert page.titles == TITLES
    assert f'<div class="notes"><p>{evil}</p></div>' in page.words
    assert "<script" not in page.source
    page.check_alone()
    assert list(page.drawings) == [*TITLES[:2], "Cross-entropy by frequency", *TITLES[4:6]]
    # Bins without targets are left out.
    assert {"up to 0.02", "6,065 targets", "1 target", *table} <= set(page.drawings["Cross-entropy by frequency"])
    assert not any("0.05" in text for text in page.drawings["Cross-entropy by frequency"])
    # (900 * 0.02 + 100 * 0.1) / 1000, and 0.05.
    assert "is 0.0280 for all targets, 0.0500 for variant targets." in page.words
    assert page.tables[0][0][:3] == ["predictor", "all\n250,123", "variant\n6,512"]
    for row, (name, values) in zip(page.tables[0][1:], table.items(), strict=True):
        assert row == [name, *("–" if value is None else f"{value:.4f}" for value in values.values())]
    assert page.source.count('class="marked"') == 1
    assert page.tables[1] == [[evil, evil]]
    assert page.texts("pre") == ["\n" + evil]
    with pytest.raises(InputError, match="exists already"):
        report(tmp_path, force=False)


def test_the_headline_compares_with_the_best_trivial_predictor(write):
    lead = write().lead
    # 1.3302 - 1.2567 = 0.0735; at variant targets the base composition is best, not the Markov chain.
    assert "better than the best trivial predictor (order-5 Markov chain, 1.3302) by 0.0735 or 5.5%" in lead
    assert "worse than the best trivial predictor (base composition, 1.3411) by 0.0100 or 0.7%" in lead
    lead = write(cross_entropy=TABLE | {"model": of_groups(1.33019, 1.5, 1.2, 1.3, None, 1.3)}).lead
    assert "1.3302 nats per target, no better than" in lead
    lead = write(cross_entropy={"base composition": {"all": math.inf}, "model": {"all": 1.3}}).lead
    assert "1.3000 nats per target, with nothing to compare it with" in lead


def test_what_is_missing_or_not_finite_is_said(write):
    page = write(cross_entropy=TABLE | {"model": dict.fromkeys(GROUPS, math.inf)})
    assert "on held-out targets is infinite." in page.lead
    assert page.tables[0][4] == ["model", *["infinite"] * 4, "–", "infinite"]
    page = write([], "", steps=1, targets={}, cross_entropy={}, calibration={}, facts={}, notes=[])
    assert (page.titles, page.drawings, page.tables) == (TITLES, {}, [])
    assert page.lead == "The model was trained for 1 step. Its held-out cross-entropy is not known."
    history = [{"step": 3, "loss": NAN, "grad_norm": 0.0}, {"step": 3, "eval_loss": 1.3, "eval_loss_other": 1.3}]
    table = {name: values | dict.fromkeys(["variant", *GROUPS[3:]]) for name, values in TABLE.items()}
    page = write(history, cross_entropy=table, targets=of_groups(10, 0, 10, 0, 0, 0))
    assert "There are no variant targets. Lower is better." in page.lead
    assert page.source.count("1 value is not drawn: not finite, or a norm of 0.") == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no metrics.json or vep.json and no suites; choose the folder of a finished run"),
        ({"metrics.json": "{"}, "metrics.json: cannot be read"),
        ({"metrics.json": '{"kind": "x", "version": 2}'}, "kind is 'x'; it must be one of pretrain, finetune, vep"),
        ({"metrics.json": '{"problem": "binary"}'}, "written by another version of mutbert; repeat the run"),
        ({"vep.json": "[]"}, "vep.json: was written by another version of mutbert; repeat the run"),
        ({"suites/x.yaml": ""}, "has no results"),
        ({"held_out.json": "{}"}, "held_out.json: was written by another version of mutbert; repeat the run"),
    ],
)
def test_folders_without_a_page_are_one_line(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        report(tmp_path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "report.html").exists()
