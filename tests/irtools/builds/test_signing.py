"""Signatures of releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from irtools.builds.signing import check_key, sign_release, why_not_signed
from irtools.errors import FileError

pytestmark = pytest.mark.signing


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "model.onnx").write_bytes(b"model")
    (folder / "irtools.json").write_text("{}")
    return folder


def test_a_signature_holds_until_a_file_changes(release: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert why_not_signed(release, public) == "there is no model.sig"
    sign_release(release, private)
    assert why_not_signed(release, public) == ""
    (release / "irtools.json").write_text("{ }")
    assert why_not_signed(release, public).startswith("it does not hold: ")


def test_another_key_and_another_file_are_refused(
    release: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    sign_release(release, private)
    (release / "more").write_text("x")
    assert why_not_signed(release, public).startswith("it does not hold: ")
    with pytest.raises(FileError, match="there is no key"):
        check_key(tmp_path / "missing.pem")
    with pytest.raises(FileError, match="cannot sign with"):
        sign_release(release, public)
    with pytest.raises(FileError, match=r"cannot verify with .*more: it is not a key in PEM"):
        why_not_signed(release, release / "more")


def test_keys_of_other_kinds_are_refused_before_anything_is_built(
    release: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(65537, 2048)
    private, public, locked = (tmp_path / name for name in ("rsa.pem", "rsa.pub", "locked.pem"))
    form, pem = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    private.write_bytes(made.private_bytes(pem, form, serialization.NoEncryption()))
    locked.write_bytes(made.private_bytes(pem, form, serialization.BestAvailableEncryption(b"x")))
    public.write_bytes(
        made.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    check_key(keys[0], signs=True)
    for key, line in (
        (private, "cannot sign with .*rsa.pem: it is not an elliptic-curve key"),
        (locked, "cannot sign with .*locked.pem: Password was not given"),
        (keys[1], "cannot sign with .*key.pub: Valid PEM but no"),
        (release / "irtools.json", "cannot sign with .*irtools.json: it is not a key in PEM"),
    ):
        check_key(key)
        with pytest.raises(FileError, match=line):
            check_key(key, signs=True)
    sign_release(release, keys[0])
    with pytest.raises(FileError, match=r"cannot verify with .*rsa.pub: it is not an elliptic"):
        why_not_signed(release, public)
