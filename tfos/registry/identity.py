"""The key and certificate by which the processes of one run know each other in its ZooKeeper."""

from __future__ import annotations

import datetime
import os
import ssl
from dataclasses import dataclass, field

__all__ = ["RunIdentity"]


@dataclass(frozen=True)
class RunIdentity:
    """One key with its self-signed certificate, shared by a run's server and all its clients.

    Each side accepts the other by this very certificate, and nobody else, so that the first byte of
    ZooKeeper's protocol is exchanged between processes of the run. It is as secret as the run's
    secret and travels with it.

    Parameters
    ----------
    certificate, key
        PEM text.
    """

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def draw(cls) -> RunIdentity:
        """Return a new one: on the P-256 curve, in milliseconds. On the driver."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a run of tfos")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # It ends with the run; the hosts' clocks have no say in that.
            .not_valid_before(datetime.datetime(2000, 1, 1))
            .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(certificate.public_bytes(pem).decode(), private.decode())

    @property
    def pem(self) -> str:
        """Key and certificate as the text of one file."""
        return self.key + self.certificate

    def client_context(self) -> ssl.SSLContext:
        """Return what a client of the run's server connects with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # The only certificate that is trusted is the server's own: its name says nothing more.
        context.check_hostname = False
        context.load_verify_locations(cadata=self.certificate)
        # OpenSSL reads a key from a file only; this one is in memory, and gone at once.
        with open(os.memfd_create("tfos-identity"), "w") as file:
            file.write(self.pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return context
