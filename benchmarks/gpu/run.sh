#!/usr/bin/env bash
# Everything on one GPU machine without a network: builds from this tree, runs the tests that need a GPU, measures.
#   benchmarks/gpu/run.sh WHEELS OUT.json [arguments of python -m benchmarks.gpu ...]
# WHEELS: a folder with wheels of what python3 there lacks (pybind11 to build, pytest and hypothesis for the tests,
# late-interaction-kernels==0.4.5 and flash-maxsim==0.3.0 to compare with). LOGS=DIR keeps what the tests say.
set -euo pipefail
wheels=$1 out=$2
shift 2
logs=${LOGS:-$(mktemp -d)}
site=$(mktemp -d)
if compgen -G "$wheels/*.whl" >/dev/null; then
  python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" "$wheels"/*.whl
fi
export PYTHONPATH="$site:$PWD/kernels:$PWD${PYTHONPATH:+:$PYTHONPATH}"
python3 setup.py --quiet build_ext --inplace
python3 -c 'import json, lateint_kernels; print(json.dumps(lateint_kernels.explain(), indent=1))'

status=0
tests="triton or cuda or torch or graphs or shards or device"
python3 -m pytest -q tests/kernels tests/lateint -k "$tests" -p no:cacheprovider >"$logs/tests.log" 2>&1 || status=$?
tail -25 "$logs/tests.log"
python3 -m benchmarks.gpu --out "$out" "$@" || status=$?
exit "$status"
