"""Signatures of releases by `model-signing` (OpenSSF): one signature over all files."""

from __future__ import annotations

from pathlib import Path

from irtools.builds.release import SIGNATURE_FILE
from irtools.errors import FileError, MissingExtraError

__all__ = ["check_key", "sign_release", "why_not_signed"]


def check_key(key: Path) -> None:
    """Refuse a key that is not there before hours of work.

    Raises:
        FileError: It cannot be read.
        MissingExtraError: `model-signing` is not installed.
    """
    if not key.is_file():
        raise FileError(f"there is no key {key}")
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("a signature", "signing") from error


def sign_release(folder: Path, key: Path) -> None:
    """Sign every file of a folder with a private elliptic-curve key in PEM.

    Raises:
        FileError: The key cannot be used.
    """
    from model_signing import hashing, signing

    signature = folder / SIGNATURE_FILE
    ignored = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(ignored).sign(folder, signature)
    except (ValueError, TypeError) as error:
        raise FileError(f"cannot sign with {key}: {error}") from error


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
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError) as error:
        raise FileError(f"cannot verify with {key}: {error}") from error
    try:
        config.set_hashing_config(ignored).verify(folder, signature)
    except Exception as error:  # The package raises many kinds, of cryptography as well.
        return f"it does not hold: {' '.join(str(error).split()) or type(error).__name__}"
    return ""
