import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert.windows.masking import Tempering, temper

ROWS = st.lists(st.lists(st.integers(0, 65535), min_size=4, max_size=4).filter(any), min_size=1, max_size=10).map(
    lambda rows: (np.array(rows, dtype=float) / np.sum(rows, axis=1, keepdims=True)).astype(np.float32)
)


@given(ROWS, st.sampled_from(["none", "log", "published"]), st.floats(0.05, 5))
def test_tempered_rows_are_distributions_and_no_allele_appears(frequency, kind, temperature):
    tempered = temper(frequency, Tempering(kind, temperature))
    np.testing.assert_allclose(tempered.sum(axis=1), 1, atol=1e-5)
    assert not (tempered[frequency == 0] > 0).any()
    assert tempered.dtype == np.float32


@given(ROWS, st.floats(0.1, 3))
def test_log_tempering_is_a_normalised_power(frequency, temperature):
    power = frequency.astype(float) ** (1 / temperature)
    expected = power / power.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(temper(frequency, Tempering("log", temperature)), expected, atol=1e-5)


@given(ROWS, st.floats(0.1, 3))
def test_published_tempering_is_the_softmax_of_what_is_present(frequency, temperature):
    expected = np.where(frequency > 0, np.exp(frequency.astype(float) / temperature), 0)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(temper(frequency, Tempering("published", temperature)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["log", "published"])
def test_a_low_temperature_leaves_the_most_frequent_allele(kind):
    frequency = np.array([[0.6, 0.4, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]], dtype=np.float32)
    expected = [[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(temper(frequency, Tempering(kind, 1e-4)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("softmax",), "tempering.kind is 'softmax'; choose none, log or published"),
        *(
            (("log", value), f"tempering.temperature is {value}; it must be above 0 and finite")
            for value in (0, -0.5, float("nan"), float("inf"))
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError) as caught:
        Tempering(*settings)
    assert str(caught.value) == message
