"""Xen hosts, their guests, and their migration: QEMU machines, SSH, libvirt. Knows no topology."""
