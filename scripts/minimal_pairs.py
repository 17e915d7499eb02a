"""Minimal pairs of English sentences, one right and one wrong, as items of multiple choice.

python scripts/minimal_pairs.py pairs.jsonl

Eight phenomena, 32 pairs of each, made from lists of words in one fixed random order, in the manner
of BLiMP (Warstadt et al. 2020).  Both sentences of a pair have the same words but for the form of
one, or for their order.

hp-jax evaluate multiple_choice --model MODEL_FOLDER --data.path pairs.jsonl \\
    --data.prefix '<|endoftext|>'
"""

import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hp_jax.storage.files import write_whole

EACH = 32
PEOPLE = [
    ("teacher", "teachers"),
    ("doctor", "doctors"),
    ("student", "students"),
    ("farmer", "farmers"),
    ("lawyer", "lawyers"),
    ("artist", "artists"),
    ("driver", "drivers"),
    ("writer", "writers"),
]
THINGS = [
    ("book", "books"),
    ("car", "cars"),
    ("chair", "chairs"),
    ("letter", "letters"),
    ("picture", "pictures"),
    ("bottle", "bottles"),
    ("window", "windows"),
    ("garden", "gardens"),
]
PLACES = ["near the river", "in the village", "behind the school", "from the city"]
ACTS = [("laughs", "laugh"), ("sleeps", "sleep"), ("works", "work"), ("sings", "sing")]
SEES = ["admires", "likes", "remembers", "describes"]
DID = ["admired", "liked", "remembered", "described"]
FORMS = [
    ("written", "wrote", "the letter"),
    ("taken", "took", "the picture"),
    ("broken", "broke", "the window"),
    ("eaten", "ate", "the apple"),
    ("driven", "drove", "the car"),
    ("stolen", "stole", "the bicycle"),
    ("forgotten", "forgot", "the name"),
    ("hidden", "hid", "the key"),
]
WOMEN, MEN = ["Mary", "Susan", "Anna", "Laura"], ["John", "Peter", "David", "Robert"]
Pairs = Iterator[tuple[str, str]]
"""(right, wrong)."""


def agreement() -> Pairs:
    """A verb agrees with its subject."""
    for (one, many), (sings, sing) in itertools.product(PEOPLE, ACTS):
        yield f"The {one} {sings} every day.", f"The {one} {sing} every day."
        yield f"The {many} {sing} every day.", f"The {many} {sings} every day."


def agreement_across() -> Pairs:
    """The same with a noun of the other number in between."""
    for (one, many), (thing, things), (sings, sing) in itertools.product(PEOPLE, THINGS, ACTS):
        yield f"The {one} with the {things} {sings}.", f"The {one} with the {things} {sing}."
        yield f"The {many} with the {thing} {sing}.", f"The {many} with the {thing} {sings}."


def determiner() -> Pairs:
    """A demonstrative agrees with its noun."""
    for (thing, things), name in itertools.product(THINGS, WOMEN + MEN):
        yield f"{name} saw this {thing} yesterday.", f"{name} saw this {things} yesterday."
        yield f"{name} saw those {things} yesterday.", f"{name} saw those {thing} yesterday."


def reflexive_gender() -> Pairs:
    """A reflexive agrees with its name in gender."""
    for (woman, man), verb in itertools.product(zip(WOMEN, MEN, strict=True), SEES):
        yield f"{woman} {verb} herself.", f"{woman} {verb} himself."
        yield f"{man} {verb} himself.", f"{man} {verb} herself."


def reflexive_number() -> Pairs:
    """A reflexive agrees with its noun in number."""
    for (_, many), verb in itertools.product(PEOPLE, DID):
        yield f"The {many} {verb} themselves.", f"The {many} {verb} itself."


def participle() -> Pairs:
    """The perfect has the participle, the past the other form."""
    for (form, past, thing), (one, _) in itertools.product(FORMS, PEOPLE):
        yield f"The {one} has {form} {thing}.", f"The {one} has {past} {thing}."
        yield f"The {one} {past} {thing}.", f"The {one} {form} {thing}."


def polarity() -> Pairs:
    """'Ever' needs a negation before it."""
    for (_, many), (_, sing), place in itertools.product(PEOPLE, ACTS, PLACES):
        yield f"No {many} {place} ever {sing}.", f"Some {many} {place} ever {sing}."


def question() -> Pairs:
    """What is asked for is not said again."""
    for (one, _), (thing, _), (form, _, _) in itertools.product(PEOPLE, THINGS, FORMS):
        yield f"What has the {one} {form}?", f"What has the {one} {form} the {thing}?"


PHENOMENA: tuple[Callable[[], Pairs], ...] = (
    agreement,
    agreement_across,
    determiner,
    reflexive_gender,
    reflexive_number,
    participle,
    polarity,
    question,
)


def items() -> Iterator[dict[str, object]]:
    """All items, those of a phenomenon together; which choice is right changes in turn."""
    order = random.Random(0)
    for phenomenon in PHENOMENA:
        pairs = sorted(set(phenomenon()))
        for number, pair in enumerate(order.sample(pairs, EACH)):
            label = number % 2
            choices = list(pair if label == 0 else reversed(pair))
            yield {"phenomenon": phenomenon.__name__, "choices": choices, "label": label}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected the file that is to be written")
    lines = [json.dumps(item) for item in items()]
    write_whole(Path(sys.argv[1]), ("\n".join(lines) + "\n").encode())
