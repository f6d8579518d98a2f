"""Ask a guest who it is: `python -m testbed.lab.agents.identity ADDRESS [DEADLINE_S]`.

The guest's service (images/guest/services.c) answers any datagram on UDP port 7007 with its boot ID and
uptime, printed here as one JSON object. Exit code 1 if nothing came before the deadline.
"""

from __future__ import annotations

import json
import socket
import sys
import time

PORT = 7007
RETRY_S = 0.25


def ask(address: str, deadline_s: float) -> dict[str, object] | None:
    """The guest's answer, or None; asks again every 0.25 s."""
    end = time.monotonic() + deadline_s
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(RETRY_S)
        while time.monotonic() < end:
            try:
                asking.sendto(b"who are you", (address, PORT))
                answer, (peer, *_) = asking.recvfrom(2048)
            except OSError:  # nothing yet, or an ICMP error: the guest is not there yet
                time.sleep(RETRY_S / 5)
                continue
            if peer == address:
                return dict(json.loads(answer))
    return None


def main() -> int:
    """Entry point."""
    answer = ask(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5.0)
    if answer is None:
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
