"""The command line that folders of figures share: ``python -m benchmarks.NAME WHAT --out results/NAME.json``."""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path


def main(about, what, out, measure, add=lambda parser: None):
    """Measures one of several things in an empty folder, and writes it under its own key of a JSON file.

    Args:
        about: the help.
        what: names of what can be measured.
        out: the file, unless another one is given.
        measure: gets the options and the folder, and gives plain numbers.
        add: adds options to a parser.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=what)
    parser.add_argument("--count", type=int, help="how many, where that can be chosen")
    parser.add_argument("--folder", help="where to work; a temporary folder if left out")
    parser.add_argument("--out", default=out)
    add(parser)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        found = measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    place = Path(options.out)
    report = json.loads(place.read_text()) if place.exists() else {}
    report[options.what] = {**found, "load average": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    place.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report[options.what], indent=1))
