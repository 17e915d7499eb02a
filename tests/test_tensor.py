"""Parameters split over devices: the same numbers on meshes of every shape."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import tiny_language
import tiny_translation
from jax.sharding import PartitionSpec as Spec
from tiny import ONE_DEVICE, TASK, batched, examples, random_params

from hp_jax import heads
from hp_jax.formats.huggingface.decoder_export import save_hf_decoder
from hp_jax.formats.model import Model, load_model
from hp_jax.formats.reading import Options
from hp_jax.grid import evaluate_grid
from hp_jax.importance import head_importance
from hp_jax.least_squares import repair
from hp_jax.linear import linear_map
from hp_jax.models.language import LanguageModel
from hp_jax.sharding import device_mesh, params_specs, place_params


def pairs():
    source, target = (
        tiny_translation.sentences(8, 20, eos=2, first=3, longest=7, seed=seed) for seed in (1, 2)
    )
    return [tiny_translation.make_batch(source, target, pad=1, width=8)]


CASES = {
    "language model": (tiny_language.TASK, lambda: tiny_language.batched(tiny_language.windows())),
    "classifier": (TASK, lambda: batched(examples(count=8))),
    "translation": (tiny_translation.TASK, pairs),
}


@pytest.fixture(params=CASES)
def case(request):
    task, made = CASES[request.param]
    return task, random_params(task, scale=0.3), made()


def meshes(task):
    """Of every shape; for the families that share what is split, one."""
    shapes = itertools.product((2, 4, 8), (1, 2)) if task is tiny_language.TASK else [(4, 2)]
    for tensor, mask in shapes:
        if 8 % (tensor * mask) == 0:
            yield device_mesh(mask=mask, tensor=tensor)


def test_a_grid_is_the_same_on_every_mesh(case):
    task, params, batches = case
    masks_MAH = heads.one_off(task.present_AH)[:6]
    expected = evaluate_grid(task, params, batches, masks_MAH, mesh=ONE_DEVICE)
    for mesh in meshes(task):
        found = evaluate_grid(task, params, batches, masks_MAH, mesh=mesh, chunk=3)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-5)


def test_gradients_are_the_same_on_every_mesh(case):
    task, params, batches = case
    one = head_importance(task, params, batches, task.present_AH, mesh=ONE_DEVICE)
    mapped = linear_map(task, params, batches, task.present_AH, mesh=ONE_DEVICE)
    for mesh in list(meshes(task))[-1:]:
        found = head_importance(task, params, batches, task.present_AH, mesh=mesh)
        np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-6)
        slopes = linear_map(task, params, batches, task.present_AH, mesh=mesh).slope_NOAH
        np.testing.assert_allclose(slopes, mapped.slope_NOAH, rtol=1e-3, atol=1e-5)


def test_repair_is_the_same_on_every_mesh():
    task, made = CASES["language model"]
    params, mask_AH = random_params(task, scale=0.3), np.eye(3, 4, dtype=bool)
    one, many = (
        repair(task, params, made(), mask_AH, mesh=mesh)
        for mesh in (ONE_DEVICE, device_mesh(tensor=4))
    )
    np.testing.assert_allclose(one.after_A, many.after_A, rtol=1e-3)


def test_what_divides_is_split_and_nothing_is_whole_twice():
    """Heads, hidden units and the vocabulary; keys and values of two heads are whole on four
    devices."""
    task = tiny_language.TASK
    params, mesh = random_params(task), device_mesh(tensor=4)
    specs = params_specs(params, mesh)
    layer = specs["layer_0"]
    assert layer["attention"]["query"]["kernel"] == Spec(None, "tensor")
    assert layer["attention"]["out"]["kernel"] == Spec("tensor")
    assert layer["attention"]["key"]["kernel"] == Spec()
    assert layer["ffn"]["outer"]["kernel"] == Spec("tensor")
    assert specs["word"]["embedding"] == Spec("tensor")
    assert specs["norm"]["scale"] == Spec()
    placed = place_params(params, mesh)
    device = jax.devices()[0]
    held = sum(
        shard.data.size
        for leaf in jax.tree.leaves(placed)
        for shard in leaf.addressable_shards
        if shard.device == device
    )
    whole = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert whole / 4 < held < whole / 2


@pytest.mark.parametrize("written", ["hf", "orbax", "flat"])
def test_weights_are_read_in_parts(tmp_path, written):
    """Each parameter is where `place_params` would put it, and the model is the same."""
    config = dataclasses.replace(tiny_language.CONFIG, vocab=300)
    params = random_params(LanguageModel(config), scale=0.3)
    if written == "hf":
        save_hf_decoder(tmp_path, config, params, tiny_language.tokenizer())
    else:
        model = Model(config, params, tiny_language.tokenizer())
        model.save(tmp_path, {}, flat=written == "flat")
    mesh = device_mesh(tensor=4)
    whole, split = load_model(str(tmp_path)), load_model(str(tmp_path), Options(mesh=mesh))
    assert split.digest == whole.digest
    for found, expected in zip(
        jax.tree.leaves(split.params), jax.tree.leaves(place_params(params, mesh)), strict=True
    ):
        assert found.sharding.is_equivalent_to(expected.sharding, found.ndim)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("mask", "tensor", "said"),
    [(1, 3, "8 devices cannot be split into 3 along the tensor axis"), (3, 2, "into 3 along")],
)
def test_meshes_that_cannot_be(mask, tensor, said):
    with pytest.raises(ValueError, match=said):
        device_mesh(mask=mask, tensor=tensor)
