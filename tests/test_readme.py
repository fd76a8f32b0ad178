"""The README says what is there: its flags, its snippets, its command lines."""

import re
from pathlib import Path

import pytest

from analysis.reproductions import EXPERIMENTS
from probes import PROBES
from sweep import Config
from sweep.cli import parse

README = (Path(__file__).parents[1] / "README.md").read_text().replace("\\\n", "")


def test_every_flag_has_its_row():
    table = "\n".join(line for line in README.splitlines() if line.startswith("| `--"))
    listed = set(re.findall(r"`(--[\w-]+)(?: [A-Z:]+)?`", table))
    expected = {"--" + name.replace("_", "-") for name in Config.__dataclass_fields__}
    processes = {"--distributed", "--coordinator", "--processes", "--process"}
    assert listed == expected | processes | {"--no-report", "--preset", "--resume", "--plan"}


def test_defaults_in_the_table():
    for name, field in Config.__dataclass_fields__.items():
        row = re.search(rf"^\| `--{name.replace('_', '-')}` \| `([^`]*)`", README, re.MULTILINE)
        if row:
            default = field.default
            expected = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            assert row[1] == expected, name


def test_every_probe_and_every_experiment_has_its_row():
    section = README.partition("## Probes")[2].partition("## Reproductions")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    assert {name for cell in first_cells for name in re.findall(r"`([\w-]+)`", cell)} == set(PROBES) | {"--probes"}
    table = README.partition("## Reproductions")[2]
    assert all(f"| `{name}` |" in table for name in EXPERIMENTS)


@pytest.mark.parametrize("line", re.findall(r"^\.venv/bin/python train.py (?!--resume)([^#\n]*)", README, re.MULTILINE))
def test_sweep_lines_parse(line):
    assert parse(line.split())


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_snippets_run(snippet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    snippet = snippet.replace(
        "depths=(2, 8, 32), steps=200",
        'depths=(32,), seeds=(0,), nets=("plain",), norms=("none",), steps=2, width=8',
    )
    exec(compile(snippet, "README.md", "exec"), {})
    runs = "run(Config(" in snippet
    assert len(list(tmp_path.glob("runs/*/report.html"))) == runs
    assert ("report.html" in "".join(capsys.readouterr().out.split())) == runs  # a long path is broken into lines
