"""Keys of one lab: an SSH key pair for the orchestrator and the hosts' SSH host key. Never shared between labs."""

from __future__ import annotations

import base64
import io
import os
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

RAW = serialization.Encoding.Raw
OPENSSH = serialization.Encoding.OpenSSH


@dataclass(frozen=True, slots=True)
class LabKeys:
    """The keys of one lab; `client_pem` and `host_key_dropbear` are secrets."""

    client_pem: bytes
    client_public: str
    host_key_dropbear: bytes
    host_public: str

    def save(self, folder: Path) -> None:
        """Write the keys into `folder` (made 0700), each file 0600."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        for name, content in (
            ("client", self.client_pem),
            ("client.pub", self.client_public.encode()),
            ("host_key", self.host_key_dropbear),
            ("host.pub", self.host_public.encode()),
        ):
            write_secret(folder / name, content)

    @classmethod
    def load(cls, folder: Path) -> LabKeys:
        """Read what `save` wrote."""
        return cls(
            (folder / "client").read_bytes(),
            (folder / "client.pub").read_text(),
            (folder / "host_key").read_bytes(),
            (folder / "host.pub").read_text(),
        )

    def seed_archive(self) -> bytes:
        """The tar archive that dom0's init unpacks from the second disk."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, content in (
                ("root/.ssh/authorized_keys", self.client_public.encode() + b"\n"),
                ("etc/dropbear/host_key", self.host_key_dropbear),
            ):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o600
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def generate() -> LabKeys:
    """Make new Ed25519 keys."""
    client, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    pem = client.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return LabKeys(pem, _public(client), _dropbear(host), _public(host))


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(OPENSSH, serialization.PublicFormat.OpenSSH).decode()


def _dropbear(key: Ed25519PrivateKey) -> bytes:
    """Dropbear's own host key format: the type's name, then the private and the public half."""
    private = key.private_bytes(RAW, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    public = key.public_key().public_bytes(RAW, serialization.PublicFormat.Raw)
    kind = b"ssh-ed25519"
    return struct.pack(">I", len(kind)) + kind + struct.pack(">I", 64) + private + public


def public_key_bytes(public: str) -> bytes:
    """The binary form of a public key line."""
    return base64.b64decode(public.split()[1])
