"""The command: a sweep's config in, a run directory out. `python train.py --help` lists the flags."""

import os
import sys
import traceback
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sweep, or goes on with one, or says what it would take.

    Returns the exit code: 0 done, 2 a mistake in what was asked, 3 the run's folder cannot be written, 4 another of the
    run's processes is gone, 128 + the number of the signal that interrupted it: 130 for SIGINT, 143 for SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # Importing JAX takes seconds, and a Ctrl-C in them is an interrupt like any other.
        from sweep import ElsewhereError, LostError, StorageError, UserError, config_of, joined, plan, resume, run
        from sweep.cli import parse, placed, resumed

        try:
            place, rest = placed(arguments)
            directory, rest = resumed(rest)
            config = parse([word for word in rest if word != "--plan"], directory and config_of(directory))
            with joined(place):
                if "--plan" in rest:
                    plan(config)
                elif directory is None:
                    run(config)
                else:
                    resume(directory, config)
        except ElsewhereError:
            return 2
        except (UserError, StorageError, LostError) as error:
            print(f"train.py: error: {error}", file=sys.stderr)
            return 2 if isinstance(error, UserError) else 3 if isinstance(error, StorageError) else 4
    except KeyboardInterrupt as interrupt:
        if getattr(interrupt, "is_heard", True):
            print(str(interrupt) or "interrupted", file=sys.stderr)
        return 128 + getattr(interrupt, "signal", 2)
    return 0


def command() -> None:
    """`main` as a process, which ends when it is told to, and waits for no thread or other process of the run."""
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    if code not in (0, 2):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    command()
