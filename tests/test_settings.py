"""Settings from YAML and back: what is read, what is refused, and that nothing is lost on the way."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.evaluation.suites import Suite, load_suite, shipped_suites
from mutbert.settings import check_keys, read_settings, settings_text, with_overrides, with_values
from mutbert.training.finetune_settings import FinetuneSettings


@dataclass(frozen=True)
class Inner:
    size: int = 1
    share: float = 0.5


@dataclass(frozen=True)
class Entry:
    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Outer:
    title: str
    count: int | None = None
    exact: bool = False
    kind: Literal["a", "b"] = "a"
    words: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    entries: tuple[Entry, ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    nested: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    free: Mapping[str, Any] | None = None

    def __post_init__(self):
        if self.count == 13:
            raise ValueError("count is 13; choose another")


class Text:
    """What `read_settings` reads, without a file."""

    def __init__(self, text):
        self.text = text

    def read_text(self, encoding):
        assert encoding == "utf-8"
        return self.text

    def __str__(self):
        return "some.yaml"


def read(text, *overrides, kind=Outer):
    return read_settings(kind, Text(text), overrides, remedy="give another")


WHOLE = """\
title: one
count: 4
exact: true
kind: b
words: [x, 22]
inner: {size: 2, share: 1}
entries: [{name: p}, {name: q, weight: 2}]
by_name: {left: {size: 3}, right: {}}
sizes: {a: 1}
nested: {a: {b: [1, two]}}
free: {anything: [1, {goes: null}]}
"""


def test_every_kind_of_setting_is_read():
    found = read(WHOLE)
    assert found == Outer(
        title="one",
        count=4,
        exact=True,
        kind="b",
        words=("x", "22"),
        inner=Inner(2, 1.0),
        entries=(Entry("p"), Entry("q", 2.0)),
        by_name={"left": Inner(3), "right": Inner()},
        sizes={"a": 1},
        nested={"a": {"b": [1, "two"]}},
        free={"anything": [1, {"goes": None}]},
    )
    # A whole number where a fraction belongs is one.
    assert type(found.inner.share) is float
    assert type(found.entries[1].weight) is float
    assert read("title: one") == Outer("one")


@pytest.mark.parametrize("number", ["4e-4", "4E-4", "4.e-4", "+4e-4", "0.0004", ".4e-3"])
def test_numbers_are_what_people_mean(number):
    assert read(f"title: x\ninner: {{share: {number}}}").inner.share == 4e-4


@pytest.mark.parametrize("word", ["no", "on", "y", "off", "Yes"])
def test_words_that_yaml_1_1_takes_for_truth_values_are_words(word):
    assert read(f"title: {word}\nwords: [{word}]") == Outer(word, words=(word,))


def test_one_entry_needs_no_list():
    assert read("title: x\nwords: chr1").words == ("chr1",)
    assert read("title: x\nwords: 22").words == ("22",)
    assert read("title: x\nwords: 0.5").words == ("0.5",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x\ncuont: 1", "unknown key cuont; did you mean count?"),
        ("title: x\ninner: {seize: 1}", "unknown key inner.seize; did you mean inner.size?"),
        ("title: x\ninner: {zzzzz: 1}", "unknown key inner.zzzzz; there are size, share"),
        ("title: x\nentries: [{name: a}, {nam: b}]", "unknown key entries[1].nam; did you mean entries[1].name?"),
        ("title: x\nby_name: {left: {sise: 1}}", "unknown key by_name.left.sise; did you mean by_name.left.size?"),
        ("count: 1", "title is missing"),
        ("title: x\nentries: [{weight: 1}]", "entries[0].name is missing"),
        ("title: x\ncount: 13", "count is 13; choose another"),
        ("title: 5", "title is 5; expected str"),
        ("title: x\ncount: many", "count is 'many'; expected int"),
        ("title: x\ncount: true", "count is True; expected int"),
        ("title: x\ncount: 1.5", "count is 1.5; expected int"),
        ("title: x\nexact: 1", "exact is 1; expected bool"),
        ("title: x\ninner: {share: half}", "inner.share is 'half'; expected float"),
        ("title: x\ninner: {share: true}", "inner.share is True; expected float"),
        ("title: x\ninner: 5", "inner is 5; expected nested keys"),
        ("title: x\nwords: {a: 1}", "words is {'a': 1}; expected a list"),
        ("title: x\nwords: [[a]]", "words[0] is ['a']; expected a word"),
        ("title: x\nwords: [a, null]", "words[1] is None; expected a word"),
        ("title: x\nentries: {name: a}", "entries is {'name': 'a'}; expected a list"),
        ("title: x\nentries: [a]", "entries[0] is 'a'; expected nested keys"),
        ("title: x\nby_name: [a]", "by_name is ['a']; expected nested keys"),
        ("title: x\nby_name: {left: 1}", "by_name.left is 1; expected nested keys"),
        ("title: x\nsizes: {a: big}", "sizes.a is 'big'; expected int"),
        ("title: x\nnested: {a: 1}", "nested.a is 1; expected nested keys"),
        ("title: x\nfree: 1", "free is 1; expected nested keys"),
        ("title: x\ntitle: y", "key 'title' is given twice"),
        ("title: [", "not YAML"),
        ("", "holds no settings"),
        ("- a", "holds no settings"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text, message):
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value).startswith("some.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.yaml", "bytes.yaml"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read .*; give another"):
            read_settings(Outer, tmp_path / name, remedy="give another")


def test_overrides_reach_into_what_is_nested():
    found = read("title: x", "count=7", "inner.size=3", "by_name.left.share=0.25", "free.a.b=[1, 2]", "words=[p, q]")
    assert found == Outer(
        "x", count=7, inner=Inner(3), by_name={"left": Inner(share=0.25)}, free={"a": {"b": [1, 2]}}, words=("p", "q")
    )
    before = dataclasses.replace(found, title="y")
    changed = with_overrides(before, ["inner.share=1e-3", "count=null", "free.a.b=no"])
    assert changed == dataclasses.replace(before, inner=Inner(3, 1e-3), count=None, free={"a": {"b": "no"}})
    # What is given is left alone.
    assert before.free == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("count", "'count' is not of the form key=value"),
        ("=1", "'=1' is not of the form key=value"),
        ("cuont=1", "unknown key cuont; did you mean count?"),
        ("inner.sise=1", "unknown key inner.sise; did you mean inner.size?"),
        ("title.a=1", "title holds no nested keys"),
        ("count=[", "the value is not YAML"),
        ("count=13", "count is 13; choose another"),
        ("inner.size=big", "inner.size is 'big'; expected int"),
    ],
)
def test_overrides_that_cannot_be_are_refused(override, message):
    for attempt in (lambda: read("title: x", override), lambda: with_overrides(Outer("x"), [override])):
        with pytest.raises(InputError) as caught:
            attempt()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_values_that_were_read_are_checked_like_the_others():
    settings = FinetuneSettings(max_steps=4)
    changed = with_values(settings, {"learning_rate": 1, "lora": {"rank": 2}})
    assert changed == dataclasses.replace(settings, learning_rate=1.0, lora=dataclasses.replace(settings.lora, rank=2))
    assert with_values(settings, {}) == settings
    with pytest.raises(InputError, match=r"unknown key some\.learnin_rate; did you mean some\.learning_rate"):
        with_values(settings, {"learnin_rate": 1}, "some.")
    with pytest.raises(ValueError, match="batch_size is 0"):
        with_values(settings, {"batch_size": 0})


def test_check_keys_names_what_there_is():
    check_keys(["a"], ["a", "b"], "")
    with pytest.raises(InputError, match=r"unknown key p\.xyz; there are a, b"):
        check_keys(["xyz"], ["a", "b"], "p.")


SETTINGS = st.builds(
    FinetuneSettings,
    method=st.sampled_from(["full", "lora", "probe"]),
    learning_rate=st.floats(1e-12, 1e3),
    epochs=st.floats(1e-3, 1e3),
    max_steps=st.none() | st.integers(1, 10**6),
    eval_steps=st.none() | st.integers(1, 10**6),
    metric=st.none() | st.text(max_size=8),
    rope_scaling=st.none() | st.fixed_dictionaries({"type": st.just("dynamic"), "factor": st.floats(1, 8)}),
    training=st.dictionaries(st.text(max_size=5), st.booleans() | st.floats(-10, 10) | st.text(max_size=5), max_size=3),
)


@given(SETTINGS)
def test_fine_tuning_settings_come_back_as_they_were_written(settings):
    assert read(settings_text(settings), kind=FinetuneSettings) == settings


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])), st.lists(st.text("0123456789eE+-._nofx"))
)
def test_words_come_back_as_words(title, words):
    outer = Outer(title, words=tuple(words))
    assert read(settings_text(outer)) == outer


@pytest.mark.parametrize(
    "word", ["1e5", "12E3", "+1e2", "1.e4", "no", "22", "1_000", "0x1f", "true", "null", "~", "1:30"]
)
def test_words_that_look_like_something_else_come_back_too(word):
    outer = Outer(word, words=(word,), free={"a": word})
    assert read(settings_text(outer)) == outer


@pytest.mark.parametrize("name", shipped_suites())
def test_suites_come_back_as_they_were_written(name):
    suite = load_suite(name)
    assert read(settings_text(suite), kind=Suite) == suite
