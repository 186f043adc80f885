"""Ed25519 signatures over records, by keys in PEM files as ``openssl`` makes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.errors import RecipeError, first_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_PRIVATE = "openssl genpkey -algorithm ed25519 -out audit.key"
_PUBLIC = "openssl pkey -in audit.key -pubout -out audit.pub"


def message_of(number: int, digest: str) -> bytes:
    """Return what is signed of a record: its number and its digest, which covers all else."""
    return f"amnesis.audit/1 {number} {digest}".encode("ascii")


def read_private_key(path: Path) -> tuple[Ed25519PrivateKey, str | None]:
    """Return a private key, and a warning where others than its owner can read the file.

    Raises:
        RecipeError: there is no such file, it holds no unencrypted Ed25519 key, or cryptography is
            not installed.
    """
    check_cryptography("--key")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_pem(path), password=None)
    except TypeError:
        raise RecipeError(
            f"{path}: is encrypted, and an audit asks for no password; write it without one to a "
            f"file that you alone can read: openssl pkey -in {path} -out audit.key"
        ) from None
    except Exception as error:  # the library raises many kinds
        raise RecipeError(
            f"{path}: no private key in PEM ({first_line(error)}); make one: {_PRIVATE}"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RecipeError(f"{path}: is no Ed25519 key; make one: {_PRIVATE}")
    mode = path.stat().st_mode & 0o777
    warning = None
    if mode & 0o077:
        warning = f"{path}: others can read this private key (mode {mode:o}); chmod 600 {path}"
    return key, warning


def read_public_key(path: Path) -> str:
    """Return a public key as hexadecimal digits.

    Raises:
        RecipeError: there is no such file, it holds no Ed25519 key, or cryptography is not
            installed.
    """
    check_cryptography("--public-key")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_pem(path))
    except Exception as error:  # the library raises many kinds
        raise RecipeError(
            f"{path}: no public key in PEM ({first_line(error)}); make it from the private one: "
            f"{_PUBLIC}"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise RecipeError(f"{path}: is no Ed25519 key; its private one is made by {_PRIVATE}")
    return hexadecimal(key)


def sign(number: int, digest: str, key: Ed25519PrivateKey) -> dict[str, str]:
    """Return the signature of a record."""
    signature = key.sign(message_of(number, digest))
    return {"key": hexadecimal(key.public_key()), "ed25519": signature.hex()}


def is_signed_by(number: int, digest: str, key: str, signature: str) -> bool:
    """Whether a record's signature is right; ``key`` is the public one, hexadecimal as it is."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw_key, raw_signature = bytes.fromhex(key), bytes.fromhex(signature)
        Ed25519PublicKey.from_public_bytes(raw_key).verify(
            raw_signature, message_of(number, digest)
        )
    except (InvalidSignature, ValueError):
        return False
    return (raw_key.hex(), raw_signature.hex()) == (key, signature)  # digits in lower case


def hexadecimal(key: Ed25519PublicKey) -> str:
    """Return a public key's 32 bytes as hexadecimal digits."""
    return str(key.public_bytes_raw().hex())


def check_cryptography(what: str) -> None:
    """Refuse what needs signatures where the library for them is missing.

    Raises:
        RecipeError: it is; ``what`` needs it.
    """
    if not has_cryptography():
        raise RecipeError(f"{what}: signatures need cryptography: pip install 'amnesis[audit]'")


def has_cryptography() -> bool:
    """Whether signatures can be made and checked here."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


def _pem(path: Path) -> Any:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
