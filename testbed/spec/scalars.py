"""The kinds of words and addresses that stand in topologies and experiments. Pure."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from re import fullmatch
from typing import Annotated

from pydantic import AfterValidator

#: What remains of a site's name after "site-" becomes part of interface names: "eid-" and it, at most 15.
SHORT_NAME_LENGTH = 11
#: The name of a whole file's content, which is part of file names only.
TITLE_LENGTH = 60


def _title(value: str) -> str:
    if not fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value) or len(value) > TITLE_LENGTH:
        raise ValueError(
            f"{value!r} is not a name; allowed: lower-case letters, digits, single hyphens, "
            f"at most {TITLE_LENGTH} characters"
        )
    return value


def _name(value: str) -> str:
    if not fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", value) or len(short_name(value)) > SHORT_NAME_LENGTH:
        raise ValueError(
            f"{value!r} is not a name; allowed: lower-case letters, digits, single hyphens, a letter first, "
            f"at most {SHORT_NAME_LENGTH} characters (beside a leading 'site-')"
        )
    return value


def _address(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError(f"{value!r} is not an address; allowed: IPv4 or IPv6, as 192.168.0.10") from None


def _prefix(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        hint = f" ({error})" if "host bits" in str(error) else ""
        raise ValueError(f"{value!r} is not a prefix{hint}; allowed: network/length, as 192.168.0.0/24") from None


def _mac(value: str) -> str:
    if not fullmatch(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", value):
        raise ValueError(f"{value!r} is not a MAC address; allowed: as 00:00:5e:00:01:01")
    if int(value[:2], 16) & 1:
        raise ValueError(f"{value!r} is a group address; allowed: a MAC whose first byte is even")
    return value.lower()


def short_name(site: str) -> str:
    """Return a site's name without a leading `site-`."""
    return site.removeprefix("site-")


Title = Annotated[str, AfterValidator(_title)]
Name = Annotated[str, AfterValidator(_name)]
Address = Annotated[str, AfterValidator(_address)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Mac = Annotated[str, AfterValidator(_mac)]
