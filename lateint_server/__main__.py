"""``python -m lateint_server`` is ``lateint serve``."""

import sys

from lateint.cli import run

if __name__ == "__main__":
    sys.argv = ["lateint", "serve", *sys.argv[1:]]
    run()
