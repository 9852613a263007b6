"""What the OpenAPI document says is what happens: schemathesis asks at random."""

import json
from pathlib import Path

import httpx
import pytest
from servers import serving, tokens

from lateint import Index

EXAMPLES = 5  # a route; `python -m benchmarks.serving openapi` tries more


def test_the_document_is_of_messages(served):
    document = served().get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    search = document["paths"]["/v1/indexes/{name}/search"]["post"]
    assert set(search["requestBody"]["content"]) == {"application/json", "application/msgpack"}
    assert set(search["responses"]) == {"200", "401", "403", "404", "408", "413", "422", "429", "503", "504"}
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in json.dumps(document)
    routes = {f"{method} {path}" for path, methods in document["paths"].items() for method in methods}
    assert routes == set((Path(__file__).parent / "routes.txt").read_text().splitlines())


def test_no_answer_is_undocumented(tmp_path):
    schemathesis = pytest.importorskip("schemathesis")
    from openapi_checks import check

    Index.build(tokens(30, seed=0), tmp_path / "passages", progress=False)
    with serving({"passages": Index.open(tmp_path / "passages")}) as url:
        assert check(schemathesis, url, "passages", EXAMPLES)["requests"] > 8 * EXAMPLES
        assert httpx.get(f"{url}/healthz").status_code == 200
