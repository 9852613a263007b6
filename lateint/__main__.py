"""``python -m lateint``: the command line, as ``lateint``."""

from lateint.cli import run

if __name__ == "__main__":
    run()
