"""Random requests of schemathesis against the routes of a server."""

from collections import Counter

from servers import tokens

EMBEDDING = tokens(1, seed=9, length=3)[0].tolist()


def embed(message):
    """Puts embeddings that the index takes into a message: random ones hardly ever are."""
    if not isinstance(message, dict):
        return
    for field in ("query", "embedding"):
        if field in message:
            message[field] = EMBEDDING
    if isinstance(message.get("queries"), list):
        message["queries"] = [EMBEDDING] * len(message["queries"])
    for document in message.get("documents", ()) if isinstance(message.get("documents"), list) else ():
        embed(document)


def check(schemathesis, url, name, examples, seed=0):
    """Asks every route ``examples`` times; an AssertionError if an answer is a 5xx or not in the document.

    The name in most requests is that of an index, or few would be more than a 404.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from schemathesis import checks
    from schemathesis.specs.openapi import checks as openapi

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    wanted = [
        checks.not_a_server_error,
        openapi.status_code_conformance,
        openapi.content_type_conformance,
        openapi.response_schema_conformance,
    ]
    found = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()

        @seeded(seed)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case):
            if "name" in case.path_parameters and found.total() % 8:
                case.path_parameters["name"] = name
            if found.total() % 2:
                embed(case.body)
            answer = case.call_and_validate(checks=wanted)
            found[answer.status_code] += 1

        ask()
    return {"requests": found.total(), "answers": {str(status): count for status, count in sorted(found.items())}}
