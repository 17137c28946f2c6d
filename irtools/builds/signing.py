"""Signatures of releases by `model-signing` (OpenSSF): one signature over all files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irtools.builds.release import SIGNATURE_FILE
from irtools.errors import FileError, MissingExtraError

__all__ = ["check_key", "sign_release", "why_not_signed"]


def check_key(key: Path, *, signs: bool = False) -> None:
    """Refuse a key that is not there, or that cannot sign, before hours of work.

    Args:
        key: The key.
        signs: It is a private key that is to sign something.

    Raises:
        FileError: It cannot be read, or cannot be used.
        MissingExtraError: `model-signing` is not installed.
    """
    if not key.is_file():
        raise FileError(f"there is no key {key}")
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("a signature", "signing") from error
    if signs:
        _signer(key)


def sign_release(folder: Path, key: Path) -> None:
    """Sign every file of a folder with a private elliptic-curve key in PEM.

    Raises:
        FileError: The key cannot be used.
    """
    from model_signing import hashing

    signature = folder / SIGNATURE_FILE
    ignored = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    config = _signer(key).set_hashing_config(ignored)
    with _naming(key, "sign"):
        config.sign(folder, signature)


def why_not_signed(folder: Path, key: Path) -> str:
    """Return why the signature of a folder does not hold for a public key; empty where it does.

    Raises:
        FileError: The key cannot be used.
    """
    from model_signing import hashing, verifying

    signature = folder / SIGNATURE_FILE
    if not signature.is_file():
        return f"there is no {SIGNATURE_FILE}"
    ignored = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    with _naming(key, "verify"):
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    try:
        config.set_hashing_config(ignored).verify(folder, signature)
    except Exception as error:  # The package raises many kinds, of cryptography as well.
        return f"it does not hold: {' '.join(str(error).split()) or type(error).__name__}"
    return ""


def _signer(key: Path) -> Any:
    from model_signing import signing

    with _naming(key, "sign"):
        return signing.Config().use_elliptic_key_signer(private_key=key)


@contextmanager
def _naming(key: Path, what: str) -> Iterator[None]:
    try:
        yield
    except AttributeError as error:  # Of a key of another kind, which has no curve.
        raise FileError(f"cannot {what} with {key}: it is not an elliptic-curve key") from error
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        why = "it is not a key in PEM" if "Unable to load PEM" in text else text
        raise FileError(f"cannot {what} with {key}: {why}") from error
