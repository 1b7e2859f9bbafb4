"""The parser of ``torchext`` and the one place where exceptions become exit codes."""

from __future__ import annotations

import argparse
import os
import sys

from torchext.cli import bench, info, predict, quantize, train
from torchext.cli._common import (
    EXIT_DATA,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    DataError,
    UsageError,
    note,
)

DESCRIPTION = "Train linear models on data of a few bits per value."

EPILOG = """\
from a table to predictions:
  torchext quantize houses.csv houses.tq --target price --bits 4
  torchext train houses.tq --out price.safetensors --plot price.png
  torchext predict price.safetensors new_houses.csv > prices.csv

or in one step, the exact solution (scikit-learn's Ridge, by way of low-bit codes):
  torchext train houses.csv --target price --model ridge --out price.safetensors

what is in a file, and what low bits cost and gain on this data:
  torchext info houses.tq --verify
  torchext bench houses.csv --target price --bits 2 4 8 32

exit codes: 0 done; 1 a file or its data is at fault (the message names file, line and column);
2 wrong usage; 130 interrupted. 'torchext COMMAND --help' explains a command.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="torchext",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--version",
        action="store_true",
        help="print the version and the state of this installation",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for module in (quantize, train, predict, info, bench):
        module.add_parser(commands)
    return top


def run(argv: list[str] | None = None) -> int:
    """Parse, run the command, map exceptions to exit codes; never a traceback for bad data."""
    top = parser()
    try:
        arguments = top.parse_args(argv)
    except SystemExit as stop:  # argparse has printed its message
        return int(stop.code or 0)
    if arguments.version:
        from torchext.__main__ import diagnosis

        print(diagnosis())
        return EXIT_OK
    if arguments.command is None:
        top.print_help()
        return EXIT_USAGE
    name = f"torchext {arguments.command}"
    try:
        arguments.run(arguments)
        sys.stdout.flush()
        return EXIT_OK
    except UsageError as error:
        note(f"{name}: {error}")
        return EXIT_USAGE
    except KeyboardInterrupt as stop:
        note(f"{name}: interrupted{': ' + str(stop) if str(stop) else ''}")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except ImportError as error:
        note(f"{name}: {error}")
        return EXIT_DATA
    except (DataError, ValueError, TypeError, OSError, RuntimeError) as error:
        if os.environ.get("PYTHONDEVMODE") or sys.flags.dev_mode:
            raise
        note(f"{name}: {error}")
        return EXIT_DATA
