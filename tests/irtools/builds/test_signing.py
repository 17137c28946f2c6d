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
    with pytest.raises(FileError, match="cannot verify with"):
        why_not_signed(release, release / "more")
