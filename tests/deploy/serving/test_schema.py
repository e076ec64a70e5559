"""Requests made from the endpoint's own schema, and from none: never a failure of the server."""

import json

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from jsonschema_rs import validate
from schemathesis import GenerationMode

from attnvgg.deploy.serving.payload import TYPES
from attnvgg.deploy.serving.schema import ERROR, answer_schema

QUIET = hypothesis.settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip
PATHS = [("/invocations", "POST"), ("/ping", "GET"), ("/model", "GET"), ("/metrics", "GET")]


@pytest.fixture(scope="module", params=["images", "bags"])
def any_site(request, site, bag_site):
    return site if request.param == "images" else bag_site


def lasting(guard):
    """Keep the application open over the many that schemathesis takes it for."""

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            await guard(scope, receive, send)
            return
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})

    return app


def judge(response):
    """No 5xx, and every answer is what the schema promises."""
    assert response.status_code < 500
    if response.status_code >= 400:
        validate(ERROR, response.json())


@pytest.mark.parametrize(("path", "method"), PATHS)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_the_schema_describes_or_forbids(any_site, path, method, mode):
    schema = schemathesis.openapi.from_asgi("/openapi.json", lasting(any_site.guard))
    seen = set()

    @QUIET
    @hypothesis.given(schema[path][method].as_strategy(generation_mode=mode))
    def run(case):
        response = case.call()
        seen.add(response.status_code)
        judge(response)

    try:
        run()
    except hypothesis.errors.Unsatisfiable:
        assert (mode, path) != (GenerationMode.POSITIVE, "/invocations")
        return  # there is nothing to be wrong in
    if path != "/invocations":
        assert 200 in seen or mode is GenerationMode.NEGATIVE


@pytest.mark.parametrize("kind", TYPES)
def test_bytes_of_every_type(any_site, kind):
    @QUIET
    @hypothesis.given(st.binary(max_size=300))
    def run(body):
        headers = {"content-type": f"{kind}; boundary=x"}
        response = any_site.client.post("/invocations", content=body, headers=headers)
        judge(response)
        assert response.status_code >= 400

    run()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(
        st.sampled_from(["image", "images", "features", "base64", "shape", "x"]), inner, max_size=3
    ),
    max_leaves=20,
)  # fmt: skip


def test_documents_of_every_form(any_site):
    @hypothesis.settings(QUIET, max_examples=100)
    @hypothesis.given(st.lists(JSON, max_size=3), st.booleans() | JSON)
    def run(instances, attention):

        body = json.dumps({"instances": instances, "attention": attention}).encode()
        headers = {"content-type": "application/json"}
        response = any_site.client.post("/invocations", content=body, headers=headers)
        judge(response)
        if response.status_code == 200:
            validate(answer_schema(any_site.desk.service.kind), response.json())

    run()


def test_answers_are_what_the_schema_says(site, bag_site, picture):
    headers = {"content-type": "image/png"}
    image = site.client.post("/invocations?attention=1", content=picture(0), headers=headers)
    bag = {"instances": [{"features": [[1, 2, 3, 4]]}], "attention": True}
    found = {"images": image, "bags": bag_site.client.post("/invocations", json=bag)}
    for kind, response in found.items():
        assert response.status_code == 200
        validate(answer_schema(kind), response.json())
