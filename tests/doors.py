"""What every door of models is tried with: values that are wrong nearly everywhere, and what is to
come of them."""

import math

import pytest

from hp_jax.formats.model import load_model

WRONG = (None, True, "x", "", math.nan, math.inf, -1, 0, 0.5, 2**31, 10**7, 10**40, [], {}, [None])


def refusal(folder):
    """The one sentence, which names the folder, with which a model is refused."""
    with pytest.raises(ValueError, match=str(folder)) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)
