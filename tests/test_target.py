"""Targets: their text form, their JSON form, their arithmetic, and what they refuse."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from viscircuits.circuit.stored_target import target_from_json, target_to_json
from viscircuits.errors import TargetError
from viscircuits.target import AnyTarget, Loss, Target, TargetSum, parse_target

PARSED: list[tuple[str, AnyTarget]] = [
    ("features.6:55", Target("features.6", 55)),
    ("features.6:55@7,3", Target("features.6", 55, position=(7, 3))),
    ("features.6:55@center", Target("features.6", 55, position="center")),
    ("features.6:55@max", Target("features.6", 55, position="max")),
    ("twice@1:3", Target("twice@1", 3)),
    ("twice@1:3@max", Target("twice@1", 3, position="max")),
    ("logit:207", Target.logit(207)),
    ("loss", Loss()),
    ("loss@predicted", Loss(predicted=True)),
    ("1*a:3", 1.0 * Target("a", 3)),
    ("1*a:3 - 0.5*b-c.0:7@max", Target("a", 3) - 0.5 * Target("b-c.0", 7, position="max")),
    ("-1*a:3 + 1e-05*logit:2", -1.0 * Target("a", 3) + 1e-5 * Target.logit(2)),
    ("0.1234567890123*a:0 + 12345678.5*a:0", 0.1234567890123 * Target("a", 0) + 12345678.5 * Target("a", 0)),
]


@pytest.mark.parametrize(("text", "target"), PARSED)
def test_text_and_target_are_two_forms_of_one_thing(text, target):
    assert parse_target(text) == target
    assert str(target) == text
    assert parse_target(str(parse_target(text))) == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("  a:3  ", Target("a", 3)),
        ("a : 3 @ 1, 2", Target("a", 3, position=(1, 2))),
        ("a:3@centre", Target("a", 3, position="center")),
        ("a:3 - b:4", Target("a", 3) - Target("b", 4)),
        ("- a:3 + b:4", -1.0 * Target("a", 3) + Target("b", 4)),
        ("2 * a:3", 2.0 * Target("a", 3)),
        ("a:3 - -2*b:4", Target("a", 3) + 2.0 * Target("b", 4)),
    ],
)
def test_text_is_read_generously(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("features.6", r"cannot read target 'features.6' \(a channel number is missing\); expected layer:channel"),
        ("a:b", "cannot read target 'a:b'; expected layer:channel"),
        ("los:3x", "closest: 'loss'"),
        ("a:3@7;3", "cannot read target"),
        ("a:3@corner", "cannot read the position 'corner' in target .*expected y,x"),
        ("x*a:3", "'x' is not a number"),
        ("a:3 - ", "cannot read target"),
        ("nan*a:3", "finite weights"),
        ("", "cannot read target ''"),
    ],
)
def test_text_that_means_nothing_is_refused_with_the_forms(text, message):
    with pytest.raises(TargetError, match=message):
        parse_target(text)


def test_a_direction_has_length_one_whatever_it_was_given_as():
    for given_ in ([3.0, -4.0], (3.0, -4.0), torch.tensor([3.0, -4.0]), np.array([3.0, -4.0]), [3e200, -4e200]):
        assert Target("a", direction=given_).direction == pytest.approx((0.6, -0.8), abs=1e-15)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40).filter(lambda v: any(abs(x) > 1e-100 for x in v)))
def test_scaling_a_direction_twice_changes_no_bit(values):
    once = Target("a", direction=values)
    assert math.hypot(*once.direction) == pytest.approx(1, abs=1e-14)
    assert once.at("max").at(None) == once
    assert target_from_json(json.loads(json.dumps(target_to_json(once)))) == once


@pytest.mark.parametrize("target", [target for _, target in PARSED])
def test_json_round_trip(target):
    assert target_from_json(json.loads(json.dumps(target_to_json(target)))) == target


def test_json_keeps_what_text_does_not():
    target = 2.0 * Target("a", direction=[1.0, 2.0], reduction="mean") - Target(
        "b", 1, position=(2, 3), reduction="sum"
    )
    assert target_from_json(json.loads(json.dumps(target_to_json(target)))) == target


def test_integers_of_numpy_and_torch_become_plain_ones():
    target = Target("a", channel=np.int64(3), position=[torch.tensor(1), np.int32(2)])
    assert target == Target("a", 3, position=(1, 2))
    assert json.loads(json.dumps(target_to_json(target)))


def test_arithmetic():
    a, b = Target("a", 0), Target("b", 1)
    assert a - b == TargetSum(((1.0, a), (-1.0, b)))
    assert 2.0 * (a - 0.5 * b) == TargetSum(((2.0, a), (-1.0, b)))
    assert (a + b) - (a + b) == TargetSum(((1.0, a), (1.0, b), (-1.0, a), (-1.0, b)))
    assert hash(a - b) == hash(a - b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of channel and direction"),
        ({"channel": 1, "direction": [1.0]}, "exactly one of channel and direction"),
        ({"direction": [0.0, 0.0]}, "not all zero"),
        ({"direction": [float("nan"), 1.0]}, "finite"),
        ({"direction": np.ones((2, 2))}, "not a matrix"),
    ],
)
def test_what_is_no_target_is_refused(arguments, message):
    with pytest.raises(TargetError, match=message):
        Target("a", **arguments)


def test_a_sum_needs_finite_weights():
    with pytest.raises(TargetError, match="finite weights"):
        float("inf") * Target("a", 0)
    with pytest.raises(TargetError, match="finite weights"):
        TargetSum(())
