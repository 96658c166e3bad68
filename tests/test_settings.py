"""Settings from YAML 1.2 and back: what is read, what is refused, and that nothing is lost on the way."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from mutbert.errors import InputError
from mutbert.evaluation.suites import Suite
from mutbert.settings import Settings, Words, read_settings


class Inner(Settings):
    size: int = 1
    share: Annotated[float, Field(le=1)] = 0.5


class Outer(Settings):
    title: str
    count: int | None = None
    kind: Literal["a", "b"] = "a"
    words: Words = ()
    inner: Inner = Inner()
    by_name: dict[str, Inner] = {}
    entries: tuple[Inner, ...] = ()
    free: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count == 13:
            raise ValueError("count is 13; choose another")
        return self


@pytest.fixture
def read(tmp_path):
    def read(text, *overrides, kind=Outer):
        path = tmp_path / "some.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_settings(kind, path, overrides)

    return read


def test_every_kind_of_setting_is_read(read):
    text = """\
        title: one
        count: 4
        kind: b
        words: [x, 22]
        inner: {size: 2, share: 1}
        by_name: {left: {size: 3}, right: {}}
        entries: [{}, {size: 5}]
        free: {anything: [1, {goes: null}]}
        """
    assert read(text) == Outer(
        title="one", count=4, kind="b", words=("x", "22"), inner=Inner(size=2, share=1.0),
        by_name={"left": Inner(size=3), "right": Inner()}, entries=(Inner(), Inner(size=5)),
        free={"anything": [1, {"goes": None}]},
    )  # fmt: skip
    assert read("title: one") == read_settings(Outer, None, ["title=one"]) == Outer(title="one")
    assert read("title: x\nwords: chr1").words == read("title: x", "words=chr1").words == ("chr1",)


@pytest.mark.parametrize("number", ["4e-4", "4E-4", "4.e-4", "+4e-4", "0.0004", ".4e-3"])
@pytest.mark.parametrize("word", ["no", "on", "y", "off", "Yes", "22"])
def test_numbers_and_words_are_what_people_mean(read, number, word):
    assert read(f"title: {word}\nwords: [{word}]", f"inner.share={number}") == Outer(
        title=word, words=(word,), inner=Inner(share=4e-4)
    )


# Each list has the one before nine times.
BOMB = "title: [&a [x]" + "".join(f", &{name} [" + 9 * f"*{last}," + "]" for last, name in pairwise("abcdefgh")) + "]"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("title: x\ncuont: 1", [], "unknown key cuont; did you mean count?"),
        ("title: x\ninner: {seize: 1}", [], "unknown key inner.seize; did you mean inner.size?"),
        ("title: x\nby_name: {left: {sise: 1}}", [], "unknown key by_name.left.sise; did you mean by_name.left.size?"),
        ("count: 1", [], "title is missing; add it, or set title=..."),
        ("title: x\ncount: 13", [], "count is 13; choose another"),
        ("title: x\ninner: {share: 2}", [], "inner.share: Input should be less than or equal to 1 (given: 2)"),
        ("title: x\nkind: c", [], "kind: Input should be 'a' or 'b' (given: 'c')"),
        ("", [], "contains no settings"),
        (b"\xff\xfe\x00", [], "cannot be read"),
        ("title: x", ["count"], "'count' is not of the form key=value"),
        ("title: x", ["title.a=1"], "title: Input should be a valid string"),
        ("title: x", ["count=["], "the value is not valid YAML"),
        (BOMB, [], "or, aliases repeated, values"),
        ("title: &a [*a]", [], "not valid YAML: it has more than 20 levels"),
        ("title: 2020-13-45", [], "not valid YAML: month must be in 1..12"),
        ("title: !!float abc", [], "not valid YAML: could not convert string to float: 'abc'"),
        ("title: !!python/name:os.system x", [], "not valid YAML: could not determine a constructor for the tag"),
        (f"title: x\ncount: {'9' * 5000}", [], "not valid YAML: Exceeds the limit"),
        (f"title: [{'x' * 4000}]", [], "title: Input should be a valid string (given: ['xxx"),
        (f"title: x\nfree: {'{a: ' * 20 + '1' + '}' * 20}", [], "it has more than 20 levels"),
        ("base: some.yaml\ntitle: x", [], "is a base of itself"),
        (f"title: {'x' * (1 << 20)}", [], "more than 1,048,576 characters"),
        ("title: x\ntrust_remote_code: true", [], "trust_remote_code is for the command line alone"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(read, text, overrides, message):
    with pytest.raises(InputError) as caught:
        read(text, *overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert overrides or "some.yaml: " in str(caught.value)


def test_overrides_reach_into_what_is_nested_and_values_are_replaced(read):
    found = read("title: x", "count=7", "inner.size=3", "by_name.left.share=0.25", "free.a.b=[1, 2]", "words=[p, q]")
    assert found == Outer(title="x", count=7, inner=Inner(size=3), by_name={"left": Inner(share=0.25)},
                          free={"a": {"b": [1, 2]}}, words=("p", "q"))  # fmt: skip
    changed = found.with_overrides(["inner.share=1e-3", "count=null", "free.a.b=no"])
    assert changed == found.replace(inner=Inner(size=3, share=1e-3), count=None, free={"a": {"b": "no"}})
    assert found.free == {"a": {"b": [1, 2]}}
    with pytest.raises(ValueError, match="count is 13"):
        found.replace(count=13)


def test_a_file_holds_what_differs_from_its_base(read, tmp_path):
    (tmp_path / "base.yaml").write_text("title: below\ncount: 1\ninner: {size: 2, share: 0.1}\nwords: [a, b]\n")
    found = read("base: base.yaml\ncount: 3\ninner: {share: 0.2}\nwords: [c]\n", "inner.size=9")
    assert found == Outer(title="below", count=3, inner=Inner(size=9, share=0.2), words=("c",))
    with pytest.raises(InputError, match=r"none: cannot be read .*; suites that come with the package: clinvar, "):
        read_settings(Suite, "none", shipped="suites")
    with pytest.raises(InputError, match=r"lacking\.yaml: cannot be read"):
        read("base: lacking.yaml\n")


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])), st.lists(st.text("0123456789eE+-._nofx~:")),
    st.dictionaries(st.text(max_size=5), st.booleans() | st.none() | st.floats(-10, 10) | st.text(max_size=5)),
)  # fmt: skip
def test_settings_come_back_as_they_were_written(read, title, words, free):
    outer = Outer(title=title, words=tuple(words), free=free)
    assert read(outer.as_yaml()) == outer
