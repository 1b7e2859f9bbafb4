"""The command line: ``torchext quantize``, ``train``, ``predict``, ``info`` and ``bench``."""

from __future__ import annotations

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the console script ``torchext`` calls this.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        the exit code: 0 done, 1 something is wrong with the data or a file, 2 wrong usage,
        130 interrupted.
    """
    from torchext.cli.main import run

    return run(argv)
