"""The command: a sweep's config in, a run directory out. `python train.py --help` lists the flags."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sweep. Returns the exit code: 0 done, 2 a mistake in what was asked, 130 interrupted."""
    try:
        # Importing JAX takes seconds, and a Ctrl-C in them is an interrupt like any other.
        from sweep import UserError, run
        from sweep.cli import parse

        try:
            run(parse(sys.argv[1:] if arguments is None else arguments))
        except UserError as error:
            print(f"train.py: error: {error}", file=sys.stderr)
            return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
