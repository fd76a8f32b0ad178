"""Which tests run where: unmarked ones always, `slow` and `speed` ones in `.ci/run`.

`python -m tests.tiers REPORT.xml ...` fails for tests that are there and passed in none of pytest's JUnit reports.
"""

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest


def slow(*values: Any, **settings: Any) -> Any:
    """A case for `parametrize` that runs in the slow tier."""
    return pytest.param(*values, marks=pytest.mark.slow, **settings)


def slow_unless(chosen: Callable[..., bool], cases: Iterable[Sequence[Any]]) -> list[Any]:
    """The cases, for `parametrize`, all of them slow but those of which `chosen(*case)` is true."""
    return [(pytest.param if chosen(*case) else slow)(*case) for case in cases]


def pairwise(*axes: Sequence[Any]) -> list[Any]:
    """The Cartesian product of the axes, for `parametrize`, all of it but a pairwise covering set marked `slow`.

    In the covering set every value of an axis meets every value of each other axis at least once; greedy, and so not
    always the smallest there is.
    """
    cases = list(itertools.product(*(range(len(axis)) for axis in axes)))

    def pairs(case: Iterable[int]) -> set[tuple]:
        return set(itertools.combinations(enumerate(case), 2))

    uncovered, chosen = set().union(*map(pairs, cases)), set()
    while uncovered:
        best = max(cases, key=lambda case: len(pairs(case) & uncovered))
        chosen.add(best)
        uncovered -= pairs(best)
    return [
        (pytest.param if case in chosen else slow)(*(axis[place] for axis, place in zip(axes, case, strict=True)))
        for case in cases
    ]


def never_passed(collected: Iterable[str], reports: Iterable[Path]) -> list[str]:
    """The tests, of those collected, that passed in none of the reports.

    Args:
      collected: node ids, `tests/folder/test_file.py::TestClass::test_name[case]`.
      reports: files as `pytest --junit-xml` writes them.
    """
    passed = {
        (case.get("classname"), case.get("name"))
        for report in reports
        for case in ElementTree.parse(report).iter("testcase")
        if not {child.tag for child in case} & {"skipped", "failure", "error"}
    }

    def identity(node: str) -> tuple[str, str]:
        node, bracket, case = node.partition("[")
        path, *scopes, name = node.split("::")
        return ".".join([path.removesuffix(".py").replace("/", "."), *scopes]), name + bracket + case

    return [node for node in collected if identity(node) not in passed]


def main() -> int:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=--import-mode=importlib"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    collected = [line for line in listing.splitlines() if "::" in line]
    print(f"{len(collected)} tests")
    lost = never_passed(collected, [Path(report) for report in sys.argv[1:]])
    for node in lost:
        print(f"runs nowhere: {node}", file=sys.stderr)
    return 1 if lost or not collected else 0


if __name__ == "__main__":
    sys.exit(main())
