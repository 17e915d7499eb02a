"""The command that lets a language model go on with a text."""

from __future__ import annotations

import dataclasses
from typing import Any

from hp_jax.cli.command import Answer, FolderCommand, Model, say, standard_input


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(FolderCommand, Answer):
    """Let a language model go on with a text, with any heads off."""

    model: Model
    """The folder of a decoder-only language model."""
    prompt: str = ""
    """The text so far; empty: each line of standard input is one, and all are gone on with at
    once."""
    without: str = ""
    """The heads that are off, as reports name them, such as 'dec.0.1-3,7 dec.1.2'; empty: none."""
    tokens: int = 50
    """The most tokens that are added."""
    temperature: float = 0.0
    """What logits are divided by before a token is drawn; 0: the likeliest token is taken."""
    top_p: float = 1.0
    """The probability that the likeliest tokens have together of which one is drawn."""
    seed: int = 0
    """The seed of what is drawn."""

    def run(self) -> None:
        """Prints each text with what was added: one prompt's as it comes, lines' when all are
        done."""
        from tokenizers.decoders import DecodeStream

        from hp_jax import generation, heads
        from hp_jax.descriptors import parse_descriptor
        from hp_jax.formats.families import family_named
        from hp_jax.formats.model import load_model

        if self.tokens < 1:
            raise ValueError(f"--tokens is {self.tokens}, but 1 or more was expected")
        if not self.prompt.isprintable() and any("\ud800" <= c <= "\udfff" for c in self.prompt):
            raise ValueError(f"--prompt is {self.prompt!a}, but UTF-8 was expected")
        prompts = [self.prompt] if self.prompt else _lines()
        model = load_model(self.model, family=family_named("language model"))
        task: Any = model.task
        off = parse_descriptor(self.without, task.rows)
        ids = [model.text.encode(prompt).ids for prompt in prompts]
        steps = generation.generate(
            task,
            model.params,
            ids,
            heads.remove(task.present_AH, off, task.rows),
            tokens=self.tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
        )
        streams = [DecodeStream(skip_special_tokens=True) for _ in ids]
        for stream, own in zip(streams, ids, strict=True):
            for token in own:
                stream.step(model.text, token)
        added = [""] * len(prompts)
        streaming = len(prompts) == 1 and not self.json
        if streaming and not say(prompts[0], end=""):
            return
        for token_B in steps:
            for text, token in enumerate(token_B.tolist()):
                new = (streams[text].step(model.text, token) if token >= 0 else None) or ""
                added[text] += new
                if streaming and not say(new, end=""):
                    return
        if self.json:
            found = [{"prompt": p, "added": a} for p, a in zip(prompts, added, strict=True)]
            self.answer(found, "")
        elif streaming:
            say("")
        else:
            for prompt, more in zip(prompts, added, strict=True):
                say(" ".join(f"{prompt}{more}".splitlines()))


def _lines() -> list[str]:
    """The lines of standard input that are not blank; only a line feed ends a line."""
    found = [line.removesuffix("\r") for line in standard_input().split("\n") if line.strip()]
    if not found:
        raise ValueError("expected a --prompt, or lines on standard input, but there are none")
    return found
