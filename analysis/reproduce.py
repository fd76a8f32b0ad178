"""Runs experiments of the literature and judges them: `python -m analysis.reproduce NAME`, or `all`.

Every run is one of `train.py --preset`, in a process of its own; one that is there already, complete, is judged as it
is. A verdict may be that a claim fails: it is printed like any other, and is no error.
"""

import argparse
import difflib
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.load import NotARunError, load
from analysis.reproductions import EXPERIMENTS, Claim, Experiment

TABLE = "reproductions.md"


def reproduce(experiment: Experiment, out: Path, console: Console, *, quick: bool = False) -> list[Claim]:
    """Runs what of an experiment is not there yet, in folders of `out`, and judges it.

    Raises:
      NotARunError: a folder is there that holds no complete run of it.
      subprocess.CalledProcessError: a run failed; what it said was printed.
    """
    results = {}
    for label, flags in experiment.runs.items():
        run = out / "-".join(filter(None, [experiment.preset, label]))
        given = ["--preset", experiment.preset, *_merged(flags, experiment.quick if quick else ())]
        if run.exists():
            _check(run, given)
            console.print(f"{run} is there already, and is judged as it is", highlight=False)
        else:
            console.print(f"train.py {' '.join(given)}", highlight=False)
            command = [sys.executable, "-m", "train", *given, "--out", str(run.parent), "--name", run.name]
            subprocess.run(command, check=True)
        results[label] = load(run)
    return experiment.judge(results)


def _merged(flags: Sequence[str], others: Sequence[str]) -> list[str]:
    """Flags of the command line, those of `others` in the place of the same ones."""
    found: dict[str, list[str]] = {}
    for group in (flags, others):
        flag, own = "", dict[str, list[str]]()
        for word in group:
            if word.startswith("--"):
                flag = word
                own[flag] = []
            else:
                own[flag].append(word)
        found |= own
    return [word for flag, values in found.items() for word in (flag, *values)]


def _check(run: Path, given: Sequence[str]) -> None:
    """Refuses a run that did not end, or was one of other settings."""
    provenance = load(run).attrs["provenance"]
    if provenance["status"] != "complete":
        raise NotARunError(f"{run} holds a run that is {provenance['status']}; move it away or choose another --out")
    # The command, what was given, and the two flags that say where, with their values.
    before = provenance["command"][1:-4]
    if before != list(given):
        raise NotARunError(f"{run} is of other settings, {' '.join(before)}; move it away or choose another --out")


def table(claims: Mapping[str, Sequence[Claim]]) -> str:
    """All claims as a table in Markdown."""
    lines = [
        "| experiment | claim | published or derived | measured | allowed | verdict | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_experiment in claims.items():
        for claim in of_experiment:
            cells = [f"`{name}`", claim.statement, *_numbers(claim), claim.source]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _numbers(claim: Claim) -> tuple[str, str, str, str]:
    value, error, _ = claim.measured
    measured = f"{value:.4g}" + (f" ± {error:.2g}" if error else "")
    allowed = f"{claim.tolerance:.1%}, {claim.reason}" if claim.reason else ""
    return f"{claim.relation} {claim.expected:.4g}", measured, allowed, claim.verdict


def show(name: str, claims: Sequence[Claim], console: Console) -> None:
    """An experiment's claims, for the terminal."""
    shown = Table(title=f"{name}: {EXPERIMENTS[name].title}", title_justify="left")
    for column in ("claim", "expected", "measured", "verdict"):
        shown.add_column(column)
    for claim in claims:
        expected, measured, _, verdict = _numbers(claim)
        shown.add_row(claim.statement, expected, measured, verdict)
    console.print(shown, highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 judged, whatever the verdicts; 1 a run failed; 2 a mistake in what was asked; 130
    interrupted."""
    parser = argparse.ArgumentParser(prog="analysis.reproduce", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", help=f"all, or one of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--quick", action="store_true", help="smaller nets and fewer steps: minutes for all")
    parser.add_argument("--out", type=Path, default=Path("runs/reproductions"), help="folder for runs and table")
    given = parser.parse_args(argv)
    if given.name not in (*EXPERIMENTS, "all"):
        close = difflib.get_close_matches(given.name, EXPERIMENTS, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"choose from: all, {', '.join(EXPERIMENTS)}"
        print(f"analysis.reproduce: error: unknown experiment '{given.name}'; {hint}", file=sys.stderr)
        return 2
    console, failed = Console(), 0
    claims: dict[str, list[Claim]] = {}
    try:
        for name in EXPERIMENTS if given.name == "all" else [given.name]:
            try:
                claims[name] = reproduce(EXPERIMENTS[name], given.out, console, quick=given.quick)
            except subprocess.CalledProcessError as error:
                if error.returncode == 130:
                    return 130
                print(f"analysis.reproduce: error: a run failed with exit code {error.returncode}", file=sys.stderr)
                failed = 1
                continue
            show(name, claims[name], console)
            # Each in a file of its own, so that nothing is lost if a later one fails.
            (given.out / f"{name}.md").write_text(table({name: claims[name]}), encoding="utf-8")
        if given.name == "all" and claims:
            (given.out / TABLE).write_text(table(claims), encoding="utf-8")
    except (NotARunError, OSError) as error:
        print(f"analysis.reproduce: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    counts = Counter(claim.verdict for of_experiment in claims.values() for claim in of_experiment)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("holds", "fails", "undecided") if counts[verdict])
    console.print(f"{counts.total()} claims: {told}; tables in {given.out}", highlight=False)
    return failed


if __name__ == "__main__":
    sys.exit(main())
