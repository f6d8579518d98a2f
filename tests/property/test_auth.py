"""The HMAC that messages are signed with is the one that the library makes."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from testbed.lisp.auth import hmac_of


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from([hashlib.sha1, hashlib.sha256]))
def test_the_hmac_is_the_librarys(key: bytes, message: bytes, digest: Any) -> None:
    assert hmac_of(key, message, digest) == hmac.digest(key, message, digest)
