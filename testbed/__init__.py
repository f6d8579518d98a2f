"""testbed: live-migrate a Xen VM that is a LISP endpoint, and say whose part of the outage was whose."""

__version__ = "0.1.0"
