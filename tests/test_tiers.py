"""Which tests run where."""

from itertools import combinations, product

import pytest

from tests.tiers import never_passed, pairwise


@pytest.mark.parametrize("sizes", [(3, 2), (3, 2, 6), (3, 3, 3, 2), (1, 4)])
def test_every_pair_of_values_is_fast(sizes):
    axes = [[f"{axis}{i}" for i in range(size)] for axis, size in zip("abcd", sizes, strict=False)]
    cases = pairwise(*axes)
    assert [case.values for case in cases] == list(product(*axes))
    fast = [case.values for case in cases if not case.marks]
    for first, second in combinations(range(len(axes)), 2):
        assert {(case[first], case[second]) for case in fast} == set(product(axes[first], axes[second]))
    assert len(sizes) == 2 or len(fast) < len(cases)


def test_a_test_that_passed_nowhere_is_named(tmp_path):
    report = """<testsuites><testsuite>
        <testcase classname="tests.a.test_b" name="test_one[x.y-1]"/>
        <testcase classname="tests.a.test_b.TestC" name="test_two"/>
        <testcase classname="tests.a.test_b" name="test_three"><skipped/></testcase>
        <testcase classname="tests.a.test_b" name="test_four"><failure/></testcase>
    </testsuite></testsuites>"""
    (tmp_path / "one.xml").write_text(report)
    (tmp_path / "two.xml").write_text(report.replace("<failure/>", ""))
    nodes = [f"tests/a/test_b.py::{name}" for name in ("test_one[x.y-1]", "TestC::test_two", "test_three", "test_five")]
    nodes.append("tests/a/test_b.py::test_four")
    lost = [node.rpartition("::")[2] for node in never_passed(nodes, [tmp_path / "one.xml", tmp_path / "two.xml"])]
    assert lost == ["test_three", "test_five"]
