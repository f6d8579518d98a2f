"""What of the hypervisor's side needs no hypervisor: command lines, keys, domain XML, recorded words."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.lab.hypervisor import accelerator, kept, keys
from testbed.lab.hypervisor.guest import GuestSpec, domain_xml
from testbed.lab.hypervisor.images import ImageSet
from testbed.lab.hypervisor.machine import Accelerator, MachineSpec, command_line, mac
from testbed.lab.namespaces import start_ticks

IMAGES = ImageSet(Path("/cache/images/0123456789abcdef"))


def spec(accelerator: Accelerator = "tcg", number: int = 1) -> MachineSpec:
    taps = ("xen-a-oob", "xen-a-eid", "xen-a-mig")
    return MachineSpec("xen-a", number, accelerator, 1024, 512, taps, (("name", "xen-a"), ("migration", "10.1.1.2/24")))


def test_the_command_line_names_everything_a_saved_state_depends_on() -> None:
    line = command_line(spec(), IMAGES, Path("/lab"), Path("/console.log"))
    joined = " ".join(line)
    assert "-accel tcg,thread=multi -cpu qemu64,+npt,+rdrand" in joined
    assert "testbed.name=xen-a testbed.migration=10.1.1.2/24" in joined
    assert "dom0_mem=512M,max:512M" in joined
    assert [word for word in line if word.startswith("tap,")] == [
        f"tap,id=net{i},ifname=xen-a-{kind},script=no,downscript=no" for i, kind in enumerate(("oob", "eid", "mig"))
    ]
    assert "-incoming" not in line
    assert command_line(spec(), IMAGES, Path("/lab"), Path("/c"), incoming=True)[-2:] == ["-incoming", "defer"]


def test_kvm_passes_the_processor_through() -> None:
    joined = " ".join(command_line(spec("kvm"), IMAGES, Path("/lab"), Path("/c")))
    assert "-accel kvm -cpu host" in joined


@pytest.fixture
def proofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ImageSet]:
    """The proofs that were made, each of which finds that KVM does not work."""
    made: list[ImageSet] = []

    def prove(images: ImageSet) -> accelerator.Choice:
        made.append(images)
        return accelerator.Choice("tcg", "not one line on the console")

    monkeypatch.setattr(accelerator, "KVM", tmp_path)
    monkeypatch.setattr(accelerator, "prove", prove)
    monkeypatch.setattr(accelerator, "qemu_version", lambda: "QEMU emulator version 7.2")
    monkeypatch.setenv("TESTBED_RUNTIME", str(tmp_path / "run"))
    return made


def test_whether_kvm_works_is_proved_once(proofs: list[ImageSet]) -> None:
    first = accelerator.choose("auto", IMAGES)
    assert accelerator.choose("auto", IMAGES) == first
    assert len(proofs) == 1
    accelerator.choose("auto", ImageSet(Path("/cache/images/fedcba9876543210")))
    assert len(proofs) == 2


def test_who_may_not_keep_the_proof_has_it_all_the_same(
    proofs: list[ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", refused)
    assert accelerator.choose("auto", IMAGES).accelerator == "tcg"
    assert len(proofs) == 1


def test_macs_are_unique() -> None:
    macs = {mac(number, index) for number in range(1, 201) for index in range(3)}
    assert len(macs) == 600


def test_keys_are_secret_and_of_one_lab(tmp_path: Path) -> None:
    first, second = keys.generate(), keys.generate()
    assert first.client_pem != second.client_pem
    assert first.host_public != second.host_public
    first.save(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.LabKeys.load(tmp_path / "keys") == first


def test_the_seed_archive_has_what_the_init_unpacks() -> None:
    made = keys.generate()
    archive = made.seed_archive()
    assert len(archive) % 512 == 0  # a disk has whole sectors
    with tarfile.open(fileobj=io.BytesIO(archive)) as unpacked:
        names = {member.name: member.mode for member in unpacked}
        assert names == {"root/.ssh/authorized_keys": 0o600, "etc/dropbear/host_key": 0o600}
        host_key = unpacked.extractfile("etc/dropbear/host_key")
        assert host_key is not None
        # Dropbear's format: the type as a string, 64, private half, public half.
        blob = host_key.read()
    assert blob[:15] == b"\0\0\0\x0bssh-ed25519"
    assert blob[15:19] == (64).to_bytes(4, "big")
    assert blob[51:] == keys.public_key_bytes(made.host_public)[-32:]


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old and open")
    path.chmod(0o644)
    keys.write_secret(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"new"


def test_domain_xml() -> None:
    guest = GuestSpec(
        "vm1", "11111111-2222-3333-4444-555555555555", "00:16:3e:00:00:01", "192.168.0.10/24", "192.168.0.1", 96, 2
    )
    root = ET.fromstring(domain_xml(guest))
    assert root.get("type") == "xen"
    assert root.findtext("name") == "vm1"
    assert root.findtext("memory") == "96"
    assert root.findtext("vcpu") == "2"
    assert root.find("os/type").get("machine") == "xenpvh"  # type: ignore[union-attr]
    words = (root.findtext("os/cmdline") or "").split()
    assert {"testbed.address=192.168.0.10/24", "testbed.prober="} <= set(words)
    asking = domain_xml(replace(guest, prober="192.168.3.10,10000000,icmp,udp"))
    assert "testbed.prober=192.168.3.10,10000000,icmp,udp" in asking
    assert root.find("devices/interface/mac").get("address") == "00:16:3e:00:00:01"  # type: ignore[union-attr]
    assert root.find("devices/disk") is None  # nothing that ties the guest to a host


def test_the_kernels_words_take_an_ipv6_address() -> None:
    guest = GuestSpec("vm1", "u", "00:16:3e:00:00:01", "fd00:0:0:1::10/64", "fd00:0:0:1::1", 96, 1)
    words = (ET.fromstring(domain_xml(guest)).findtext("os/cmdline") or "").split()
    assert {"testbed.address=fd00:0:0:1::10/64", "testbed.gateway=fd00:0:0:1::1"} <= set(words)


def test_domain_xml_escapes() -> None:
    guest = GuestSpec("a<b>'&", "u", "m", "a", "g", 96, 1)
    assert ET.fromstring(domain_xml(guest)).findtext("name") == "a<b>'&"


def test_a_process_is_known_by_pid_and_start() -> None:
    assert start_ticks(1) < start_ticks(int(Path("/proc/self").resolve().name))
    with pytest.raises(OSError, match="No such file"):
        start_ticks(4_194_305)  # above the highest PID there can be


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "newer", "older", "oldest")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, ns=(10**18 - age, 10**18 - age))
    (tmp_path / "half.partial").mkdir()
    kept.used(tmp_path / "oldest", keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.partial", "newest", "oldest"]
