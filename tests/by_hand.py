"""A Llama of a few lines of NumPy, of which any head's context can be replaced."""

import jax
import numpy as np
import scipy.special


def norm(x_TD, scale_D, epsilon):
    return x_TD / np.sqrt((x_TD**2).mean(-1, keepdims=True) + epsilon) * scale_D


def rotated(x_THK, base):
    tokens, _, width = x_THK.shape
    plane = np.arange(tokens)[:, None] * base ** (-np.arange(0, width, 2) / width)
    turn = np.exp(1j * plane)[:, None]
    first, second = np.split(x_THK, 2, -1)
    turned = (first + 1j * second) * turn
    return np.concatenate([turned.real, turned.imag], -1)


def run(config, params, ids, gate_AH, other=None):
    """Log-probabilities `[T, V]` after each token and the contexts `[T, H, K]` of each row.

    A head's context is `gate * its own + (1 - gate) * other`, by default of nothing.
    """
    p = jax.tree.map(np.float64, params)
    x_TD, contexts = p["word"]["embedding"][ids], []
    causal_TT = np.tril(np.ones((len(ids), len(ids)), bool))
    for row, gate_H in enumerate(gate_AH):
        layer = p[f"layer_{row}"]
        kernels = {name: part["kernel"] for name, part in layer["attention"].items()}
        seen_TD = norm(x_TD, layer["attention_norm"]["scale"], config.epsilon)
        q, k, v = (
            np.einsum("td,dhk->thk", seen_TD, kernels[name]) for name in ("query", "key", "value")
        )
        q, k = (rotated(x, config.rotary_base) for x in (q, k))
        context_THK = np.zeros_like(q)
        for head in range(config.heads):
            shared = head // (config.heads // config.key_heads)
            score_TT = q[:, head] @ k[:, shared].T / np.sqrt(config.head_width)
            weight_TT = scipy.special.softmax(np.where(causal_TT, score_TT, -np.inf), -1)
            context_THK[:, head] = weight_TT @ v[:, shared]
        contexts.append(context_THK)
        mixed_THK = context_THK * gate_H[:, None]
        if other is not None:
            mixed_THK = mixed_THK + other[row] * (1 - gate_H[:, None])
        x_TD = x_TD + np.einsum("thk,hkd->td", mixed_THK, kernels["out"])
        seen_TD = norm(x_TD, layer["ffn_norm"]["scale"], config.epsilon)
        inner, gate, outer = (layer["ffn"][name]["kernel"] for name in ("inner", "gate", "outer"))
        hidden_TF = seen_TD @ gate
        x_TD = x_TD + (hidden_TF * scipy.special.expit(hidden_TF) * (seen_TD @ inner)) @ outer
    logits_TV = norm(x_TD, p["norm"]["scale"], config.epsilon) @ p["word"]["embedding"].T
    return scipy.special.log_softmax(logits_TV, -1), contexts


def log_likelihood(log_TV, ids, before):
    """Of the tokens after the first `before`."""
    return sum(log_TV[t - 1, ids[t]] for t in range(before, len(ids)))
