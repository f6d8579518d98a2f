"""The Map-Server's and Map-Resolver's process: `python -m testbed.lab.agents.mapserver CONFIG.json`."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import uvloop

from testbed.lab.agents.driver import Driver, NonceStore
from testbed.lab.agents.priority import AGENT_PRIORITY, Pace, settle_memory
from testbed.lab.agents.registrations import RegistrationStore
from testbed.lab.agents.runtime import Runtime, read_key, run_agent
from testbed.lab.agents.sockets import ControlSocket
from testbed.lab.agents.understudy import rehearse
from testbed.lisp.actions import KeepRegistration, SaveNonce
from testbed.lisp.config import MapServerConfig, MapServerOptions, SiteConfig, options_from
from testbed.lisp.map_server import MapServer
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.rehearsal import Part, Rehearsal
from testbed.lisp.sealing import Secret


def config_from(raw: Mapping[str, Any]) -> MapServerConfig:
    """The Map-Server's configuration; TestbedError, KeyError or ValueError if it is wrong."""
    return MapServerConfig(
        rloc=ip_address(raw["rloc"]),
        sites=tuple(
            SiteConfig(
                name=site["name"],
                eid_prefixes=tuple(ip_network(prefix) for prefix in site["eid_prefixes"]),
                dynamic_eid_prefixes=tuple(ip_network(prefix) for prefix in site["dynamic_eid_prefixes"]),
                secret=Secret.configured(int(site["key_id"]), read_key(Path(site["key_file"])), raw["authentication"]),
                instance_id=int(site.get("instance_id", 0)),
            )
            for site in raw["sites"]
        ),
        mechanism=mechanism_named(raw["mechanism"]),
        options=options_from(MapServerOptions, raw.get("options", {})),
    )


@asynccontextmanager
async def map_server_agent(runtime: Runtime) -> AsyncIterator[None]:
    """A Map-Server on the node's address, for as long as the context is open."""
    config = config_from(runtime.config)
    with ExitStack() as stack:
        nonces = NonceStore(Path(runtime.config["state"]))
        stack.callback(nonces.close)
        registrations = RegistrationStore(Path(f"{runtime.config['state']}.registrations"))
        stack.callback(registrations.close)
        control = ControlSocket(config.rloc)
        stack.callback(control.close)
        machine = MapServer(config, saved=nonces.saved, random64=lambda: secrets.randbits(64))
        pace = Pace()
        driver = Driver(runtime.log, control, {SaveNonce: nonces.save, KeepRegistration: registrations.save}, pace)

        def inspect(_: Mapping[str, Any]) -> Mapping[str, Any]:
            driver.catch_up()
            return machine.inspect(time.monotonic_ns())

        runtime.on("inspect", inspect)
        stack.callback(driver.stop)
        if every_ms := runtime.config.get("rehearse_every_ms"):
            rehearsal = Rehearsal(
                Part.MAP_SERVER,
                config.mechanism,
                map_server_options=config.options,
                authentication=runtime.config["authentication"],
            )
            stack.enter_context(
                rehearse(rehearsal, every_ms / 1000, agent=driver, log=runtime.log, control=control, pace=pace)
            )
        pace.take(AGENT_PRIORITY)
        settle_memory()
        driver.start(machine, machine.restore(registrations.texts, time.monotonic_ns()))
        yield


if __name__ == "__main__":
    sys.exit(run_agent("mapserver", map_server_agent, run=uvloop.run))
