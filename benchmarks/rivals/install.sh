#!/bin/sh
# Makes the rivals' environment, pinned, in the folder given:  benchmarks/rivals/install.sh ENV
# The default build of torch 2.11 takes some 5 GB; PIP_INDEX may name an index with a CPU build of it.
set -eu
env=${1:?usage: install.sh ENV}
here=$(dirname "$0")
"${PYTHON:-python3}" -m venv "$env"
"$env/bin/pip" install --quiet --disable-pip-version-check ${PIP_INDEX:+--index-url "$PIP_INDEX"} torch==2.11.0
"$env/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
"$env/bin/pip" list --disable-pip-version-check | grep -i -E '^(fast.plaid|xtr-warp-rs|maxsim-cpu|numkong|torch) '
