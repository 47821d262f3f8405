"""One line an event, for machines or for people, and no secret and no body in any of them."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from relay.logs import MASK, Format, Level, configure


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """The process's own logging as it was before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level


def set_up(log_format: Format = "json", level: Level = "info", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    configure(log_format, level, stream=stream)
    return stream


def line(stream: io.StringIO) -> dict[str, Any]:
    found = json.loads(stream.getvalue())
    assert isinstance(found, dict)
    return found


def logged(**values: Any) -> dict[str, Any]:
    stream = set_up()
    structlog.get_logger("relay.test").info("said", **values)
    return line(stream)


def test_a_line_says_when_how_bad_what_and_who() -> None:
    entry = logged(source="stripe")

    assert entry.pop("timestamp").endswith("Z")
    assert {"level": "info", "event": "said", "source": "stripe", "logger": "relay.test"} == entry


def test_lines_of_libraries_have_the_same_form() -> None:
    stream = set_up()
    logging.getLogger("uvicorn.error").info("Started on %s", "127.0.0.1")

    assert ("Started on 127.0.0.1", "uvicorn.error") == (line(stream)["event"], line(stream)["logger"])


def test_warnings_of_python_have_the_same_form() -> None:
    stream = set_up()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("soon gone", stacklevel=1)

    assert "soon gone" in line(stream)["event"]


@pytest.mark.parametrize(
    "log_format, stream, is_json",
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ],
)
def test_auto_is_for_people_on_a_terminal_only(log_format: Format, stream: io.StringIO, *, is_json: bool) -> None:
    set_up(log_format, stream=stream)
    structlog.get_logger("relay.test").info("said")

    assert is_json == stream.getvalue().startswith("{")


def test_what_is_below_the_level_is_not_logged() -> None:
    stream = set_up(level="warning")
    structlog.get_logger("relay.test").info("said")
    logging.getLogger("alembic").info("said")

    assert "" == stream.getvalue()


def test_requests_are_not_logged_one_by_one() -> None:
    """They are counted; and the query of a URL may hold a credential."""
    stream = set_up()
    logging.getLogger("uvicorn.access").info("POST /webhooks/acme?token=1")
    logging.getLogger("httpx").info("HTTP Request: POST")

    assert "" == stream.getvalue()


@pytest.mark.parametrize(
    "key",
    ["secret", "secrets", "RELAY_STRIPE_SECRET", "api_key", "apiKey", "hash_key", "encryption_keys", "admin_token",
     "password", "authorization", "cookie", "stripe-signature", "body", "payload", "headers"],
)  # fmt: skip
def test_a_value_under_a_telling_key_is_masked(key: str) -> None:
    assert MASK == logged(**{key: "abc"})[key]


def test_secrets_are_masked_at_any_depth() -> None:
    expected = {"name": "shop", "api_key": MASK, "more": [{"token": MASK}]}
    assert expected == logged(destination={"name": "shop", "api_key": "k", "more": [{"token": "t"}]})["destination"]


def test_which_secret_fitted_may_be_told() -> None:
    assert 1 == logged(secret=1)["secret"]


def test_keys_that_are_no_secrets_stay_readable() -> None:
    assert "payment:pi_1" == logged(once_key="payment:pi_1")["once_key"]


def test_bytes_are_told_by_their_length() -> None:
    assert "<3 bytes>" == logged(raw=b"abc")["raw"]


def test_a_secret_str_stays_hidden() -> None:
    assert "**********" == logged(value=SecretStr("abc"))["value"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("signed with whsec_abc+/=", f"signed with {MASK}"),
        ("oa_live_123 refused", f"{MASK} refused"),
        ("sk_test_1, rk_live_2", f"{MASK}, {MASK}"),
        ("postgresql://relay:pw@db:5432/relay", f"postgresql://{MASK}@db:5432/relay"),
        ("https://api.example/v1?a=b", "https://api.example/v1?a=b"),
    ],
)
def test_a_secret_within_a_text_is_masked(text: str, expected: str) -> None:
    assert expected == logged(reason=text)["reason"]


def test_a_traceback_comes_without_local_variables_and_without_secrets() -> None:
    stream = set_up()
    card = "4242" * 4
    try:
        raise KeyError("whsec_abc")  # noqa: TRY301, EM101
    except KeyError:
        structlog.get_logger("relay.test").exception("raised")
    text = line(stream)["exception"]

    assert f"KeyError: '{MASK}'" in text
    assert card not in text


def test_a_line_break_from_outside_does_not_begin_a_line() -> None:
    stream = set_up("console")
    structlog.get_logger("relay.test").info("said", type="paid\nlevel=error forged")

    assert 1 == len(stream.getvalue().splitlines())


@pytest.mark.parametrize("odd", ["\udc80", 2**70, object])
def test_whatever_is_logged_becomes_a_line(odd: object) -> None:
    assert "said" == logged(odd=odd)["event"]
