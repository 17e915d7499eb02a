"""Transformer layers; the one line in which a head's gate acts is here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import Activation

ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": nn.gelu,
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
    "tanh": jnp.tanh,
}
"""Hugging Face's names; its `gelu` is the exact one."""

INIT = nn.initializers.normal(0.02)
"""BERT's initialisation of every kernel and embedding."""

KeyValue = tuple[jax.Array, jax.Array]
"""Keys and values, each `[B, S, H, K]`."""


Axes = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]
"""Those that a product sums over, of its left and of its right side, and (none here) those that
both have."""


def summed(lhs: jax.Array, rhs: jax.Array, axes: Axes, **_: Any) -> jax.Array:
    """`jax.lax.dot_general` with float32 as the result, whatever is multiplied: matrix units have
    it anyway, and those of CPUs are used for nothing else."""
    if lhs.dtype == jnp.float32:
        return jax.lax.dot_general(lhs, rhs, axes)
    return _narrow(lhs, rhs, axes)


def rounded(lhs: jax.Array, rhs: jax.Array, axes: Axes, **_: Any) -> jax.Array:
    """The same, rounded to the type of what is multiplied."""
    return summed(lhs, rhs, axes).astype(lhs.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _narrow(lhs: jax.Array, rhs: jax.Array, axes: Axes) -> jax.Array:
    """A product of numbers that are narrower than the result; so are those of its gradients, of
    which JAX would make one wide."""
    return jax.lax.dot_general(lhs, rhs, axes, preferred_element_type=jnp.float32)


def _narrow_forward(lhs: jax.Array, rhs: jax.Array, axes: Axes) -> tuple[jax.Array, KeyValue]:
    return _narrow(lhs, rhs, axes), (lhs, rhs)


def _narrow_backward(axes: Axes, sides: KeyValue, out: jax.Array) -> KeyValue:
    (left, right), _ = axes
    lhs, rhs = sides
    out = out.astype(lhs.dtype)
    free = [axis for axis in range(lhs.ndim) if axis not in left]
    other = [axis for axis in range(rhs.ndim) if axis not in right]
    first, last = tuple(range(len(free))), tuple(range(len(free), out.ndim))
    of_lhs = _narrow(out, rhs, ((last, tuple(other)), ((), ())))
    places = [*free, *(left[right.index(axis)] for axis in sorted(right))]
    of_lhs = jnp.transpose(of_lhs, np.argsort(places).tolist())
    summed_over = [right[left.index(axis)] for axis in sorted(left)]
    if right[0] < other[0]:
        of_rhs = _narrow(lhs, out, ((tuple(free), first), ((), ())))
        places = [*summed_over, *other]
    else:  # XLA's CPU compiler has no product of narrow numbers whose result is turned
        of_rhs = _narrow(out, lhs, ((first, tuple(free)), ((), ())))
        places = [*other, *summed_over]
    of_rhs = jnp.transpose(of_rhs, np.argsort(places).tolist())
    return of_lhs.astype(lhs.dtype), of_rhs.astype(rhs.dtype)


_narrow.defvjp(_narrow_forward, _narrow_backward)


def attended(embedding_VD: jax.Array, x: jax.Array) -> jax.Array:
    """Logits `[..., V]`, float32, from `[..., D]`, where the embedding is the output projection."""
    return summed(x, embedding_VD.astype(x.dtype), (((x.ndim - 1,), (1,)), ((), ())))


def residual(
    x: jax.Array,
    sublayer: Callable[[jax.Array], jax.Array],
    norm: Callable[[jax.Array], jax.Array],
    dropout: Callable[[jax.Array], jax.Array],
    norm_at: Literal["post", "pre"],
) -> jax.Array:
    """A sublayer with its residual connection, and LayerNorm after both (`post`) or before the
    sublayer (`pre`)."""
    if norm_at == "post":
        return norm(x + dropout(sublayer(x)))
    return x + dropout(sublayer(norm(x)))


def softcapped(x: jax.Array, cap: float) -> jax.Array:
    """Kept below a size, `cap * tanh(x / cap)`; 0: as it is."""
    return cap * jnp.tanh(x / cap) if cap else x


class Bias(nn.Module):
    """What is left of an attention module's output projection when all its heads are removed:
    without a bias, nothing."""

    width: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, context_BT0K: jax.Array) -> jax.Array:
        """`[B, T, D]`, the same everywhere."""
        bias_D = jnp.zeros(self.width)
        if self.use_bias:
            bias_D = self.param("bias", nn.initializers.zeros, (self.width,))
        return jnp.broadcast_to(
            bias_D.astype(context_BT0K.dtype), (*context_BT0K.shape[:2], self.width)
        )


class Attention(nn.Module):
    """Multi-head attention `sum_h gate_h Att_h(x, memory) + bias` (section 2.2 of the paper).

    `gate` is broadcast to `[B, T, H]`. It multiplies each head's context before the output
    projection, so a gate of 0 is the same as a model without that head, whichever kernel computed
    the attention.  With no heads it is its bias.  Heads of keys and values may be fewer: each then
    serves several query heads.
    """

    width: int
    heads: int
    head_width: int
    dtype: jnp.dtype
    dropout: float = 0.0
    kernel: Literal["xla", "cudnn"] = "xla"
    kernel_init: nn.initializers.Initializer = INIT
    serving: tuple[int, ...] = ()
    """Which head of keys and values serves each query head; none: each has its own."""
    biases: tuple[str, ...] = ("query", "key", "value", "out")
    """The projections that have one."""
    scale: float = 0.0
    """What scores are multiplied by; 0: the head's width to the power of -1/2."""
    softcap: float = 0.0
    """The size that scores are kept below, `softcap * tanh(score / softcap)`; 0: none."""

    def setup(self) -> None:
        """Names the projections: these names are the checkpoint's."""

        def project(name: str, heads: int) -> Callable[[jax.Array], jax.Array]:
            if not heads:
                return lambda x_BTD: jnp.zeros((*x_BTD.shape[:2], 0, self.head_width), self.dtype)
            return nn.DenseGeneral(
                (heads, self.head_width),
                use_bias=name in self.biases,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                dot_general=rounded,
                name=name,
            )

        key_heads = len(set(self.serving)) or self.heads
        self.query = project("query", self.heads)
        self.key, self.value = project("key", key_heads), project("value", key_heads)
        bias = "out" in self.biases
        dense = nn.DenseGeneral(
            self.width,
            axis=(-2, -1),
            use_bias=bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            dot_general=rounded,
        )
        self.out = dense if self.heads else Bias(self.width, bias)
        self.weight_dropout = nn.Dropout(self.dropout, deterministic=False)

    def keys(self, memory_BSD: jax.Array) -> KeyValue:
        """What queries look at: keys and values of `memory`, each `[B, S, H, K]`."""
        return self.key(memory_BSD), self.value(memory_BSD)

    def context(
        self, x_BTD: jax.Array, keys: KeyValue, attend_B1TS: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Each head's context `[B, T, H, K]` of queries `[B, T, D]` over `keys`; `attend` is True
        where a query may look."""
        return self.looking(self.query(x_BTD), keys, attend_B1TS, train=train)

    def looking(
        self, q_BTHK: jax.Array, keys: KeyValue, attend_B1TS: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """The same of each head's queries `[B, T, H, K]`."""
        k_BSHK, v_BSHK = keys
        if not self.heads:
            return q_BTHK
        dropout = train and self.dropout > 0
        group = self.heads // k_BSHK.shape[2]
        even = tuple(np.repeat(np.arange(k_BSHK.shape[2]), group)) == self.serving
        if self.serving and (dropout or self.softcap or not even):
            k_BSHK, v_BSHK = (x[:, :, np.array(self.serving)] for x in keys)
        if dropout or self.softcap:
            return self._explicit(q_BTHK, k_BSHK, v_BSHK, attend_B1TS, dropout)
        kernel = (
            self.kernel if q_BTHK.shape[1] > 1 else "xla"
        )  # a single query is no work for a fused kernel
        attend_B1TS = jnp.broadcast_to(
            attend_B1TS, (*q_BTHK.shape[:1], 1, q_BTHK.shape[1], k_BSHK.shape[1])
        )  # for cudnn
        return jax.nn.dot_product_attention(
            q_BTHK, k_BSHK, v_BSHK, mask=attend_B1TS, scale=self._scale, implementation=kernel
        )

    def gated(self, context_BTHK: jax.Array, gate: jax.Array) -> jax.Array:
        """`[B, T, D]` from each head's context and its gate."""
        gate_BTH = jnp.broadcast_to(jnp.asarray(gate, self.dtype), context_BTHK.shape[:-1])
        context_BTHK = context_BTHK * gate_BTH[..., None]  # the gate
        return self.out(context_BTHK)

    def __call__(
        self,
        x_BTD: jax.Array,
        keys: KeyValue,
        attend_B1TS: jax.Array,
        gate: jax.Array,
        *,
        train: bool = False,
    ) -> jax.Array:
        """`[B, T, D]` from queries `[B, T, D]` over `keys`; `attend` is True where a query may
        look."""
        return self.gated(self.context(x_BTD, keys, attend_B1TS, train=train), gate)

    def context_of_past(
        self, x_BTD: jax.Array, keys_BHKS: jax.Array, values_BHKS: jax.Array, attend_B1TS: jax.Array
    ) -> jax.Array:
        """The same over a decoder's cache, whose order of axes spares copies of it at every
        step."""
        score_BHTS = jnp.einsum(
            "BTHK,BHKS->BHTS", self.query(x_BTD), keys_BHKS, preferred_element_type=jnp.float32
        )
        return jnp.einsum("BHTS,BHKS->BTHK", self._weights(score_BHTS, attend_B1TS), values_BHKS)

    def _explicit(
        self,
        q_BTHK: jax.Array,
        k_BSHK: jax.Array,
        v_BSHK: jax.Array,
        attend_B1TS: jax.Array,
        dropout: bool,
    ) -> jax.Array:
        """Attention with dropout on its weights, or with a softcap, which no fused kernel
        offers."""
        score_BHTS = jnp.einsum(
            "BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=jnp.float32
        )
        weight_BHTS = self._weights(score_BHTS, attend_B1TS)
        if dropout:
            weight_BHTS = self.weight_dropout(weight_BHTS)
        return jnp.einsum("BHTS,BSHK->BTHK", weight_BHTS, v_BSHK)

    def _weights(self, score_BHTS: jax.Array, attend_B1TS: jax.Array) -> jax.Array:
        """Softmax in float32."""
        score_BHTS = score_BHTS * self._scale
        score_BHTS = softcapped(score_BHTS, self.softcap)
        score_BHTS = jnp.where(attend_B1TS, score_BHTS, jnp.finfo(jnp.float32).min)
        return jax.nn.softmax(score_BHTS).astype(self.dtype)

    @property
    def _scale(self) -> float:
        return self.scale or self.head_width**-0.5


class FeedForward(nn.Module):
    """Two dense layers with an activation between them."""

    width: int
    activation: Activation
    dtype: jnp.dtype
    kernel_init: nn.initializers.Initializer = INIT

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """`[B, T, D]` from `[B, T, D]`."""
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        x_BTF = dense(self.width, dot_general=summed, name="inner")(x_BTD)
        x_BTF = jax.checkpoint(ACTIVATIONS[self.activation])(
            x_BTF
        )  # a gradient keeps its input alone: a quarter less memory
        return dense(x_BTD.shape[-1], dot_general=rounded, name="outer")(x_BTF)
