"""``python -m preflmr``, for launchers that start modules."""

from preflmr.cli import run

if __name__ == "__main__":
    run()
