"""What indexes a table of the model is checked through the Python API too: JAX would take another
row; and what is cut is said."""

import numpy as np
import pytest
from data_tokenizers import labelled, write_word_pieces
from tiny import TASK, random_params
from tiny_translation import make_batch

from hp_jax import evaluate_grid, head_importance
from hp_jax.architecture import Seq2SeqConfig
from hp_jax.models.translation import Translation
from hp_jax.text.huggingface import load_tokenizer
from hp_jax.text.tokenizer import encode


def batch(**changes):
    tokens_BT = np.ones((2, 5), np.int32)
    made = {
        "tokens_BT": tokens_BT,
        "types_BT": tokens_BT * 0,
        "length_B": np.full(2, 5, np.int32),
        "label_B": np.zeros(2, np.int32),
    }
    return made | changes


@pytest.mark.parametrize("use", [head_importance, evaluate_grid])
@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("tokens_BT", TASK.config.vocab, r"batch 1: tokens_BT\[1, 2\] is .*, but .* rows"),
        ("tokens_BT", -1, r"batch 1: tokens_BT\[1, 2\] is -1, but the model's table has"),
        ("types_BT", TASK.config.types, r"batch 1: types_BT\[1, 2\] is .* has 2 rows"),
    ],
)
def test_an_id_beyond_the_table(use, name, wrong, sentence):
    ids_BT = batch()[name].copy()
    ids_BT[1, 2] = wrong
    masks = TASK.present_AH if use is head_importance else TASK.present_AH[None]
    with pytest.raises(ValueError, match=sentence):
        use(TASK, random_params(), [batch(), batch(**{name: ids_BT})], masks)


def test_more_positions_than_the_model_has():
    room = TASK.config.room
    wide = np.ones((2, room + 1), np.int32)
    with pytest.raises(ValueError, match=f"has {room + 1} positions, but the model has {room}"):
        head_importance(
            TASK, random_params(), [batch(tokens_BT=wide, types_BT=wide * 0)], TASK.present_AH
        )


@pytest.mark.parametrize("side", ["source_BS", "target_BT"])
def test_both_sides_of_a_translation(side):
    task = Translation(Seq2SeqConfig(source_vocab=9, target_vocab=9, pad=1), None)
    made = make_batch([[3, 4, 0]], [[5, 0]], pad=1, width=4)
    made[side] = np.where(made[side] == made[side].max(), 9, made[side])
    with pytest.raises(ValueError, match=rf"{side}\[0, .\] is 9, but the model's table has 9 rows"):
        head_importance(task, {}, [made], task.present_AH)


def test_how_many_examples_were_cut_is_said(tmp_path, caplog):
    tokenizer = load_tokenizer(write_word_pieces(tmp_path))
    texts = labelled(("the film",), ("the film the film the film",), ("a a a a a a",))
    encode(tokenizer, texts, ("no", "yes"), 16)
    assert not caplog.records
    found = encode(tokenizer, texts, ("no", "yes"), 5)
    assert "examples of more than 5 tokens, cut: 2" in caplog.text
    assert max(map(len, found.tokens)) == 5
