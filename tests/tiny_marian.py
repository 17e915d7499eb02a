"""Tiny models in Marian's files: settings, random tensors by Marian's names, and a writer of both
formats."""

import io
import struct

import numpy as np
import sentencepiece
import yaml

VOCAB, WIDTH, HEADS, FFN, LAYERS = 24, 8, 2, 12, 2
COMMON = {
    "type": "transformer",
    "enc-depth": LAYERS,
    "dec-depth": LAYERS,
    "dim-emb": WIDTH,
    "dim-vocabs": [VOCAB, VOCAB],
    "transformer-heads": HEADS,
    "transformer-dim-ffn": FFN,
    "transformer-ffn-activation": "relu",
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "",
    "transformer-tied-layers": [],
    "transformer-decoder-autoreg": "self-attention",
    "tied-embeddings-all": True,
    "version": "v1.12.0",
}
SSRU = {"transformer-decoder-autoreg": "rnn", "dec-cell": "ssru"}
PRE = {
    "transformer-preprocess": "n",
    "transformer-postprocess": "da",
    "transformer-postprocess-top": "n",
}
VARIANTS = {
    "ssru": COMMON | SSRU,
    "attention": COMMON
    | {
        "tied-embeddings-all": False,
        "tied-embeddings": True,
        "transformer-ffn-activation": "swish",
    },
    "pre_ssru": COMMON
    | PRE
    | SSRU
    | {"tied-embeddings-all": False, "tied-embeddings-src": True, "output-omit-bias": True},
    "pre_attention": COMMON
    | PRE
    | {"tied-embeddings-all": False, "transformer-decoder-dim-ffn": 20},
}


def make_tensors(settings, seed=0):
    """Random tensors by Marian's names."""
    random, tensors = np.random.default_rng(seed), {}
    rnn, pre = (
        settings["transformer-decoder-autoreg"] == "rnn",
        settings["transformer-preprocess"] == "n",
    )

    def add(name, *shape, mean=0.0):
        tensors[name] = (mean + 0.5 * random.normal(size=shape)).astype(np.float32)

    def norm(prefix, suffix="_pre" if pre else ""):
        add(f"{prefix}_ln_scale{suffix}", 1, WIDTH, mean=1.0)
        add(f"{prefix}_ln_bias{suffix}", 1, WIDTH)

    def attention(prefix):
        for part in "qkvo":
            add(f"{prefix}_W{part}", WIDTH, WIDTH)
            add(f"{prefix}_b{part}", 1, WIDTH)
        norm(f"{prefix}_Wo")

    def feed_forward(prefix, width):
        for part, shape in {"1": (WIDTH, width), "2": (width, WIDTH)}.items():
            add(f"{prefix}_W{part}", *shape)
            add(f"{prefix}_b{part}", 1, shape[1])
        norm(f"{prefix}_ffn")

    for i in range(1, LAYERS + 1):
        attention(f"encoder_l{i}_self")
        feed_forward(f"encoder_l{i}_ffn", FFN)
        attention(f"decoder_l{i}_context")
        feed_forward(f"decoder_l{i}_ffn", settings.get("transformer-decoder-dim-ffn", FFN))
        if rnn:
            add(f"decoder_l{i}_rnn_W", WIDTH, WIDTH)
            add(f"decoder_l{i}_rnn_Wf", WIDTH, WIDTH)
            add(f"decoder_l{i}_rnn_bf", 1, WIDTH)
            norm(f"decoder_l{i}_rnn" + ("" if pre else "_ffn"))
        else:
            attention(f"decoder_l{i}_self")
    if pre:
        norm("encoder_top", "")
        norm("decoder_top", "")
    one = settings["tied-embeddings-all"] or settings.get("tied-embeddings-src")
    for name in ["Wemb"] if one else ["encoder_Wemb", "decoder_Wemb"]:
        add(name, VOCAB, WIDTH)
    if not (settings["tied-embeddings-all"] or settings.get("tied-embeddings")):
        add("decoder_ff_logit_out_Wt", VOCAB, WIDTH)
    if not settings.get("output-omit-bias"):
        add("decoder_ff_logit_out_b", 1, VOCAB)
    return tensors


def as_bytes(settings):
    return np.frombuffer(yaml.safe_dump(settings).encode() + b"\0", np.int8)


def write_npz(path, tensors, settings):
    np.savez(path, **tensors, **{"special:model.yml": as_bytes(settings)})


def quantised(tensor):
    multiplier = np.float32(127 / np.abs(tensor).max())
    return np.rint(tensor * multiplier).astype(np.int8), multiplier


def write_bin(path, tensors, settings, *, int8=False):
    """Marian's binary format, version 1; int8: matrices as `marian-conv -g intgemm8` writes
    them."""
    items = []
    for name, tensor in tensors.items():
        if int8 and tensor.shape[0] > 1:
            values, multiplier = quantised(tensor)
            values = values if "Wemb" in name else values.T
            items.append(
                (name, 0x4101, tensor.shape, values.tobytes() + struct.pack("<f", multiplier))
            )
            items.append((f"{name}_QuantMultA", 0x404, (1, 1), struct.pack("<f", 0.1)))
        else:
            items.append((name, 0x404, tensor.shape, tensor.tobytes()))
    items = [(*item, data + bytes(-len(data) % 256)) for *item, data in items]
    text = as_bytes(settings)
    items.append(("special:model.yml", 0x101, text.shape, text.tobytes()))
    head = struct.pack("<2Q", 1, len(items))
    head += b"".join(
        struct.pack("<4Q", len(name) + 1, kind, len(shape), len(data))
        for name, kind, shape, data in items
    )
    head += b"".join(name.encode() + b"\0" for name, *_ in items)
    head += b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, _, shape, _ in items)
    padding = -(len(head) + 8) % 256
    path.write_bytes(
        head + struct.pack("<Q", padding) + bytes(padding) + b"".join(data for *_, data in items)
    )


def make_vocabulary():
    """A SentencePiece model with Marian's special ids: EOS 0, `<unk>` 1."""
    lines, model = (
        ["a man is in a red car", "the cat and the dog run", "big birds fly"] * 9,
        io.BytesIO(),
    )
    ids = {"eos_id": 0, "unk_id": 1, "bos_id": -1, "pad_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=VOCAB, minloglevel=2, **ids
    )
    return model.getvalue()
