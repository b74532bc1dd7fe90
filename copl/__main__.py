"""Where the program begins: an interrupt is one line from the first import on."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run `copl`; Ctrl-C while its modules are loaded ends it as it does later, with exit code 130."""
    try:
        from copl.cli import main as program
    except KeyboardInterrupt:
        os.write(2, b"copl: interrupted\n")
        sys.exit(130)
    program()


if __name__ == "__main__":
    main()
