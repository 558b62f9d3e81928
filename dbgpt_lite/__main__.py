"""``python -m dbgpt_lite``: the command line; without a command it starts the app."""

import sys

from dbgpt_lite.cli import main


def _serve() -> int:
    # The server brings the page and with it seconds of imports: only where it is wanted.
    from dbgpt_lite.server import main as serve

    return serve()


def run() -> None:
    """Entry point of the ``dbgpt-lite`` command."""
    sys.exit(main(sys.argv[1:], _serve))


if __name__ == "__main__":
    run()
