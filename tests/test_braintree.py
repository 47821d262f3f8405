"""Braintree: forms with XML in them, which is read without ever expanding an entity."""

import json
from base64 import b64encode, encodebytes
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode
from xml.parsers.expat import ExpatError

import pytest

from mappers.braintree import provider
from relay.contract import Accepted, Delivery, UnmappableError

CASES = Path(__file__).parent / "mappers" / "braintree"
NOW_MS = 1_795_170_000_000
SECRET = "public:private"


def xml(name: str) -> bytes:
    raw: str = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["raw"]
    return raw.removeprefix("bt_payload=").encode()


@pytest.mark.parametrize("encode", [b64encode, encodebytes], ids=["one line", "lines"])
def test_what_braintree_sends_is_read(encode: Callable[[bytes], bytes]) -> None:
    form = urlencode({"bt_payload": encode(xml("dispute_won__chargeback"))}).encode()
    sent = provider.verifier.sign(Delivery(body=form, headers={}), SECRET, now_ms=NOW_MS)

    assert Accepted(0) == provider.verifier.verify(sent, (SECRET,), now_ms=NOW_MS)
    (notification,) = provider.notifications(sent)
    assert ("dispute_won", "won") == (notification.type, notification.body["subject"]["dispute"]["status"])


def test_the_same_payload_is_the_same_notification() -> None:
    ids = [
        notification.id
        for name in ("dispute_won__chargeback", "dispute_won__chargeback", "dispute_lost__chargeback")
        for notification in provider.notifications(Delivery(body=b"bt_payload=" + xml(name), headers={}))
    ]

    assert (True, False) == (ids[0] == ids[1], ids[1] == ids[2])


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><notification><kind>&c;</kind></notification>'


@pytest.mark.parametrize(
    "payload, error",
    [
        (BOMB, UnmappableError),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><notification/>', UnmappableError),
        ("<a>" * 100 + "</a>" * 100, UnmappableError),
        ("<notification><kind>&kind;</kind></notification>", ExpatError),
        ("<notification>", ExpatError),
        ("no XML", ExpatError),
    ],
)
def test_what_is_no_plain_xml_is_parked(payload: str, error: type[Exception]) -> None:
    form = urlencode({"bt_payload": b64encode(payload.encode())}).encode()

    with pytest.raises(error):
        list(provider.notifications(Delivery(body=form, headers={})))


def test_the_types_and_nils_of_the_xml_count() -> None:
    said = (
        b'<notification><kind>check</kind><subject><a-b type="boolean">true</a-b><c type="integer">3</c>'
        b'<d nil="true"/><e type="array"><f>1</f><f>2</f></e><g></g></subject></notification>'
    )
    (notification,) = provider.notifications(
        Delivery(body=urlencode({"bt_payload": b64encode(said)}).encode(), headers={})
    )

    assert {"a_b": True, "c": 3, "d": None, "e": ["1", "2"], "g": None} == notification.body["subject"]


def test_a_challenge_is_answered() -> None:
    asked = Delivery(body=b"", headers={}, method="GET", query="bt_challenge=20f9f8ed05f77439fe955c977e4c8a53")
    answer = provider.challenge(asked, SECRET)

    assert answer is not None
    assert answer.body.startswith(b"public|")
