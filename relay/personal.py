"""What looks like personal data: the detectors behind the guard.

In: one text, one number or one key. Out: the kind of personal data that it holds, or None. The ids, dates, amounts,
versions and hashes that providers send are not taken for any. Most texts are ids, so a cheap look comes first.
"""

from __future__ import annotations

import html
import ipaddress
import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum, StrEnum, auto
from functools import cache, lru_cache
from urllib.parse import unquote, unquote_plus


class Kind(StrEnum):
    """What was found. The value is what logs and pages show."""

    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    PHONE = "phone"
    IP = "ip"
    KEY = "personal_key"  #: the key itself names personal data
    USERINFO = "userinfo"  #: user and password in a URL


# --- the cheap look ---------------------------------------------------------------------------------------------------

#: Of each byte, its class: digit, capital, small letter, anything else; what may stand between digits is left out.
_SHAPE = bytes.maketrans(
    bytes(range(256)),
    bytes(
        ord("0" if letter.isdigit() else "A" if letter.isupper() else "a" if letter.islower() else "!")
        for letter in (bytes((byte,)) for byte in range(256))
    ),
)
_BETWEEN = b" -./()_"
_MANY_DIGITS = b"0" * 9
_IBAN_HEAD = b"AA00"
_IBAN_SHAPE = re.compile(rb"AA00[A0]{11}")
_DOTTED = re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d")
_COLONED = re.compile(r"::|(?:[0-9A-Fa-f]{1,4}:){3}")


def looks_clean(text: str) -> bool:
    """True: there is nothing in it. False: look closely. Several texts may be looked at as one, joined by newlines."""
    if not text.isascii() or "@" in text or "%" in text or "+" in text or "&" in text:
        return False
    if text.count(".") > 2 and _DOTTED.search(text):  # noqa: PLR2004  an IPv4 address has three
        return False
    if text.count(":") > 1 and _COLONED.search(text):
        return False
    shape = text.encode().translate(_SHAPE, _BETWEEN)
    return _MANY_DIGITS not in shape and not (_IBAN_HEAD in shape and _IBAN_SHAPE.search(shape))


# --- texts ------------------------------------------------------------------------------------------------------------

#: Ids that are known for what they are: UUIDs and hexadecimal digests, with a prefix or without.
_KNOWN_ID = re.compile(
    r"(?:[a-z]{1,12}_)?(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}"
    r"|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})",
    re.IGNORECASE,
)


def kind_of(text: str) -> Kind | None:
    """The kind of personal data in a text, percent-encoded, escaped or in other scripts' digits included."""
    if looks_clean(text) or _KNOWN_ID.fullmatch(text):
        return None
    return next((kind for reading in readings(text) if (kind := _kind_in(reading))), None)


def _kind_in(text: str) -> Kind | None:
    if "@" in text and _EMAIL.search(text):
        return Kind.EMAIL
    if _has_iban(text):
        return Kind.IBAN
    if _has_phone(text):
        return Kind.PHONE
    if _has_card(text):
        return Kind.CARD
    if _has_ip(text):
        return Kind.IP
    return None


def readings(text: str) -> tuple[str, ...]:
    """The text and what it becomes when it is decoded the way browsers and pages do, up to four times."""
    found = {text: None}
    if "%" in text or "+" in text:
        for decode in (unquote, unquote_plus):
            decoded = text
            for _ in range(4):
                decoded = decode(decoded)
                found[decoded] = None
    found |= dict.fromkeys([html.unescape(reading) for reading in found if "&" in reading])
    return tuple(dict.fromkeys(reading if reading.isascii() else _in_ascii_digits(reading) for reading in found))


def _in_ascii_digits(text: str) -> str:
    """Full-width and other scripts' digits, spaces and dashes as ASCII; invisible characters left out."""
    return "".join(_plain(character) for character in unicodedata.normalize("NFKC", text))


def _plain(character: str) -> str:
    match unicodedata.category(character):
        case "Nd":
            return str(unicodedata.decimal(character))
        case "Zs":
            return " "
        case "Pd":
            return "-"
        case "Cf":
            return ""
        case _:
            return character


#: Anchored on the sign: a mailbox's last character before it, a domain of two levels behind it; not `logo@2x.png`.
_EMAIL = re.compile(r"[^\s@/=:(),;<>&?#\[\]\\]@(?!\dx\.)(?:[\w-]+\.)+(?:[^\W\d_]{2}|xn--\w)")

_PHONES = (
    re.compile(r"(?<!\d)\+[1-9](?:[ .()/-]{0,3}\d){7,14}(?!\d)"),  # +49 (0)151 2345-678
    re.compile(r"(?<!\d)(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\d)"),  # (555) 123-4567
    re.compile(r"(?<!\d)\(\d{2}\) ?\d{4,5}[ -]\d{4}(?!\d)"),  # (11) 91234-5678
    re.compile(r"\(0\d{1,4}\) ?/? ?\d{3,8}(?:[ .-]\d{2,6}){0,3}(?!\d)"),  # (030) 123456
    re.compile(r"\b(?:tel|sms|callto|whatsapp):\+?(?:[ .()-]{0,2}\d){7,15}(?!\d)", re.IGNORECASE),
)
#: A national number with its trunk zero and one separator after the first: `030/123 456`, `06 12 34 56 78`.
_TRUNK_ZERO = re.compile(
    r"(?<![\w.,:/+-])0\d{1,4}(?: ?[/-] ?|[ .])\d{2,8}"
    r"(?:([ .-])\d{2,8}(?:\1\d{2,8}){0,3})?(?!\w|[.,:/-]\d)"
)
_FEWEST_TRUNK_DIGITS, _MOST_PHONE_DIGITS = 9, 15
_BARE_PHONE = re.compile(r"[ ./()+-]*(?:\d[ ./()-]*){6,15}")


def _has_phone(text: str) -> bool:
    if any(pattern.search(text) for pattern in _PHONES):
        return True
    return any(
        _FEWEST_TRUNK_DIGITS <= sum(map(str.isdigit, found[0])) <= _MOST_PHONE_DIGITS
        for found in _TRUNK_ZERO.finditer(text)
    )


def is_bare_phone(value: object) -> bool:
    """Whether it could be a phone number, under a key that names one."""
    return not isinstance(value, bool) and _BARE_PHONE.fullmatch(str(value)) is not None


# --- cards ------------------------------------------------------------------------------------------------------------

#: Issuers' prefixes with the lengths that they issue.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|095|[689]\d)\d{11}|3095\d{10}"  # Diners
    r"|(?:6011|64[4-9]\d|65\d\d|62\d\d|352[89]|35[3-8]\d|220[0-4])\d{12,15}"  # Discover, UnionPay, JCB, Mir
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{10,15}"  # Maestro
    r"|(?:60\d\d|508\d|5067|9792)\d{12}|636(?:297|368)\d{10}"  # RuPay, Elo, Troy
)
_DIGIT_RUN = re.compile(r"\d(?:[ .-]?\d){12,}")
_SHORTEST_CARD, _LONGEST_CARD = 13, 19


def _is_card(digits: str) -> bool:
    if not _CARD.fullmatch(digits):
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _has_card(text: str) -> bool:
    return any(_is_card(digits) for run in _DIGIT_RUN.finditer(text) for digits in _windows(re.split(r"[ .-]", run[0])))


def _windows(groups: list[str]) -> Iterator[str]:
    """Neighbouring groups of digits that have the length of a card number.

    Thirteen digits in one piece are left out: that is what order numbers look like, and no issuer's cards any more.
    """
    for start in range(len(groups)):
        digits = ""
        for group in groups[start:]:
            digits += group
            if len(digits) > _LONGEST_CARD:
                break
            if len(digits) > _SHORTEST_CARD or (len(digits) == _SHORTEST_CARD and group != digits):
                yield digits


def is_large(value: object) -> bool:
    """Whether it is a number with as many digits as a card number has."""
    if isinstance(value, Decimal):
        return value.is_finite() and _SHORTEST_CARD <= value.adjusted() < _LONGEST_CARD
    return isinstance(value, (int, float)) and not -(10**_SHORTEST_CARD) < value < 10**_SHORTEST_CARD


def kind_of_number(value: float | Decimal) -> Kind | None:
    """A card number that was sent as a number."""
    exact = Decimal(value)
    if not is_large(exact):
        return None
    whole, _, fraction = format(abs(exact), "f").partition(".")
    return Kind.CARD if not fraction.strip("0") and _is_card(whole) else None


# --- IBANs ------------------------------------------------------------------------------------------------------------

#: By country, what follows the check digits: n digits, a letters, c both (ISO 13616, SWIFT's registry).
_REGISTRY = """
AD:8n12c AE:19n AL:8n16c AT:16n AZ:4a20c BA:16n BE:12n BG:4a6n8c BH:4a14c BI:23n BR:23n1a1c BY:4c4n16c CH:5n12c
CR:18n CY:8n16c CZ:20n DE:18n DJ:23n DK:14n DO:4c20n EE:16n EG:25n ES:20n FI:14n FK:2a12n FO:14n FR:10n11c2n
GB:4a14n GE:2a16n GI:4a15c GL:14n GR:7n16c GT:4c20c HN:4a20n HR:17n HU:24n IE:4a14n IL:19n IQ:4a15n IS:22n
IT:1a10n12c JO:4a4n18c KW:4a22c KZ:3n13c LB:4n20c LC:4a24c LI:5n12c LT:16n LU:3n13c LV:4a13c LY:21n MC:10n11c2n
MD:2c18c ME:18n MK:3n10c2n MN:16n MR:23n MT:4a5n18c MU:4a19n3a NI:4a20n NL:4a10n NO:11n OM:3n16c PK:4a16c
PL:24n PS:4a21c PT:21n QA:4a21c RO:4a16c RS:18n RU:14n15c SA:2n18c SC:4a20n3a SD:14n SE:20n SI:15n SK:20n
SM:1a10n12c SO:19n ST:21n SV:4a20n TL:19n TN:20n TR:6n16c UA:6n19c VA:18n VG:4a16n XK:16n YE:4a4n18c
"""
_BBAN = dict(entry.split(":") for entry in _REGISTRY.split())
_IBAN_START = re.compile(r"(?=([A-Za-z]{2})[ -]?\d[ -]?\d)")
_BBAN_PART = re.compile(r"(\d+)([nac])")
_IN_BBAN = {"n": r"\d", "a": "[A-Z]", "c": "[A-Z0-9]"}


@cache
def _iban_of(country: str) -> re.Pattern[str] | None:
    bban = _BBAN.get(country)
    if bban is None:
        return None
    parts = "".join(rf"(?:[ -]?{_IN_BBAN[kind]}){{{count}}}" for count, kind in _BBAN_PART.findall(bban))
    return re.compile(rf"{country}[ -]?\d[ -]?\d{parts}", re.IGNORECASE)


def _has_iban(text: str) -> bool:
    for start in _IBAN_START.finditer(text):
        pattern = _iban_of(start[1].upper())
        found = pattern.match(text, start.start()) if pattern else None
        if found and (found[0].isupper() or _stands_alone(found)) and _is_iban(found[0]):
            return True
    return False


def _is_iban(text: str) -> bool:
    compact = text.replace(" ", "").replace("-", "").upper()
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def _stands_alone(found: re.Match[str]) -> bool:
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return not before.isalnum() and not after.isalnum()


# --- IP addresses -----------------------------------------------------------------------------------------------------

_OCTET = r"(?:25[0-5]|2[0-4]\d|[01]?\d?\d)"
_IPV4 = re.compile(rf"(?<!\d)(?<!\d\.)(?:{_OCTET}\.){{3}}{_OCTET}(?!\d|\.\d)")
_IPV6_RUN = re.compile(r"[0-9A-Fa-f:.]+")
_FEWEST_STRONG_GROUPS = 3


def _has_ip(text: str) -> bool:
    if _IPV4.search(text):
        return True
    return text.count(":") > 1 and any(_is_ipv6(run) for run in _IPV6_RUN.finditer(text))


def _is_ipv6(run: re.Match[str]) -> bool:
    """A short address (`fe80::1`) must stand alone: `std::vector` and `a::b` hold colons too."""
    if run[0].count(":") < 2:  # noqa: PLR2004  the shortest is `::1`
        return False
    address = run[0].strip(".")
    if address.startswith(":") and not address.startswith("::"):
        address = address[1:]
    if address.endswith(":") and not address.endswith("::"):
        address = address[:-1]
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    groups = [group for group in address.split(":") if group]
    has_digit = any(character.isdigit() for character in address)
    return has_digit and (len(groups) >= _FEWEST_STRONG_GROUPS or _stands_alone(run))


# --- keys -------------------------------------------------------------------------------------------------------------

_ROLES = """
user customer client buyer payer payee shopper subscriber member guest attendee invitee recipient contact person owner
holder cardholder card_holder account_holder billing shipping delivery sender from to reply_to receipt primary home work
personal lead donor patient student employee
"""
_NOUNS = """
name full_name fullname first_name firstname last_name lastname middle_name given_name family_name surname forename
maiden_name display_name nick_name nickname username legal_name
email e_mail mail emails email_address e_mail_address mail_address emailaddress
phone phones phone_number phonenumber mobile mobile_phone mobile_number cell cell_phone cellphone tel telephone
telephone_number fax fax_number msisdn whatsapp
address addresses address1 address2 address_1 address_2 address_line1 address_line2 address_line_1 address_line_2
line1 line2 street street1 street2 street_address street_name house_number postal_code postalcode postcode post_code
zip zip_code zipcode
ip ips ip_address ip_addr ipaddress ipv4 ipv6 remote_ip remote_addr client_ip last_ip x_forwarded_for
birthday birth_date birthdate date_of_birth dob birth_day ssn social_security_number national_id passport
passport_number id_card tax_id tax_number vat_id vat_number iban account_number card_number cardnumber credit_card
credit_card_number cc_number pan cvc cvv password passwd
"""
#: Compared as a whole: `product_name` and `coupon_name` are no one's name.
_PERSONAL_KEYS = frozenset(_NOUNS.split()) | {f"{role}_{noun}" for role in _ROLES.split() for noun in _NOUNS.split()}
_PHONE_WORDS = frozenset(("phone", "phones", "mobile", "cell", "tel", "telephone", "fax", "msisdn", "whatsapp", "sms"))
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


class About(Enum):
    """What a key says of its value."""

    NOTHING = auto()
    PERSON = auto()  #: it names personal data
    PHONE = auto()  #: it names a phone: bare digits under it are its number
    ITSELF = auto()  #: the key holds personal data


@lru_cache(maxsize=4096)
def about_key(key: str) -> About:
    """`customerEmail`, `customer-email` and `customer[email]` are one key."""
    name = _NOT_A_WORD.sub("_", _WORD_START.sub("_", key).lower()).strip("_")
    if name in _PERSONAL_KEYS:
        return About.PERSON
    if kind_of(key):
        return About.ITSELF
    return About.NOTHING if _PHONE_WORDS.isdisjoint(name.split("_")) else About.PHONE
