"""How long the first calls of a process take, with an empty cache of compiled kernels and with a full one.

Run as a script it is that process, and prints seconds as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any


def first_calls(backend: str) -> dict[str, Any]:
    """Of one process after the other; the second finds what the first compiled."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TRITON_CACHE_DIR": cache, "LATEINT_CACHE_DIR": cache}
        command = [sys.executable, "-m", "benchmarks.gpu.first_call", backend]
        return {
            name: json.loads(subprocess.check_output(command, env=environment, text=True).splitlines()[-1])
            for name in ("empty cache", "full cache")
        }


def main(backend: str) -> None:
    """Imports, then a training step twice."""
    start = time.perf_counter()
    import torch

    from lateint_kernels import maxsim

    device = "cuda" if torch.cuda.is_available() else "cpu"
    queries = torch.randn(3, 4, 16, device=device, dtype=torch.bfloat16, requires_grad=True)
    documents = torch.randn(3, 9, 16, device=device, dtype=torch.bfloat16, requires_grad=True)
    torch.einsum("qsh,cth->qcst", queries, documents).sum().backward()  # CUDA itself has to start too
    seconds = {"imports": time.perf_counter() - start}
    for name in ("first step", "second step"):
        start = time.perf_counter()
        maxsim(queries, documents, backend=backend).logsumexp(1).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - start
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1])
