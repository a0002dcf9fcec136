"""Google's error bodies, each in the words of our error tree."""

import json
from typing import Any

import pytest

from sidecar.errors import (
    ContextTooLong,
    KeyRejected,
    ModelNotFound,
    ModelNoTools,
    ProviderError,
    ProviderFailed,
    ProviderOverloaded,
    QuotaExhausted,
    RateLimited,
)
from sidecar.providers.failures import Vendor

KEY = "AIzaSyDUMMYDUMMYDUMMY"
VENDOR = Vendor("gemini", "https://generativelanguage.googleapis.com", KEY, "gemini-2.5-pro")

REASON = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
WAIT = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "47s"}
OVER = "You exceeded your current quota, please check your plan and billing details."


def quota(quota_id: str, **more: Any) -> dict[str, Any]:
    violation = {"quotaMetric": "generate_content_requests", "quotaId": quota_id, **more}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


PER_MINUTE = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", quotaValue="10")
PER_DAY = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", quotaValue="50")
NOTHING = quota("GenerateContentInputTokensPerModelPerMinute-FreeTier", quotaValue="0")
ZERO = f"{OVER}\n* Quota exceeded for metric: requests, limit: 0, model: gemini-2.5-pro"

TABLE = [
    (400, "INVALID_ARGUMENT", "Pass a valid API key.", [REASON], KeyRejected),
    (400, "INVALID_ARGUMENT", "API key not valid.", [], KeyRejected),
    (401, "UNAUTHENTICATED", "Request had invalid credentials.", [], KeyRejected),
    (403, "PERMISSION_DENIED", "Your API key was reported as leaked.", [], KeyRejected),
    (403, "PERMISSION_DENIED", "x", [{"reason": "BILLING_DISABLED"}], QuotaExhausted),
    (429, "RESOURCE_EXHAUSTED", OVER, [PER_MINUTE, WAIT], RateLimited),
    (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted.", [], RateLimited),
    (429, "RESOURCE_EXHAUSTED", OVER, [PER_MINUTE, PER_DAY, WAIT], QuotaExhausted),
    (429, "RESOURCE_EXHAUSTED", OVER, [NOTHING, WAIT], QuotaExhausted),
    (429, "RESOURCE_EXHAUSTED", ZERO, [], QuotaExhausted),
    (404, "NOT_FOUND", "models/x is not found for API version v1beta.", [], ModelNotFound),
    (503, "UNAVAILABLE", "The model is overloaded.", [], ProviderOverloaded),
    (500, "INTERNAL", "An internal error has occurred.", [], ProviderFailed),
    (504, "DEADLINE_EXCEEDED", "The request timed out.", [], ProviderFailed),
    (
        400,
        "INVALID_ARGUMENT",
        "Request payload size exceeds the limit: 20971520 bytes.",
        [],
        ContextTooLong,
    ),
    (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        [],
        ContextTooLong,
    ),
    (400, "FAILED_PRECONDITION", "User location is not supported.", [], ProviderError),
    (400, "FAILED_PRECONDITION", "No free tier; please enable billing.", [], QuotaExhausted),
    (400, "INVALID_ARGUMENT", "Function calling is not enabled for gemma-3.", [], ModelNoTools),
    (400, "INVALID_ARGUMENT", "Invalid value at 'contents'.", [], ProviderError),
]


def error_of(code: int, status: str, message: str, details: list[Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": details}}


@pytest.mark.parametrize(("code", "status", "message", "details", "kind"), TABLE)
def test_each_error_has_its_class_as_an_answer_as_a_list_and_inside_a_stream(
    code: int, status: str, message: str, details: list[Any], kind: type[ProviderError]
) -> None:
    body = error_of(code, status, message, details)

    for told in (
        VENDOR.refused(code, {}, json.dumps(body).encode()),
        VENDOR.refused(code, {}, json.dumps([body]).encode()),
        VENDOR.reported(body["error"]),
    ):
        assert type(told) is kind
        assert " ".join(message.split()) in str(told)
        assert told.http_status == code


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("47s", 47.0), ("20.04466179s", 20.04466179), ("soon", None), (47, None), (None, None)],
)
def test_the_wait_that_google_asks_for_is_in_the_body(delay: Any, seconds: float | None) -> None:
    body = error_of(429, "RESOURCE_EXHAUSTED", OVER, [PER_MINUTE, WAIT | {"retryDelay": delay}])

    told = VENDOR.refused(429, {}, json.dumps(body).encode())

    assert told.retry_after_s == seconds


def test_a_header_s_wait_goes_before_the_body_s() -> None:
    body = json.dumps(error_of(429, "RESOURCE_EXHAUSTED", OVER, [WAIT])).encode()

    assert VENDOR.refused(429, {"retry-after": "3"}, body).retry_after_s == 3.0


@pytest.mark.parametrize("details", [None, "x", {}, [1, None, []], [{"reason": {}}]])
def test_details_of_any_other_form_are_skipped(details: Any) -> None:
    body = error_of(503, "UNAVAILABLE", "The model is overloaded.", details)

    assert type(VENDOR.refused(503, {}, json.dumps(body).encode())) is ProviderOverloaded


def test_a_key_in_google_s_words_is_not_repeated() -> None:
    body = error_of(400, "INVALID_ARGUMENT", f"API key {KEY} is bad", [REASON])

    told = VENDOR.refused(400, {}, json.dumps(body).encode())

    assert KEY not in str(told) + str(told.detail)
