"""Salesforce: its XML and its acknowledgement."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from mappers.salesforce import provider
from relay.contract import Delivery
from relay.rehearsal import rehearse
from relay.store.schema import Outcome

CASES = Path(__file__).parent / "mappers" / "salesforce"
RAW: str = json.loads((CASES / "Lead__new.json").read_text(encoding="utf-8"))["raw"]

ENTITIES = '<!DOCTYPE a [<!ENTITY x "erika@example.com">]>'
FILE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
ELSEWHERE = '<!DOCTYPE a SYSTEM "https://example.com/a.dtd">'
LAUGHS = (
    "<!DOCTYPE a [<!ENTITY b0 'ha'>" + "".join(f"<!ENTITY b{n} '{f'&b{n - 1};' * 10}'>" for n in range(1, 9)) + "]>"
)


def outcomes(raw: str | bytes) -> list[tuple[Outcome, int]]:
    body = raw.encode() if isinstance(raw, str) else raw
    with rehearse(provider) as stage:
        return [(found.outcome, len(found.events)) for found in stage.map(Delivery(body=body, headers={}))]


@pytest.mark.parametrize("doctype", [ENTITIES, FILE, ELSEWHERE, LAUGHS, "<!DOCTYPE a>"])
def test_a_document_type_parks_the_message(doctype: str) -> None:
    head, _, rest = RAW.partition("\n")

    assert [(Outcome.FAILED, 0)] == outcomes(f"{head}\n{doctype}{rest}")


@pytest.mark.parametrize(
    "raw",
    ["", "no XML", RAW[:-40], "<a/>", RAW.replace("Notification>", "Other>"), "<a>" * 100_000, b"\xff\xfe\x00"],
    ids=["empty", "text", "cut", "another", "no notification", "deep", "bytes"],
)
def test_what_is_no_message_is_parked(raw: str | bytes) -> None:
    assert [(Outcome.FAILED, 0)] == outcomes(raw)


def test_one_bad_notification_of_a_message_parks_alone() -> None:
    second = RAW.rpartition("<sf:CreatedDate>")
    assert [(Outcome.MAPPED, 1), (Outcome.FAILED, 0)] == outcomes(second[0] + "<sf:CreatedDate>soon-" + second[2])


def test_prefixes_are_the_senders_choice() -> None:
    """The names count, not the letters before them."""
    raw = RAW.replace("soapenv:", "S:").replace("xmlns:soapenv", "xmlns:S").replace("sf:", "x:").replace(":sf=", ":x=")

    assert [(Outcome.MAPPED, 1), (Outcome.MAPPED, 1)] == outcomes(raw)


def test_the_organization_is_the_account_and_the_session_is_not_read() -> None:
    raw = RAW.replace('<SessionId xsi:nil="true"/>', "<SessionId>00D58000000Ij2P!session</SessionId>")
    found = list(provider.notifications(Delivery(body=raw.encode(), headers={})))

    assert {"00D58000000Ij2PEAS"} == {one.account for one in found}
    assert "!session" not in repr(found)


def test_it_is_acknowledged_in_salesforces_words() -> None:
    """Without this very body a 200 counts as a failure."""
    answer = provider.accepted
    (ack,) = ET.fromstring(answer.body).iter("{http://soap.sforce.com/2005/09/outbound}Ack")

    assert (200, "text/xml; charset=UTF-8", "true") == (answer.status, answer.content_type, ack.text)


@pytest.mark.parametrize(
    "session",
    [
        "<SessionId>00D58000000Ij2P!session</SessionId>",
        '<x:SessionId xmlns:x="u">00D58000000Ij2P!session</x:SessionId>',
    ],
)
def test_a_session_is_not_kept(session: str) -> None:
    """It would let a reader of the store into Salesforce."""
    sent = RAW.replace('<SessionId xsi:nil="true"/>', session).encode()
    kept = provider.redact(sent)

    assert (b"!session" in sent, b"!session" in kept) == (True, False)
    assert provider.parse(kept) == provider.parse(sent)
    assert provider.redact(RAW.encode()) == RAW.encode()


@pytest.mark.parametrize(
    "home, expected", [("EUR", ("5000.0", "EUR", None)), (None, (None, None, "5000.0"))], ids=["named", "not named"]
)
def test_an_amount_without_a_currency_is_in_that_of_the_source(home: str | None, expected: tuple[object, ...]) -> None:
    raw = json.loads((CASES / "Opportunity__won_and_little_more.json").read_text(encoding="utf-8"))["raw"]
    with rehearse(provider, currency=home) as stage:
        life = stage.begin()
        life.tell(Delivery(body=raw.encode(), headers={}))
        life.finish()
        (won,) = life.sent
    amount = won["properties"].get("amount_in_home_currency")

    assert expected == (_text(won.get("revenue")), won.get("currency"), _text(amount))


def _text(amount: object) -> str | None:
    return None if amount is None else str(amount)
