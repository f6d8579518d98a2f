"""What the tests of the network do inside a lab of their own; each returns plain data to judge outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from testbed.lab.network import Network, NetworkError
from testbed.lab.network.processes import run
from testbed.plan import Plan, build_plan
from testbed.spec import load_topology
from tests.netns.own_lab import ROOT, lab_command
from tests.waiting import wait_until

TOPOLOGY = ROOT / "topologies/two-sites.yaml"
ACCESS_LINK = "link: {delay_ms: 5, rate_mbit: 1000, mtu: 9000}"


def reap() -> None:
    """Wait for the orphans that fell to this process, as the first one of a PID namespace must."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                return
        except ChildProcessError:
            return


def two_sites(link: str = ACCESS_LINK) -> Plan:
    """Return the plan of two-sites with other access links."""
    text = TOPOLOGY.read_text()
    assert ACCESS_LINK in text, "the topology's links have changed: nothing would be replaced"
    return build_plan(load_topology(text.replace(ACCESS_LINK, link), TOPOLOGY.name))


def command_line(pid: str) -> str:
    """Return the command line of a process; "" if it is gone meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def seen() -> dict[str, list[str]]:
    """Return what a lab could leave on the machine: interfaces, processes, named namespaces, mounts."""
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    processes = []
    reap()
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid() and (line := command_line(pid)):
            processes.append(line)
    return {
        "links": sorted(line.split()[0] for line in links.splitlines()),
        "processes": sorted(processes),
        "namespaces": subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout.split(),
        # Named namespaces of others were copied with the machine's mounts, and go when they are removed.
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if "nsfs" not in line],
    }


def up(run_dir: str) -> dict[str, Any]:
    """Bring two-sites up and ask it everything the reference says of it."""
    before = seen()
    began = time.monotonic()
    with Network(two_sites(), Path(run_dir), backend="relay") as net:
        took_s = time.monotonic() - began
        impairments = [asdict(impairment) for impairment in net.impairments()]
        across = net.exec("xtr-a", ["ping", "-n", "-q", "-c", "20", "-i", "0.01", "-I", "10.0.1.2", "10.0.3.2"])
        answers = {
            "to-ms": net.exec("xtr-b", ["ping", "-n", "-c", "1", "10.0.0.2"]).returncode,
            "infrastructure": net.exec("xtr-a", ["ping", "-n", "-c", "1", "-I", "10.1.1.1", "10.1.2.1"]).returncode,
            "gateway": net.exec("correspondent", ["ping", "-n", "-c", "1", "192.168.3.1"]).returncode,
            # No xTR runs: an EID must not be reachable natively.
            "eid": net.exec("correspondent", ["ping", "-n", "-c", "1", "-W", "1", "192.168.0.1"]).returncode,
        }
        macs = [net.exec(f"xtr-{site}", ["cat", "/sys/class/net/eid0/address"]).stdout.strip() for site in "abc"]
        started = net.popen("ms", ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        echoed = started.communicate(b"said in the node")[0].decode()
        namespaces = {os.readlink(f"/proc/{pid}/ns/net") for pid in net.pids().values()}
        subprocess.run(["ip", "tuntap", "add", "tap-vm1", "mode", "tap"], check=True)
        net.attach_tap("eid-a", "tap-vm1")
        master = json.loads(run(["ip", "-json", "link", "show", "tap-vm1"]))[0]["master"]
        subprocess.run(["ip", "link", "delete", "tap-vm1"], check=True)
    return {
        "took_s": took_s,
        "impairments": impairments,
        "across": across.stdout,
        "answers": answers,
        "macs": macs,
        "echoed": echoed,
        "namespaces": len(namespaces),
        "master": master,
        "before": before,
        "after": seen(),
    }


RECEIVER = """
import json, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: room for all, however late this reads
s.bind(("10.0.1.1", 9000))
print("ready", flush=True)
got = []
while (data := s.recv(64)) != b"end":
    got.append(int(data))
print(json.dumps(got))
"""
SENDER = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("10.0.1.1", 9000))
for n in range(int(sys.argv[1])):
    s.send(str(n).encode())
    if n % 50 == 49:
        time.sleep(0.002)  # the receiver's buffer is no part of what is tested
for _ in range(50):
    s.send(b"end")
"""


def lossy(run_dir: str, packets: str, loss_percent: str, seed: str) -> list[int]:
    """Return which of the numbered packets a lossy link let through."""
    plan = two_sites(f"link: {{loss_percent: {loss_percent}}}")
    with Network(plan, Path(run_dir), seed=int(seed), backend="relay") as net:
        # Without ARP the numbered packets are the direction's first frames.
        mac = net.exec("core", ["cat", "/sys/class/net/to-a/address"]).stdout.strip()
        net.exec("xtr-a", ["ip", "neigh", "add", "10.0.1.1", "lladdr", mac, "dev", "rloc0", "nud", "permanent"])
        receiver = net.popen("core", [sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE)
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == b"ready\n"
        net.exec("xtr-a", [sys.executable, "-c", SENDER, packets])
        got = json.loads(receiver.communicate(timeout=20)[0])
    return [int(number) for number in got]


def jitter(run_dir: str) -> list[float]:
    """Return the round-trip times (ms) of pings over a link with jitter."""
    with Network(two_sites("link: {delay_ms: 10, jitter_ms: 1}"), Path(run_dir), backend="relay") as net:
        net.impairments()  # resolves addresses
        said = net.exec("xtr-a", ["ping", "-n", "-c", "300", "-i", "0.003", "10.0.1.1"]).stdout
    return [float(ms) for ms in re.findall(r"time=(\S+) ms", said)]


def relay_died(run_dir: str) -> str:
    """Kill the relay under a network that is up, and return what is said of it."""
    with Network(two_sites(), Path(run_dir), backend="relay") as net:
        relays = [pid for pid in os.listdir("/proc") if pid.isdigit() and "/relay-" in command_line(pid)]
        (relay,) = relays
        os.kill(int(relay), signal.SIGKILL)
        try:
            wait_until(lambda: not net.impairments(), "the relay's death is noticed")
        except NetworkError as error:
            return str(error)
    return ""


def rate(run_dir: str) -> dict[str, Any]:
    """Send more than the link's rate, and count what comes out in a second."""
    plan = two_sites("link: {rate_mbit: 20, queue_ms: 10}")
    with Network(plan, Path(run_dir), backend="relay") as net:
        # 1472 bytes of data are 1514 with headers; 3 a millisecond are 36 Mbit/s.
        sender = (
            "import socket,time\n"
            "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); end=time.monotonic()+1\n"
            "n=0; t0=time.monotonic()\n"
            "while time.monotonic()<end:\n"
            "    due=int((time.monotonic()-t0)*3000)\n"
            "    while n<due: s.sendto(b'x'*1472,('10.0.1.1',9)); n+=1\n"
            "    time.sleep(0.001)\n"
        )
        done = net.exec("xtr-a", [sys.executable, "-c", sender], timeout=30)
        assert done.returncode == 0, done.stderr
        link = next(i for i in net.impairments() if i.link == "core-a")
    return {"counters": [dict(counter) for counter in link.counters]}


def netem(run_dir: str) -> dict[str, Any]:
    """Bring links up with netem, or say why that fails."""
    before = seen()
    try:
        with Network(two_sites(), Path(run_dir), backend="netem") as net:
            return {"impairments": [asdict(impairment) for impairment in net.impairments()]}
    except NetworkError as error:
        return {"message": str(error), "before": before, "after": seen()}


def broken(run_dir: str) -> dict[str, Any]:
    """Fail in the middle of the bring-up: an interface's name is taken in the lab's root namespace."""
    subprocess.run(["ip", "link", "add", "eid-b", "type", "bridge"], check=True)
    before = seen()
    message = ""
    try:
        with Network(two_sites(), Path(run_dir), backend="relay"):
            pass
    except NetworkError as error:
        message = str(error)
    subprocess.run(["ip", "link", "delete", "eid-b"], check=False)
    after = seen()
    before["links"].remove("eid-b")
    return {"message": message, "before": before, "after": after}


def hold(run_dir: str) -> None:
    """Bring two-sites up, say so in a file, and stay until killed."""
    with Network(two_sites(), Path(run_dir), backend="relay"):
        (Path(run_dir) / "up").touch()
        sys.stdin.read()


def killed(run_dir: str) -> dict[str, Any]:
    """Kill -9 a lab that is up, from outside it; this function's own lab plays the machine."""
    before = seen()
    command = lab_command("tests.netns.cases_network", "hold", run_dir)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    outer = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE)
    wait_until((Path(run_dir) / "up").exists, "the lab is up", deadline_s=30)
    during = seen()
    outer.kill()
    outer.wait()
    wait_until(lambda: len(seen()["processes"]) <= len(before["processes"]), "its processes are gone")
    return {"before": before, "during": during, "after": seen()}
