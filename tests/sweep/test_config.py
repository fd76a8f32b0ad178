"""What a config refuses, and what the command line makes of mistakes: one line, before anything starts."""

import ast
import dataclasses
import inspect
import re
from itertools import pairwise
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from sweep import Config, UserError
from sweep.cli import parse
from sweep.plan import members_of
from sweep.presets import PRESETS


def test_the_quickstart_is_48_members():
    members = members_of(Config())
    assert len(members) == len(set(members)) == 48
    assert [m.norm for m in members] == ["none"] * 24 + ["batch"] * 24


def test_measured_steps():
    assert Config().measured_steps == (0, 1, 3, 10, 30, 100, 300)
    assert Config(steps=5).measured_steps == (0, 1, 3, 5)
    assert Config(steps=50, probe_steps=(7, 50)).measured_steps == (0, 7, 50)


def test_the_command_line_is_the_config():
    arguments = [
        "--depths",
        "2",
        "5",
        "--learning-rates",
        "0.1",
        "1e-3",
        "--nets",
        "plain",
        "--no-report",
        "--name",
        "x",
        "--steps=7",
    ]
    expected = Config(depths=(2, 5), learning_rates=(0.1, 1e-3), nets=("plain",), report=False, name="x", steps=7)
    assert parse(arguments) == expected
    assert parse([]) == Config()


def test_presets_are_where_defaults_come_from():
    assert parse(["--preset", "quickstart"]) == Config()
    preset = PRESETS["he2016-degradation"]()
    assert parse(["--preset=he2016-degradation"]) == preset
    changed = parse(["--depths", "8", "14", "--preset", "he2016-degradation", "--batch-size", "32"])
    assert changed == dataclasses.replace(preset, depths=(8, 14), batch_size=32)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_what_to_expect(name):
    make = PRESETS[name]
    assert isinstance(make(), Config)
    for word in ("Command: `python train.py", "Hardware, time:", "Expect:"):
        assert word in make.__doc__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--preset he2016", "unknown --preset 'he2016'; choose from: quickstart, he2016-degradation"),
        ("--preset", "--preset is empty; give a value"),
        ("--preset quickstart twice", "--preset takes one value, got 'quickstart twice'"),
        ("--arch cnn --depths 8 9", "--depths: CNN: depth of a staged network must be 6n + 2 (8, 14, 20, ...), got 9"),
        ("--shortcut B", "--shortcut is of --arch cnn, whose blocks change size; --arch is mlp"),
        ("--preset quickstart --preset quickstart", "--preset is given twice; give it once"),
        ("--remat full", "unknown --remat 'full'; choose from: none, sqrt"),
        ("--probes spectra hessian", "unknown --probes 'hessian'; choose from: signals, gradients"),
        ("--probes surfaces", "unknown --probes 'surfaces'; did you mean 'surface'?"),
        ("--mesh rows=2", "unknown --mesh axis 'rows'; choose from: members, batch"),
        ("--mesh members=4,member=2", "unknown --mesh axis 'member'; did you mean 'members'?"),
        ("--mesh members=0", "--mesh members takes a number of devices, 1 at least, got '0'"),
        ("--mesh batch", "--mesh batch takes a number of devices, 1 at least, got ''"),
        ("--mesh batch=2,batch=2", "--mesh gives batch twice, got 'batch=2,batch=2'"),
        ("--mesh batch=256", "--mesh batch=256 is more devices than a batch has samples, 128"),
        ("--shortcut C", "unknown --shortcut 'C'; choose from: A, B"),
        ("--augment flip", "unknown --augment 'flip'; did you mean 'crop-flip'?"),
        ("--test-samples 0", "--test-samples must be at least 1 and finite, got 0"),
        ("--dephts 2 4", "unknown flag '--dephts'; did you mean '--depths'?"),
        ("--xyzzy", "unknown flag '--xyzzy'; choose from"),
        ("--activation rellu", "unknown --activation 'rellu'; did you mean 'relu'?"),
        ("--dataset digit", "unknown --dataset 'digit'; did you mean 'digits'?"),
        ("--norms batch layer", "unknown --norms 'layer'; choose from: none, batch"),
        ("--optimizer adma", "unknown --optimizer 'adma'; did you mean 'adam"),
        ("--depths 0 2", "--depths must be at least 1 and finite, got 0"),
        ("--width -3", "--width must be at least 1 and finite, got -3"),
        ("--depths 2 4 2", "--depths repeats 2; give every value once"),
        ("--depths", "--depths is empty; give at least one value"),
        ("--depths --width 3", "--depths is empty; give at least one value"),
        ("--depths two", "--depths takes a whole number, got 'two'"),
        ("--depths 2.5", "--depths takes a whole number, got '2.5'"),
        ("--learning-rates fast", "--learning-rates takes a number, got 'fast'"),
        ("--learning-rates nan", "--learning-rates must be at least 0.0 and finite, got nan"),
        ("--width 3 4", "--width takes one value, got '3 4'"),
        ("--report yes", "--report takes no value, got 'yes'"),
        ("7", "unexpected argument '7'"),
        ("--steps 0", "--steps must be at least 1 and finite, got 0"),
        ("--warmup-steps 400", "--warmup-steps must be at most --steps 300, got 400"),
        ("--probe-steps 301", "--probe-steps must be at most --steps 300, got 301"),
        ("--momentum 1", "--momentum must be below 1, got 1.0"),
        ("--spectrum-batch-size 200", "--spectrum-batch-size must be at most --probe-batch-size 128, got 200"),
        ("--name a/b", "--name must be a folder's name without a path, got 'a/b'"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        parse(arguments.split())
    assert "\n" not in str(caught.value)


def test_empty_lists_are_refused_from_python_too():
    with pytest.raises(UserError, match="--depths is empty"):
        Config(depths=())


def test_lists_are_taken_from_python(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' own check of types
    given = {"depths": [2, 4], "seeds": np.arange(2), "nets": "plain", "learning_rates": 1, "out": "runs"}
    config = Config(**given)
    expected = Config(depths=(2, 4), seeds=(0, 1), nets=("plain",), learning_rates=(1.0,), out=Path("runs"))
    assert config == expected
    assert hash(config) == hash(expected)
    assert config.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depths": (2.5,)}, "--depths takes a whole number, got 2.5"),
        ({"width": "wide"}, "--width takes a whole number, got 'wide'"),
        ({"weight_std": ("x",)}, "--weight-std takes a number, got 'x'"),
        ({"activation": 3}, "--activation takes a name, got 3"),
        ({"seeds": (2**31,)}, "--seeds must be below 2^31, got 2147483648"),
    ],
)
def test_wrong_types_are_refused_from_python(monkeypatch, given, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match=re.escape(message)):
        Config(**given)


def test_help_describes_every_flag(capsys):
    with pytest.raises(SystemExit) as exit:
        parse(["--help"])
    assert exit.value.code == 0
    text = " ".join(re.sub("[│╭╰─]", " ", capsys.readouterr().out).split())
    body = ast.parse(inspect.getsource(Config)).body[0].body[1:]
    described = {
        field.target.id: description.value.value
        for field, description in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(description, ast.Expr)
    }
    assert described.keys() == Config.__dataclass_fields__.keys()
    for field, description in described.items():
        assert "--" + field.replace("_", "-") in text
        assert " ".join(description.split()) in text
