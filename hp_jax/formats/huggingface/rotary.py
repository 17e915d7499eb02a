"""How far positions rotate queries and keys, from what config.json says of it in the spelling of
transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hp_jax.typed import Amount, Count, Positive, decode

NAMES = ("rope_theta", "rope_scaling", "rope_parameters", "original_max_position_embeddings")
"""The settings that are read here, those of Gemma 3 apart."""
LAYERS = ("full_attention", "sliding_attention")
"""Types of layers, each of which may have `rope_parameters` of its own."""


class Rotary(NamedTuple):
    """What `DecoderConfig` says of it by the same names, without `rotary_`."""

    base: float
    factors: tuple[float, ...] = ()
    scale: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scaling:
    """All that is known of `rope_scaling` or `rope_parameters`."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Positive | None = None
    factor: Positive | None = None
    original_max_position_embeddings: Count | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    attention_factor: Positive | None = None
    mscale: Amount | None = None
    mscale_all_dim: Amount | None = None
    truncate: bool = True
    short_factor: tuple[Positive, ...] = ()
    long_factor: tuple[Positive, ...] = ()
    partial_rotary_factor: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Beside:
    """What stands beside them."""

    rope_theta: Positive | None = None
    rope_local_base_freq: Positive | None = None
    original_max_position_embeddings: Count | None = None


@dataclasses.dataclass(frozen=True)
class _Model:
    """What the factors depend on besides."""

    base: float
    head_width: int
    positions: int
    original: int | None
    """`original_max_position_embeddings` beside `rope_scaling`."""
    where: str

    def wave_lengths(self) -> np.ndarray:
        """Positions of a full turn, without factors `[K / 2]`."""
        return 2 * np.pi * self.base ** (np.arange(0, self.head_width, 2) / self.head_width)


def rotary(
    raw: Mapping[str, Any], base: float, head_width: int, positions: int, where: str
) -> Rotary:
    """What config.json says of all layers; `base` is the class's, where it says nothing.

    ValueError for a kind that is not known, for one that depends on the length of the text, and for
    settings that versions of transformers take differently.
    """
    old, new = raw.get("rope_scaling"), raw.get("rope_parameters")
    if old and new:
        raise ValueError(f"{where}: expected rope_scaling or rope_parameters, but found both")
    name = "rope_scaling" if old else "rope_parameters"
    beside = decode(_Beside, raw, where)
    return _of(beside, old or new or {}, base, head_width, positions, f"{where}: {name}")


def rotary_by_layer(
    raw: Mapping[str, Any],
    base: float,
    local_base: float,
    head_width: int,
    positions: int,
    where: str,
) -> tuple[Rotary, float]:
    """The same of Gemma 3: that of layers that see all, and the base of those that do not."""
    new = decode(dict[str, Any], raw.get("rope_parameters") or {}, f"{where}: rope_parameters")
    if not new:
        found = rotary(raw, base, head_width, positions, where)
        return found, decode(_Beside, raw, where).rope_local_base_freq or local_base
    if raw.get("rope_scaling") or not {*new} <= {*LAYERS}:
        raise ValueError(
            f"{where}: expected rope_parameters of {' and '.join(LAYERS)} and no rope_scaling, but "
            f"found {', '.join(name for name in (*new, 'rope_scaling') if name in {**new, **raw})}"
        )
    full, sliding = (
        _of(
            _Beside(),
            new.get(name) or {},
            start,
            head_width,
            positions,
            f"{where}: rope_parameters",
        )
        for name, start in zip(LAYERS, (base, local_base), strict=True)
    )
    if sliding != Rotary(sliding.base):
        raise ValueError(
            f"{where}: rope_parameters: sliding_attention: supported is the rope_type 'default' "
            f"alone, but found {new['sliding_attention'].get('rope_type')!r}"
        )
    return full, sliding.base


def _of(
    beside: _Beside,
    scaling: Any,
    base: float,
    head_width: int,
    positions: int,
    where: str,
) -> Rotary:
    said = decode(_Scaling, scaling, where, closed=True)
    if said.partial_rotary_factor not in (None, 1.0):
        raise ValueError(
            f"{where}: partial_rotary_factor is {said.partial_rotary_factor}, which makes another "
            "model; supported is 1.0"
        )
    kind = _same({"type": said.type, "rope_type": said.rope_type}, "default", where)
    bases = {"rope_theta": said.rope_theta, "rope_theta beside it": beside.rope_theta}
    base = _same(bases, base, where)
    if kind not in _KINDS:
        raise ValueError(
            f"{where}: rope_type is {kind!r}, which makes another model; supported are "
            f"{', '.join(_KINDS)}"
        )
    model = _Model(base, head_width, positions, beside.original_max_position_embeddings, where)
    factor_J, scale = _KINDS[kind](said, model)
    factors = () if np.all(factor_J == 1) else tuple(np.asarray(factor_J).tolist())
    return Rotary(base, factors, scale)


def _same(named: Mapping[str, Any], default: Any, where: str) -> Any:
    """The one value that is said under any of some names."""
    said = {name: value for name, value in named.items() if value is not None}
    if len({*said.values()}) > 1:
        both = " and ".join(f"{name} {value!r}" for name, value in said.items())
        raise ValueError(f"{where}: {both} contradict each other")
    return next(iter(said.values()), default)


# --- kinds: factors [K / 2], and the scale -------------------------------------------------------


def _needed(said: _Scaling, name: str, where: str) -> Any:
    value = getattr(said, name)
    if value is None:
        raise ValueError(
            f"{where}: expected a setting {name} of the rope_type "
            f"{said.rope_type or said.type!r}, but there is none"
        )
    return value


def _default(said: _Scaling, model: _Model) -> tuple[Any, float]:
    return np.ones(model.head_width // 2), 1.0


def _linear(said: _Scaling, model: _Model) -> tuple[Any, float]:
    return np.full(model.head_width // 2, _needed(said, "factor", model.where)), 1.0


def _between(kept_J: Any, factor: float) -> Any:
    """Factors where a share of the frequency is kept and the rest divided by `factor`."""
    return 1 / ((1 - kept_J) / factor + kept_J)


def _original(said: _Scaling, model: _Model) -> int | None:
    """`original_max_position_embeddings` of the scaling; versions of transformers differ in whether
    another one beside it counts."""
    if model.original not in (None, said.original_max_position_embeddings):
        raise ValueError(
            f"{model.where}: original_max_position_embeddings is "
            f"{said.original_max_position_embeddings}, but beside it {model.original}"
        )
    return said.original_max_position_embeddings


def _llama3(said: _Scaling, model: _Model) -> tuple[Any, float]:
    """Long waves are stretched, short ones are not (Llama 3.1)."""
    names = ("factor", "low_freq_factor", "high_freq_factor")
    factor, low, high = (_needed(said, name, model.where) for name in names)
    original = _original(said, model) or _needed(
        said, "original_max_position_embeddings", model.where
    )
    if low == high:
        raise ValueError(f"{model.where}: low_freq_factor and high_freq_factor are both {low}")
    kept_J = (original / model.wave_lengths() - low) / (high - low)
    return _between(np.clip(kept_J, 0, 1), factor), 1.0


def _yarn(said: _Scaling, model: _Model) -> tuple[Any, float]:
    """Peng et al. (2023): by how often a plane turns within the original length."""
    factor, half = _needed(said, "factor", model.where), model.head_width // 2
    original = _original(said, model) or model.positions
    if model.base <= 1:
        raise ValueError(f"{model.where}: expected a rope_theta above 1, but found {model.base}")
    plane_of = [
        half * math.log(original / (turns * 2 * math.pi)) / math.log(model.base)
        for turns in (said.beta_fast or 32, said.beta_slow or 1)
    ]
    if said.truncate:
        plane_of = [math.floor(plane_of[0]), math.ceil(plane_of[1])]
    first, last = max(plane_of[0], 0), min(plane_of[1], model.head_width - 1)
    last += 0.001 * (first == last)
    kept_J = 1 - np.clip((np.arange(half) - first) / (last - first), 0, 1)
    return _between(kept_J, factor), said.attention_factor or _yarn_scale(said, factor)


def _yarn_scale(said: _Scaling, factor: float) -> float:
    def grown(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1

    if said.mscale and said.mscale_all_dim:
        return grown(said.mscale) / grown(said.mscale_all_dim)
    return grown(1.0)


def _longrope(said: _Scaling, model: _Model) -> tuple[Any, float]:
    """Ding et al. (2024), where the factors of short and of long texts are the same."""
    half = model.head_width // 2
    for name in ("short_factor", "long_factor"):
        if len(getattr(said, name)) != half:
            raise ValueError(
                f"{model.where}: {name}: expected {half} numbers, but found "
                f"{len(getattr(said, name))}"
            )
    if said.short_factor != said.long_factor:
        raise ValueError(
            f"{model.where}: short_factor and long_factor differ, so that the model depends on the "
            "length of the text; supported is longrope with equal ones"
        )
    return np.array(said.short_factor), said.attention_factor or _longrope_scale(said, model)


def _longrope_scale(said: _Scaling, model: _Model) -> float:
    """Where there is no attention_factor; ValueError if versions of transformers take different
    ones."""
    original, inside = model.original or model.positions, said.original_max_position_embeddings
    ratio = model.positions / original if model.original else None
    factor = said.factor or ratio
    if factor is None or ratio not in (None, factor) or inside not in (None, original):
        raise ValueError(f"{model.where}: expected a setting attention_factor, but there is none")
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


_KINDS = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
