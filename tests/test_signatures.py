"""What every verifier promises, asked of all families at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from relay.contract import Accepted, Delivery, NeedsCertificate, Reason, Refused
from relay.signatures import takes_basic
from relay.variations import tampered
from tests.subjects import DAY_S, NOW, SUBJECTS, Subject

each = pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
each_that_signs = pytest.mark.parametrize(
    "subject", [pytest.param(one, id=name) for name, one in SUBJECTS.items() if one.tamper]
)
each_with_time = pytest.mark.parametrize(
    "subject", [pytest.param(one, id=name) for name, one in SUBJECTS.items() if one.has_time]
)
MISMATCHES = {Refused(Reason.MISMATCH), Refused(Reason.MISMATCH_OR_URL)}


# --- all families -----------------------------------------------------------------------------------------------------


@each
def test_what_the_provider_sends_is_accepted(subject: Subject) -> None:
    assert Accepted(0) == subject.verify(subject.signed())


@each
def test_a_stranger_without_the_secret_is_refused(subject: Subject) -> None:
    assert subject.verify(subject.signed(), subject.specimen(1).secret) in MISMATCHES


@each
def test_both_secrets_fit_while_they_are_rotated(subject: Subject) -> None:
    new, old = subject.specimen(1).secret, subject.specimen(0).secret

    assert Accepted(1) == subject.verify(subject.signed(0), new, old)
    assert Accepted(0) == subject.verify(subject.signed(1), new, old)


@each
def test_no_secret_means_nobody_is_let_in(subject: Subject) -> None:
    assert subject.verify(subject.signed(), "") in MISMATCHES
    assert subject.verifier.verify(subject.signed(), [], now_ms=NOW) in MISMATCHES


@each
def test_a_delivery_without_a_signature_is_refused(subject: Subject) -> None:
    assert Refused(Reason.MISSING) == subject.verify(subject.saying(""))
    assert isinstance(subject.verify(subject.delivery()), Refused)


@each
@pytest.mark.parametrize("cut", [slice(None, -1), slice(None, -4), slice(None, 8), slice(1, None), slice(None, 1)])
def test_a_truncated_signature_is_refused(subject: Subject, cut: slice) -> None:
    assert isinstance(subject.verify(subject.saying(subject.sent()[cut])), Refused)


@each
@pytest.mark.parametrize("text", ["ü", "☃", "\x00", ",", "=", ";", "v1", "t=,v1=", "Basic ", "Bearer x", "a" * 100_000])
def test_a_signature_that_is_none_is_refused(subject: Subject, text: str) -> None:
    assert isinstance(subject.verify(subject.saying(text)), Refused)


@each
def test_a_signature_with_something_behind_it_is_refused(subject: Subject) -> None:
    assert isinstance(subject.verify(subject.saying(subject.sent() + "ü")), Refused)
    assert isinstance(subject.verify(subject.saying(subject.sent() + "a")), Refused)


@each_that_signs
def test_a_tampered_delivery_is_refused(subject: Subject) -> None:
    assert subject.tamper is not None
    tampered = subject.tamper(subject.signed())

    assert tampered != subject.signed()
    assert subject.verify(tampered) in MISMATCHES


@each
def test_whatever_of_a_delivery_is_signed_it_cannot_be_changed(subject: Subject) -> None:
    signing = subject.specimen().signing
    changes = list(tampered(subject.signed(), lambda delivery: subject.verifier.sign(delivery, signing, now_ms=NOW)))

    assert changes
    assert [] == [words for words, changed in changes if isinstance(subject.verify(changed), Accepted)]


@each
def test_a_header_that_came_twice_is_ambiguous(subject: Subject) -> None:
    if not subject.place.startswith("header:"):
        return
    verdict = subject.verify(subject.saying(f"{subject.sent()}, {subject.sent()}"))

    assert (Accepted if subject.is_list else Refused) is type(verdict)


@each_with_time
def test_a_signature_is_not_accepted_later_than_its_tolerance(subject: Subject) -> None:
    signed = subject.signed()

    assert Accepted(0) == subject.verify(signed, now_ms=NOW + 300_000, tolerance_s=300)
    assert Refused(Reason.STALE) == subject.verify(signed, now_ms=NOW + 301_000, tolerance_s=300)


@each_with_time
def test_a_signature_from_the_future_is_not_accepted(subject: Subject) -> None:
    signed = subject.signed()

    assert Accepted(0) == subject.verify(signed, now_ms=NOW - 300_000, tolerance_s=300)
    assert Refused(Reason.FUTURE) == subject.verify(signed, now_ms=NOW - 301_000, tolerance_s=300)


@each_with_time
def test_a_time_is_enforced_where_the_provider_promises_a_new_one_for_each_attempt(subject: Subject) -> None:
    limit_s = subject.verifier.tolerance_s
    much_later = NOW + 30 * DAY_S * 1000

    assert (Accepted(0) if limit_s is None else Refused(Reason.STALE)) == subject.verify(
        subject.signed(), now_ms=much_later
    )


@each
def test_without_a_signed_time_a_tolerance_changes_nothing(subject: Subject) -> None:
    if not subject.has_time:
        assert Accepted(0) == subject.verify(subject.signed(), now_ms=NOW * 2, tolerance_s=0)
        assert subject.verifier.tolerance_s is None


@each
def test_a_secret_of_the_wrong_form_is_told_before_the_first_delivery(subject: Subject) -> None:
    assert subject.verifier.fault(subject.specimen().secret) is None
    assert subject.verifier.fault("") is not None


@each
def test_the_family_is_told_in_words(subject: Subject) -> None:
    assert subject.verifier.family


@each
def test_what_is_signed_with_the_url_is_known(subject: Subject) -> None:
    moved = replace(subject.signed(), url="https://elsewhere.example/webhooks/it")

    assert subject.verifier.signs_url == (subject.verify(moved) == Refused(Reason.MISMATCH_OR_URL))


@each
def test_a_header_that_carries_the_secret_is_known(subject: Subject) -> None:
    secret = subject.specimen().secret
    told = {name for name, text in subject.signed().headers.items() if secret in text or text.startswith("Basic ")}

    told |= {"authorization"} if takes_basic(subject.verifier) else set()

    assert told == set(subject.verifier.credentials)


# --- no bytes make any of them raise ----------------------------------------------------------------------------------

ODD = ["", "t=1,v1=", "v1,", "1" * 400, "=" * 9, "Basic", "Basic =", "\ud800"]
JUNK = st.one_of(st.text(max_size=40), st.sampled_from(ODD))
FIELDS = ["Type", "Signature", "SigningCertURL", "signature", "token", "amount", "NotificationRequestItem"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=8,
)


@st.composite
def hostile(draw: st.DrawFn, subject: Subject) -> Delivery:
    """Anything between pure noise and a signed delivery."""
    signed = subject.signed()
    kept = draw(st.sets(st.sampled_from(sorted(signed.headers))))
    changed = {
        name: draw(st.one_of(JUNK, st.text(max_size=4).map((text[:9] + "{}" + text[9:]).format)))
        for name, text in signed.headers.items()
    }
    return replace(
        signed,
        headers={**changed, **{name: signed.headers[name] for name in kept}},
        body=draw(st.one_of(st.just(signed.body), st.binary(max_size=60), changed_body(signed.body))),
        query=draw(st.one_of(st.just(signed.query), JUNK)),
        url=draw(st.one_of(st.just(signed.url), JUNK)),
    )


def as_form(fields: list[tuple[str, str]]) -> bytes:
    return "&".join(f"{name}={text}" for name, text in fields).encode("utf-8", "replace")


def changed_body(body: bytes) -> st.SearchStrategy[bytes]:
    """A form's fields, or those of a JSON object, with other values."""
    if not body.startswith(b"{"):
        field = st.tuples(st.sampled_from(["bt_signature", "bt_payload", "token", "signature", "timestamp"]), JUNK)
        return st.lists(field).map(as_form)
    parsed = json.loads(body)
    fields = st.sampled_from([*parsed, "signature", "notificationItems"])
    return st.dictionaries(fields, VALUES).map(lambda changes: json.dumps({**parsed, **changes}).encode())


@each
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_bytes_make_it_raise(subject: Subject, data: st.DataObject) -> None:
    delivery = data.draw(hostile(subject))
    secrets = data.draw(st.lists(st.one_of(JUNK, st.just(subject.specimen().secret)), max_size=3))
    limit_s = data.draw(st.sampled_from([None, 0, 9]))
    verdict = subject.verifier.verify(delivery, secrets, now_ms=NOW, tolerance_s=limit_s)

    assert isinstance(verdict, (Accepted, Refused, NeedsCertificate))
