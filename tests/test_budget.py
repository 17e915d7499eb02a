"""Budgets: never above the target, floors and multiples hold, no head more than needed goes;
latency from a table."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hp_jax.shrink import budget
from hp_jax.shrink.budget import Latency, alone, read_latency, share_of, solve

FULL = np.ones((3, 4), bool)
HEADS = alone(12, FULL, FULL.astype(int))
ORDER = [(row, head) for head in range(4) for row in range(3)]


@st.composite
def problems(draw):
    """A ragged model, an order of its heads, costs that differ by row."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    present_AH = (
        np.arange(width)
        < np.array(draw(st.lists(st.integers(0, width), min_size=rows, max_size=rows)))[:, None]
    )
    present_AH[0, 0] = True
    order = draw(st.permutations([tuple(at) for at in np.argwhere(present_AH).tolist()]))
    cost_A = np.array(draw(st.lists(st.integers(1, 9), min_size=rows, max_size=rows)))
    cost_AH = cost_A[:, None] * present_AH
    return (
        order,
        present_AH,
        alone(float(cost_AH.sum() + draw(st.integers(0, 20))), present_AH, cost_AH),
    )


@given(problems(), st.floats(0, 1), st.integers(0, 3), st.integers(1, 4))
@settings(max_examples=300)
def test_what_is_promised_holds(problem, share, floor, multiple):
    order, present_AH, cost = problem
    most = share_of(cost, share)
    try:
        found = solve(
            order,
            present_AH,
            {"parameters": cost},
            "parameters",
            most,
            floor=floor,
            multiple=multiple,
        )
    except ValueError:
        order_alone = solve(order, present_AH, {"parameters": cost}, "parameters", cost.whole)
        assert order_alone.mask_AH.tolist() == present_AH.tolist()
        assert floor or multiple > 1 or cost.of(present_AH & False) > most
        return
    count_A, full_A = found.mask_AH.sum(1), present_AH.sum(1)
    assert cost.of(found.mask_AH) <= most
    assert found.reached["parameters"] == {
        "kept": cost.of(found.mask_AH),
        "whole": cost.whole,
        "share": cost.of(found.mask_AH) / cost.whole,
    }
    assert not (found.mask_AH & ~present_AH).any()
    assert (count_A >= np.minimum(floor, full_A)).all()
    assert (count_A % multiple == 0).all()
    places = {at: place for place, at in enumerate(order)}
    for row, present_H in enumerate(
        present_AH
    ):  # within a row the order decides, whatever is rounded
        gone, kept = (
            [places[row, head] for head in np.flatnonzero(present_H & (found.mask_AH[row] == on))]
            for on in (False, True)
        )
        assert max(gone, default=-1) < min(kept, default=len(order))


@given(problems(), st.integers(1, 3), st.floats(0, 1), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=300)
def test_groups_go_whole_and_rows_keep_a_multiple_of_them(problem, size, share, floor, multiple):
    order, present_AH, cost = problem
    group_AH = (
        np.arange(6)[: present_AH.shape[1]] // size + 10 * np.arange(len(present_AH))[:, None]
    )
    most = share_of(cost, share)
    args = order, present_AH, {"x": cost}, "x"
    try:
        found = solve(*args, most, floor=floor, multiple=multiple, group_AH=group_AH).mask_AH
    except ValueError:
        assert floor or multiple > 1 or cost.of(present_AH & False) > most
        return
    for on_H, present_H, group_H in zip(found, present_AH, group_AH, strict=True):
        kept, all_of = set(group_H[on_H]), set(group_H[present_H])
        assert on_H.tolist() == (present_H & np.isin(group_H, list(kept))).tolist()
        assert len(kept) % multiple == 0
        assert on_H.sum() >= min(floor, present_H.sum())
        places = {
            n: np.mean([order.index((r, h)) for r, h in order if group_AH[r, h] == n])
            for n in all_of
        }
        gone = [places[n] for n in all_of - kept]
        assert max(gone, default=-1) <= min((places[n] for n in kept), default=len(order))


@given(problems(), st.floats(0, 1))
@settings(max_examples=200)
def test_without_bounds_it_is_the_shortest_prefix_that_will_do(problem, share):
    order, present_AH, cost = problem
    most = share_of(cost, share)
    masks = [present_AH.copy()]
    for row, head in order:
        masks.append(masks[-1].copy())
        masks[-1][row, head] = False
    enough = [mask_AH for mask_AH in masks if cost.of(mask_AH) <= most]
    if enough:
        np.testing.assert_array_equal(
            solve(order, present_AH, {"x": cost}, "x", most).mask_AH, enough[0]
        )
    else:
        with pytest.raises(ValueError, match="cannot be reached: the least is"):
            solve(order, present_AH, {"x": cost}, "x", most)


def test_importance_decides_which_row_is_rounded_up():
    order = [
        (0, 0),
        (1, 0),
        (0, 1),
        (2, 0),
        (2, 1),
        (1, 1),
        *((row, head) for row in range(3) for head in (2, 3)),
    ]
    found = solve(order, FULL, {"heads": HEADS}, "heads", 9, multiple=2)
    assert found.mask_AH.sum(1).tolist() == [
        2,
        2,
        4,
    ]  # 9 alone would be [2, 3, 4]: row 1 rounded down, row 2 left whole
    assert str(found) == "target: at most 9 heads; reached: heads 8 of 12 (66.7%)"
    assert solve(order, FULL, {"heads": HEADS}, "heads", 9, multiple=3).mask_AH.sum(1).tolist() == [
        3,
        3,
        3,
    ]
    assert solve(order, FULL, {"heads": HEADS}, "heads", 6, floor=1).mask_AH.sum(1).tolist() == [
        2,
        2,
        2,
    ]
    assert solve(ORDER, FULL, {"heads": HEADS}, "heads", 3, floor=1).mask_AH.sum(1).tolist() == [
        1,
        1,
        1,
    ]


def test_heads_outside_the_order_stay():
    found = solve(ORDER[1::3], FULL, {"heads": HEADS}, "heads", 9)
    assert found.mask_AH.sum(1).tolist() == [4, 1, 4]
    with pytest.raises(ValueError, match="at most 7 heads cannot be reached: the least is 8 of 12"):
        solve(ORDER[1::3], FULL, {"heads": HEADS}, "heads", 7)


@pytest.mark.parametrize(
    ("order", "options", "sentence"),
    [
        ([(0, 4)], {}, "the order names head 4 of row 0, which the model does not have"),
        ([(0, 1), (0, 1)], {}, "the order names head 1 of row 0 twice"),
        (
            ORDER,
            {"floor": 1},
            "at most 2 heads cannot be reached: the least with at least 1 heads a row is 3 of 12",
        ),
        (
            ORDER,
            {"floor": 1, "multiple": 2},
            "the least with at least 1 heads a row and multiples of 2 is 6 of 12",
        ),
        (
            ORDER,
            {"floor": 4, "multiple": 3},
            "row 0 keeps at least 4 of its 4 heads, but has no multiple of 3 between",
        ),
        (
            ORDER,
            {"multiple": 0},
            "expected a floor of 0 or more and a multiple of 1 or more, but got 0 and 0",
        ),
    ],
)
def test_what_cannot_be_is_said(order, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        solve(order, FULL, {"heads": HEADS}, "heads", 2, **options)


def test_a_share_is_the_decimal_that_was_written():
    assert share_of(alone(100, FULL, FULL), 0.29) == 29
    with pytest.raises(ValueError, match=r"a share lies between 0 and 1, but got 1\.2"):
        share_of(HEADS, 1.2)


def row(side, share, ratio, **about):
    return {
        "mode": "forward",
        "batch": 8,
        "length": 16,
        "side": side,
        "flops_share": share,
        "ratio": {"median": ratio},
    } | about


def test_latency_is_read_from_what_speed_wrote(tmp_path):
    path = tmp_path / "speed.json"
    rows = [
        row("original", 1.0, 1.0, milliseconds={"p50": 20.0}),
        row("20 %", 0.9, 0.99),
        row("50 %", 0.5, 1.6),
    ]
    path.write_text(json.dumps({"rows": rows}))
    flops = alone(120.0, FULL, 10 * FULL)
    cost = read_latency(path, flops, batch=8, length=16)
    assert isinstance(cost, Latency)
    assert cost.of(FULL) == cost.whole == 20
    found = solve(
        ORDER,
        FULL,
        {"heads": HEADS, "flops": flops, "latency": cost},
        "latency",
        share_of(cost, 0.8),
    )
    assert (
        found.reached["heads"]["kept"] == 8
    )  # 8 / 12 of the FLOPs: 0.625 + 0.375 * (0.667 - 0.5) / 0.4 of the time
    assert found.reached["latency"]["kept"] == pytest.approx(
        20 * (0.625 + 0.375 * (8 / 12 - 0.5) / 0.4)
    )
    with pytest.raises(
        ValueError, match=r"at most 2 latency cannot be reached: the least is 12\.5 of 20"
    ):
        solve(ORDER, FULL, {"latency": cost}, "latency", 2)
    with pytest.raises(
        ValueError, match=r"has no forward of 4 x 16 \(examples x tokens\), but forward of 8 x 16"
    ):
        read_latency(path, flops, batch=4, length=16)


@pytest.mark.parametrize(
    ("amount", "text"), [(72, "72"), (3.256, "3.256"), (109483778, "109.5M"), (2.1e10, "21G")]
)
def test_amounts_are_short(amount, text):
    assert budget.show(amount) == text
