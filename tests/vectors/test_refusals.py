"""What cannot be encoded is refused, with the field's name; nothing is cut to fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.lisp.wire import (
    Authentication,
    EncapsulatedControl,
    Info,
    InstanceId,
    MapNotify,
    MapReferral,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    OpaqueLcaf,
    ReferralRecord,
    ReferralSignature,
    RequestedEid,
    XtrIdentity,
)
from tests.vectors.tables import MAPPING, RLOC_A, RLOC_B, VM4

REQUEST = MapRequest(1, (RLOC_A,), (RequestedEid(VM4),))
REFERRAL = ReferralRecord(VM4, 15, 0)
SIGNATURE = ReferralSignature(1, 2, 3, 4, 2, b"")
LOCATOR = MAPPING.locators[0]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (replace(REQUEST, nonce=1 << 64), "nonce = 18446744073709551616 does not fit in 64 bits"),
        (replace(REQUEST, nonce=-1), "nonce = -1 does not fit"),
        (replace(REQUEST, itr_rlocs=()), "0 ITR-RLOCs, must be 1 to 32"),
        (replace(REQUEST, itr_rlocs=(RLOC_A,) * 33), "33 ITR-RLOCs, must be 1 to 32"),
        (replace(REQUEST, requests=REQUEST.requests * 256), "record count = 256"),
        (replace(REQUEST, xtr=XtrIdentity(1 << 128)), "xtr_id"),
        (replace(REQUEST, xtr=XtrIdentity(0, 1 << 64)), "site_id"),
        (replace(REQUEST, source_eid=InstanceId(1 << 32, RLOC_A)), "instance_id = 4294967296"),
        (replace(REQUEST, source_eid=OpaqueLcaf(200, 0, bytes(1 << 16))), "lcaf length = 65536"),
        (MapReply(1, (MAPPING,) * 256), "record count = 256"),
        (MapReply(1, (replace(MAPPING, ttl_minutes=1 << 32),)), "ttl_minutes"),
        (MapReply(1, (replace(MAPPING, action=8),)), "action = 8 does not fit in 3 bits"),
        (MapReply(1, (replace(MAPPING, map_version=4096),)), "map_version = 4096 does not fit in 12 bits"),
        (MapReply(1, (replace(MAPPING, locators=(LOCATOR,) * 256),)), "locator_count = 256"),
        (MapReply(1, (replace(MAPPING, locators=(replace(LOCATOR, priority=256),)),)), "priority = 256"),
        (MapReply(1, (replace(MAPPING, locators=(replace(LOCATOR, weight=256),)),)), "weight = 256"),
        (MapRegister(1, (), Authentication(256)), "key_id = 256"),
        (MapRegister(1, (), Authentication(0, 256)), "algorithm_id = 256"),
        (MapNotify(1, (), Authentication(0, 0, bytes(1 << 16))), "authentication data length = 65536"),
        (MapReferral(1, (replace(REFERRAL, action=8),)), "action = 8 does not fit in 3 bits"),
        (MapReferral(1, (replace(REFERRAL, map_version=4096),)), "map_version = 4096"),
        (MapReferral(1, (replace(REFERRAL, signatures=(SIGNATURE,) * 16),)), "signature count = 16"),
        (Info(1, VM4, -1), "ttl_minutes = -1"),
        (EncapsulatedControl(RLOC_A, RLOC_B, 1 << 16, b""), "source_port = 65536"),
        (EncapsulatedControl(RLOC_A, RLOC_B, 1, b"", 1 << 16), "destination_port = 65536"),
        (EncapsulatedControl(RLOC_A, RLOC_B, 1, b"", hop_limit=256), "hop_limit = 256"),
        (EncapsulatedControl(RLOC_A, RLOC_B, 1, bytes(65508)), "total length = 65536"),
    ],
)
def test_refused(message: Message, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        message.encode()


def test_the_most_that_fits() -> None:
    most = MapReply((1 << 64) - 1, (replace(MAPPING, locators=(LOCATOR,) * 255),) * 255)
    assert len(most.encode()) == 12 + 255 * (16 + 255 * 12)
    assert len(EncapsulatedControl(RLOC_A, RLOC_B, 1, bytes(65507)).encode()) == 4 + 65535
    assert len(replace(REQUEST, itr_rlocs=(RLOC_A,) * 32).encode()) == 12 + 2 + 32 * 6 + 8
