"""A run's identity: shown nowhere, and known by nobody else."""

import os
import ssl

import pytest

from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.registry.identity import RunIdentity


def test_the_key_is_in_no_text_but_the_one_that_is_meant_to_carry_it():
    address = RegistryAddress("h:1", "/tfos/j/r", "s3cret", 1.0, 2.0, RunIdentity.draw())
    line = address.identity.key.splitlines()[1]
    assert line not in repr(address)
    assert "s3cret" not in repr(address)
    assert RegistryAddress.from_text(address.to_text()) == address


def test_an_address_of_an_ensemble_has_none():
    address = RegistryAddress("h:1", "/tfos/j/r", "s3cret", 1.0, 2.0)
    assert RegistryAddress.from_text(address.to_text()) == address


def test_the_key_is_loaded_from_no_disk_and_no_file_stays_open(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    before = os.listdir("/proc/self/fd")
    RunIdentity.draw().client_context()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("same", [True, False])
def test_a_client_takes_no_server_but_its_own(same, tmp_path):
    server = RunIdentity.draw()
    keys = tmp_path / "server.pem"
    keys.write_text(server.pem)
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(keys)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    their_end = listening.wrap_bio(to_server, to_client, server_side=True)
    client = (server if same else RunIdentity.draw()).client_context()
    our_end = client.wrap_bio(to_client, to_server)
    for step in (our_end, their_end):
        with pytest.raises(ssl.SSLWantReadError):
            step.do_handshake()
    if same:
        our_end.do_handshake()
        assert our_end.version() == "TLSv1.3"
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            our_end.do_handshake()
