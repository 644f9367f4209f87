"""Describe a service as OpenAPI 3.1, typed from the model's data contract, with requests that work."""

import re
from typing import TYPE_CHECKING, Any

import msgspec

from loop.data.contract import DataContract, class_code
from loop.data.table import as_text

if TYPE_CHECKING:
    from loop.serving.schema import Schema
    from loop.serving.values import Field

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Model service</title>
<link rel="stylesheet" href="PREFIX/static_content/swagger-ui.css">
<div id="page"></div>
<script src="PREFIX/static_content/swagger-ui-bundle.js"></script>
<script>
  // Open /#TOKEN where a token is needed: what stands behind # stays in the browser.
  const token = location.hash.slice(1)
  const signed = request => { if (token) request.headers.Authorization = "Bearer " + token; return request }
  SwaggerUIBundle({url: "PREFIX/openapi.json", dom_id: "#page", requestInterceptor: signed})
</script>
</html>
"""
"""The page for people, below a prefix; BentoML's own, whose files it uses, calls Google Tag Manager."""

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""Of the JSON that /invocations takes; a body has one of them."""
EXAMPLE_ID = "9f86d081884c-7d659a2feaa0-0"
REFUSALS = {
    "400": "The body is not JSON (or, for CSV, not a table).",
    "401": "The bearer token is missing or wrong.",
    "403": "Without a token: a page of another site asks, or the Host is another one.",
    "408": "The body did not arrive in time.",
    "413": "Too many rows, or too large a body.",
    "415": "The content type is another one, or the encoding neither gzip nor identity.",
    "422": "A row breaks the data contract; the sentence names row and field.",
    "503": "The server is busy, or cannot write its log; come back after Retry-After seconds.",
}
ACCEPTED = {"type": "object", "required": ["accepted"], "properties": {"accepted": {"type": "integer"}}}
AUDITED = {
    "type": "object",
    "required": ["share", "waiting", "ids"],
    "properties": {
        "share": {"type": "number", "description": "Of all predictions (feedback.audit)."},
        "waiting": {"type": "integer", "description": "How many have no label yet."},
        "ids": {"type": "array", "items": {"type": "string"}, "description": "The newest of them."},
    },
}
EXPLANATION = {
    "type": "object",
    "description": "base + the sum of a row's contributions is its score before the link function (log-odds).",
    "required": ["version", "features", "base", "contributions"],
    "properties": {
        "version": {"type": "integer"},
        "features": {"type": "array", "items": {"type": "string"}},
        "base": {"type": ["number", "array"], "items": {"type": "number"}},
        "contributions": {"type": "array", "items": {"type": "array", "items": {"type": ["number", "array"]}}},
    },
}


def describe(schema: "Schema", title: str, version: str, *, explained: int, audit: bool, token: bool) -> dict[str, Any]:
    """Return the document; `explained` is how many rows /explain takes, 0 if there is none.

    With `audit`, answers say which predictions are to be labelled.
    """
    (values, label), components = msgspec.json.schema_components(
        [schema.values, schema.label],
        ref_template="#/components/schemas/{name}",
        schema_hook=lambda kind: {"type": "string", "format": "date-time"},
    )
    items = components["Values"]["prefixItems"]
    items[:] = [_value(field, item) for field, item in zip(schema.fields, items, strict=True)]
    components["Row"] = {
        "title": "Row",
        "type": "object",
        "properties": dict(zip(schema.columns, items, strict=True)),
        "required": [*schema.features],
        "additionalProperties": False,
    }
    row = {"$ref": "#/components/schemas/Row"}
    components["Label"]["properties"]["id"]["pattern"] = "^[0-9a-f]{12}-[0-9a-f]{6,12}-(0|[1-9][0-9]{0,8})$"
    components["Error"] = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    components["Label"]["properties"]["label"] = _truth(schema.contract)
    components["Answer"] = _answer(schema.contract, audit)

    def many(of: Any, most: int = schema.serving.max_rows) -> dict[str, Any]:
        return {"type": "array", "items": of, "minItems": 1, "maxItems": most}

    rows = {"oneOf": [row, many(row), many(values)]}
    few_rows = {"oneOf": [row, many(row, explained), many(values, explained)]}
    invoked = {
        "type": "object",
        "description": "The four JSON formats of mlflow models serve; text/csv goes too.",
        "properties": {
            "dataframe_split": {
                "type": "object",
                "required": ["data"],
                "properties": {"columns": {"const": schema.features}, "data": many(values)},
                "additionalProperties": False,
            },
            "dataframe_records": many(row),
            "instances": {"oneOf": [many(row), many(values)]},
            "inputs": {"oneOf": [many(row), many(values)]},
        },
        "oneOf": [{"required": [name]} for name in FORMATS],
    }
    labels = {"oneOf": [label, many(label)]}
    example = schema.example()
    one_label = {"id": EXAMPLE_ID, "label": (schema.contract.classes or (1.5,))[-1]}
    told = f"prediction_id,label\n{EXAMPLE_ID},{cell(str(one_label['label']))}\n"
    answer = {"$ref": "#/components/schemas/Answer"}
    header = ",".join(map(cell, example))
    cells = ",".join("" if value is None else cell(str(value)) for value in example.values())
    paths = {
        "/predict": _post("Predict one row or many.", rows, example, answer),
        "/predict_csv": _post(
            "Predict the rows of a CSV with a header.", {"type": "string"}, f"{header}\n{cells}\n",
            {"type": "string"}, media="text/csv",
        ),
        "/explain": _post("Say what each feature adds to the score.", few_rows, example, EXPLANATION),
        "/invocations": _post(
            "Predict as mlflow models serve does.", invoked, {"dataframe_records": [example]},
            _invoked(schema.contract, audit),
        ),
        "/feedback": _post("Tell the true labels of predictions, late or corrected.", labels, one_label, ACCEPTED),
        "/feedback_csv": _post(
            "Tell true labels as a CSV: by the model's id columns or by prediction_id, dated in a column date or not.",
            {"type": "string"}, told, {"type": "string"}, media="text/csv",
        ),
        "/audit": _get("Which predictions of the audit sample have no label yet, the newest first.", AUDITED),
        "/audit_csv": _get("The same as a CSV to be filled in, for /feedback_csv.", {"type": "string"}, "text/csv"),
        "/model": _get(
            "Which model answers, what it expects, how good it was, and why it was promoted.", {"type": "object"}
        ),
    }  # fmt: skip
    if not explained:
        del paths["/explain"]
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": components},
    }
    if schema.serving.prefix:
        document["servers"] = [{"url": schema.serving.prefix}]
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _value(field: "Field", item: dict[str, Any]) -> dict[str, Any]:
    """Say what a value may be: what is read at once, and the other spellings that are taken for it."""
    described, others = {"description": f"Needs {_markdown(field.needs)}."}, field.spellings()
    return ({"anyOf": [item, {"enum": others}]} if others else item) | described


def _markdown(text: str) -> str:
    """Escape what would be a tag, a link or emphasis in a description, which is Markdown."""
    return re.sub(r"[\\`*\[\]<&]", r"\\\g<0>", text)


def _truth(contract: DataContract) -> dict[str, Any]:
    """Say what a label may be: a number, or a class as text, number or truth value."""
    if not contract.classes:
        return {"type": "number"}
    numbers = [int(text) for text in contract.classes if re.fullmatch(r"0|-?[1-9]\d{0,17}", text)]
    spelt = (value for value in (*numbers, True, False) if class_code(as_text(value), contract.classes) is not None)
    return {"enum": [*contract.classes, *spelt]}


def _answer(contract: DataContract, audit: bool) -> dict[str, Any]:
    """Say what /predict answers."""
    probability: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
    score: dict[str, Any]
    decision: dict[str, Any] = {"type": "array", "items": {"enum": contract.classes}}
    if contract.task == "regression":
        score, meaning, decision = {"type": "number"}, "the value", {"type": "null"}
    elif contract.task == "binary":
        score, meaning = probability, f"P({_markdown(contract.classes[1])})"
    else:
        classes = len(contract.classes)
        score = {"type": "array", "items": probability, "minItems": classes, "maxItems": classes}
        meaning = f"the probabilities of {_markdown(', '.join(contract.classes))}"
    properties = {
        "version": {"type": "integer", "description": "Version of the model."},
        "ids": {"type": "array", "items": {"type": "string"}, "description": "A prediction id a row, for /feedback."},
        "scores": {"type": "array", "items": score, "description": f"Of each row {meaning}."},
        "labels": {**decision, "description": "Of each row the decision."},
    }
    if audit:
        marks = {"type": "array", "items": {"type": "boolean"}}
        properties["audit"] = {**marks, "description": "Of each row whether it is to be labelled (feedback.audit)."}
    return {"type": "object", "required": list(properties), "properties": properties}


def _invoked(contract: DataContract, audit: bool) -> dict[str, Any]:
    """Say what /invocations answers."""
    items = {"type": "integer", "minimum": 0} if contract.classes else {"type": "number"}
    meaning = "Of each row the place of its class" if contract.classes else "Of each row the value"
    predictions = {"type": "array", "items": items, "description": f"{meaning}."}
    answer = _answer(contract, audit)
    properties = {"predictions": predictions, **answer["properties"]}
    return {**answer, "required": list(properties), "properties": properties}


def _post(summary: str, body: Any, example: Any, answer: Any, media: str = "application/json") -> dict[str, Any]:
    request = {"required": True, "content": {media: {"schema": body, "example": example}}}
    responses = {"200": {"description": "The answer.", "content": {media: {"schema": answer}}}, **_refusals()}
    return {"post": {"summary": summary, "requestBody": request, "responses": responses}}


def _get(summary: str, answer: Any, media: str = "application/json") -> dict[str, Any]:
    content = {media: {"schema": answer}}
    responses = {"200": {"description": "The answer.", "content": content}, "401": _refusals()["401"]}
    return {"get": {"summary": summary, "responses": responses}}


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": text, "content": content} for status, text in REFUSALS.items()}


def page(prefix: str) -> bytes:
    """Return the page for people; without a prefix it asks beside its own address, whatever that is."""
    return PAGE.replace("PREFIX", prefix or ".").encode()


def cell(text: str) -> str:
    """Return a text as a cell of a CSV."""
    return '"' + text.replace('"', '""') + '"' if not text or any(mark in text for mark in ',"\r\n') else text
