"""What comes from files and people is what its type says, or one sentence says where it is not."""

import dataclasses
import functools
import json
import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hp_jax.architecture import BertConfig, DecoderConfig, Decoding, Seq2SeqConfig
from hp_jax.config import (
    FINE_TUNING,
    FROM_SCRATCH,
    Ablation,
    ClassificationExperiment,
    Importance,
    LanguageModelExperiment,
    MultipleChoiceExperiment,
    Paper,
    Pruning,
    RandomSets,
    TranslationExperiment,
)
from hp_jax.config_data import ChoiceData, Data, DocumentData, ParallelData
from hp_jax.shrink.speed import Setting
from hp_jax.storage.files import read_json
from hp_jax.typed import Amount, Checked, Count, Natural, Share, decode

DECODER = DecoderConfig(
    family="llama",
    vocab=20,
    layers=2,
    width=16,
    ffn=32,
    heads=4,
    key_heads=2,
    head_width=4,
    positions=16,
)
BERT = BertConfig("bert", ("no", "yes"), 20, 16, 2, 2, 4, 16, 32)
GOOD = (
    BERT,
    Seq2SeqConfig(source_vocab=20, target_vocab=20),
    Decoding(),
    FINE_TUNING,
    FROM_SCRATCH,
    Importance(),
    Ablation(),
    RandomSets(),
    Pruning(),
    Paper(),
    Data(),
    ParallelData(),
    DocumentData(),
    ChoiceData(),
    DECODER,
    Setting(shape="tiny"),
    ClassificationExperiment(),
    TranslationExperiment(),
    LanguageModelExperiment(),
    MultipleChoiceExperiment(),
)
"""One of every kind of settings that people give."""
WRONG = (None, math.nan, math.inf, -math.inf, -3, -0.5, 10**40, "x", {}, [None], [[-1]], b"", ...)


def outcome(make, name, value):
    """What it makes of a value, or None, and its message."""
    try:
        return (make(**{name: value}) if name else make(*value)), ""
    except ValueError as error:
        return None, str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below),
    max_leaves=6,
)


@dataclasses.dataclass(frozen=True)
class Inner(Checked, section="inner"):
    count: Count = 1
    kind: Literal["a", "b"] | None = "a"
    rate: Amount = 1.0
    pairs: tuple[tuple[Natural, Share], ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.count == 7:
            raise ValueError("seven is too many")


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    named: dict[str, Count] = dataclasses.field(default_factory=dict)
    several: tuple[Inner, ...] = ()


def test_every_settings_class_is_among_the_good_ones():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    ours = {kind for kind in below(Checked) if kind.__module__.startswith("hp_jax.")}
    bases = {kind for kind in ours if kind.__subclasses__()}
    assert ours - bases - {Checked} == {type(one) for one in GOOD}


@pytest.mark.parametrize("good", GOOD, ids=lambda good: type(good).__name__)
def test_a_field_is_what_its_type_says(good):
    """Whatever is given is taken as that type, or refused with the name of the field."""
    for field in dataclasses.fields(good):
        now = getattr(good, field.name)
        for wrong in WRONG:
            made, message = outcome(functools.partial(dataclasses.replace, good), field.name, wrong)
            assert "\n" not in message
            if made is None:
                assert field.name in message or isinstance(wrong, str)
            else:  # such as text where there was text
                assert type(getattr(made, field.name)) is type(now), (field.name, wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("learning_rate", "weight_decay", "warmup", "clip", "label_smoothing")
        for value in (-1, math.nan, math.inf)
    ],
)
def test_rates_are_finite_and_not_negative(name, value):
    with pytest.raises(ValueError, match=rf"^train\.{name}: expected a number .*, but found"):
        dataclasses.replace(FINE_TUNING, **{name: value})


def test_python_values_become_what_types_say():
    made = Pruning(shares=[0, 0.5], heads=[1, 2])
    assert made.shares == (0.0, 0.5)
    assert isinstance(made.shares[0], float)
    assert made.heads == (1, 2)
    assert made == Pruning(shares=(0.0, 0.5), heads=(1, 2))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, "expected a setting inner, but there is none"),
        (None, "expected an object, but found None"),
        ([1], r"expected an object, but found \[1\]"),
        ({"inner": {"count": 0}}, "inner.count: expected an integer >= 1, but found 0"),
        ({"inner": {"count": True}}, "inner.count: expected an integer, but found True"),
        ({"inner": {"count": 2.0}}, "inner.count: expected an integer, but found 2.0"),
        ({"inner": {"count": 7}}, "inner: seven is too many"),
        ({"inner": {"kind": "c"}}, "inner.kind: expected one of 'a', 'b', but found 'c'"),
        ({"inner": {"rate": math.nan}}, "inner.rate: expected a number .*, but found nan"),
        ({"inner": {"rate": 10**400}}, "inner.rate: expected a smaller number, but found 1000"),
        (
            {"inner": {"pairs": [[1, 0.5], [2, 3]]}},
            r"inner.pairs\[1\]\[1\]: expected a number <= 1.0, but found 3",
        ),
        ({"inner": {}, "named": {"x": 0}}, r"named\[...\]: expected .* >= 1, but found {'x': 0}"),
        ({"inner": {}, "named": {3: 1}}, "named: expected keys that are text, but found {3: 1}"),
        (
            {"inner": {}, "several": [{}, {"kind": "z"}]},
            r"several\[1\].kind: expected one of 'a', 'b', but found 'z'",
        ),
        ({"inner": {}, "other": 1}, "there is no setting 'other'; there are inner, named"),
    ],
)
def test_the_message_has_place_and_value(value, sentence):
    with pytest.raises(ValueError, match=f"^m/config.json: {sentence}"):
        decode(Outer, value, "m/config.json", closed=True)


@given(json_values)
def test_any_json_is_decoded_or_refused_in_one_sentence(value):
    for whole in (value, {"inner": value}, {"inner": {"pairs": value, "kind": value}}):
        made, message = outcome(decode, None, (Outer, whole, "file"))
        assert message.startswith("file: ") or made.inner.count >= 1
        assert "\n" not in message


def test_a_file_is_decoded(tmp_path):
    path = tmp_path / "some.json"
    path.write_text(json.dumps({"inner": {"count": 3}}))
    assert read_json(path, Outer).inner.count == 3
    assert read_json(path) == {"inner": {"count": 3}}
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"some\.json: expected an object, but found \[\]"):
        read_json(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pad": 20}, "pad is 20, but the vocabulary has 20 tokens"),
        ({"labels": ("no", "NO")}, "expected each label once, but got 'no', 'NO'"),
        ({"labels": ()}, "labels: expected a list of length >= 1"),
        ({"family": "roberta", "pad": 15}, "there are 16 positions, but the first token's is 16"),
        ({"activation": "mish"}, "activation: expected one of 'gelu'.*, but found 'mish'"),
    ],
)
def test_a_classifier_that_cannot_be(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(BERT, **changes)


@pytest.mark.parametrize("name", ["eos", "pad", "start", "never"])
def test_special_tokens_are_in_the_vocabulary(name):
    value = (3, 20) if name == "never" else 20
    with pytest.raises(ValueError, match=f"{name} has the token 20, but .* has 20 tokens"):
        Seq2SeqConfig(source_vocab=20, target_vocab=20, **{name: value})
