#!/bin/sh
# Makes the rivals' environment, pinned, in the folder given:  benchmarks/rivals/install.sh ENV
# torch 2.11 without CUDA comes from PyTorch's own index where that answers; otherwise the default build, some 5 GB.
set -eu
env=${1:?usage: install.sh ENV}
here=$(dirname "$0")
index=https://download.pytorch.org/whl/cpu
"${PYTHON:-python3}" -m venv "$env"
"$env/bin/pip" install --quiet --disable-pip-version-check --timeout 20 --retries 1 --index-url "$index" torch==2.11.0 \
    || echo "no CPU build of torch 2.11 from $index; taking the default build" >&2
"$env/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
"$env/bin/pip" list --disable-pip-version-check | grep -i -E '^(fast-plaid|xtr-warp-rs|maxsim-cpu|numkong|torch) '
