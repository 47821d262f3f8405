import base64
import stat
from pathlib import Path

import pytest

from relay.vault import Vault, VaultError, key_file, parse_key

OLD, NEW = b"o" * 32, b"n" * 32


def test_what_is_sealed_opens() -> None:
    vault = Vault([NEW])

    assert vault.open(vault.seal(b"body" * 1000, row=7), row=7) == b"body" * 1000


def test_what_is_sealed_shows_nothing_and_is_smaller() -> None:
    blob = Vault([NEW]).seal(b"someone@example.com " * 100, row=7)

    assert b"someone" not in blob
    assert len(blob) < 200


def test_the_same_text_is_never_sealed_to_the_same_blob() -> None:
    vault = Vault([NEW])

    assert vault.seal(b"body", row=7) != vault.seal(b"body", row=7)


def test_after_a_rotation_old_blobs_open_and_new_ones_use_the_new_key() -> None:
    before = Vault([OLD]).seal(b"body", row=7)
    both = Vault([NEW, OLD])

    assert both.open(before, row=7) == b"body"
    assert Vault([NEW]).open(both.seal(b"body", row=7), row=7) == b"body"


def test_a_blob_of_an_unknown_key_says_so() -> None:
    with pytest.raises(VaultError, match="removed too early"):
        Vault([NEW]).open(Vault([OLD]).seal(b"body", row=7), row=7)


def test_a_blob_that_was_moved_to_another_row_does_not_open() -> None:
    vault = Vault([NEW])

    with pytest.raises(VaultError, match="another row"):
        vault.open(vault.seal(b"body", row=7), row=8)


def test_a_blob_that_was_changed_does_not_open() -> None:
    vault = Vault([NEW])
    blob = bytearray(vault.seal(b"body", row=7))
    blob[-1] ^= 1

    with pytest.raises(VaultError, match="changed"):
        vault.open(bytes(blob), row=7)


@pytest.mark.parametrize("text", ["", "short", "k" * 32, base64.b64encode(b"k" * 31).decode(), "%%%"])
def test_a_key_that_is_none_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(VaultError, match="openssl rand -base64 32"):
        parse_key(text)


def test_keys_come_in_either_base64() -> None:
    key = bytes([251, 255]) * 16

    assert parse_key(base64.b64encode(key).decode()) == key
    assert parse_key(base64.urlsafe_b64encode(key).decode()) == key


def test_a_key_file_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "var" / "relay.db.key"

    key, is_new = key_file(path)

    assert is_new
    assert key_file(path) == (key, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_vault_without_a_key_is_refused() -> None:
    with pytest.raises(VaultError):
        Vault([])
