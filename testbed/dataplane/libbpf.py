"""A thin layer over libbpf: load an object, use its maps, read its ring buffer, attach to clsact.

Works with libbpf.so.1 (Debian 12) and libbpf.so.0 from 0.5 on (Ubuntu 22.04). Nothing is pinned:
what is loaded lives as long as this process or an attachment holds it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed.errors import PrerequisiteMissingError, TestbedError

INGRESS = 1
BPF_ANY, BPF_EXIST = 0, 2  # linux/bpf.h: write whether or not something is stored under the key; only if
REPLACE = 1
HANDLE = PRIORITY = 1
MAX_ERRNO = 4095

_SampleCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_PrintCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _TcHook(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("program_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("program_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


def _load_library() -> ctypes.CDLL:
    for name in ("libbpf.so.1", "libbpf.so.0"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name, use_errno=True)
    raise PrerequisiteMissingError(
        "libbpf-missing", "libbpf is not installed.", next_command="sudo apt-get install libbpf1"
    )


class Library:
    """libbpf with the types of the functions that are used, and its messages kept for errors."""

    def __init__(self) -> None:
        self._lib = lib = _load_library()
        self._libc = ctypes.CDLL(None)
        self.messages: list[str] = []
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        for name, result, arguments in (
            ("bpf_object__open_file", pointer, (ctypes.c_char_p, pointer)),
            ("bpf_object__load", integer, (pointer,)),
            ("bpf_object__close", None, (pointer,)),
            ("bpf_object__find_map_fd_by_name", integer, (pointer, ctypes.c_char_p)),
            ("bpf_object__find_program_by_name", pointer, (pointer, ctypes.c_char_p)),
            ("bpf_program__fd", integer, (pointer,)),
            ("bpf_program__attach", pointer, (pointer,)),
            ("bpf_link__destroy", integer, (pointer,)),
            ("bpf_map_lookup_elem", integer, (integer, pointer, pointer)),
            ("bpf_map_update_elem", integer, (integer, pointer, pointer, ctypes.c_uint64)),
            ("bpf_map_delete_elem", integer, (integer, pointer)),
            ("libbpf_num_possible_cpus", integer, ()),
            ("ring_buffer__new", pointer, (integer, _SampleCallback, pointer, pointer)),
            ("ring_buffer__epoll_fd", integer, (pointer,)),
            ("ring_buffer__consume", integer, (pointer,)),
            ("ring_buffer__free", None, (pointer,)),
            ("bpf_tc_hook_create", integer, (ctypes.POINTER(_TcHook),)),
            ("bpf_tc_attach", integer, (ctypes.POINTER(_TcHook), ctypes.POINTER(_TcOptions))),
            ("bpf_tc_detach", integer, (ctypes.POINTER(_TcHook), ctypes.POINTER(_TcOptions))),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        self._print = _PrintCallback(self._keep_message)  # must outlive the registration
        lib.libbpf_set_print(self._print)

    def _keep_message(self, level: int, template: bytes, arguments: int) -> int:
        if level <= 1:  # warnings; the verifier's log comes as one
            text = ctypes.create_string_buffer(1 << 16)
            self._libc.vsnprintf(text, len(text), template, ctypes.c_void_p(arguments))
            self.messages.append(text.value.decode(errors="replace"))
        return 0

    def error(self, what: str, result: int | None = None) -> TestbedError:
        """The error for a failed call: its number, and what libbpf said since the last one."""
        number = -result if result is not None and result < -1 else ctypes.get_errno()
        said = "".join(self.messages)[-4000:].strip()
        self.messages.clear()
        if number in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
            return TestbedError("bpf-not-permitted", f"{what}: not permitted.", next_command="run it as root")
        return TestbedError("bpf-failed", f"{what}: {os.strerror(number)}.", why=said, next_command="testbed doctor")

    def __getattr__(self, name: str) -> Callable[..., int]:
        function: Callable[..., int] = getattr(self._lib, name)
        return function


class Map:
    """A map of a loaded object; keys and values are bytes."""

    def __init__(self, library: Library, fd: int, value_size: int) -> None:
        self._library, self._fd, self._value_size = library, fd, value_size
        # Looked up once, as an entry is written between a message and the packets that wait for it.
        self._lookup, self._update = library.bpf_map_lookup_elem, library.bpf_map_update_elem
        self._value = ctypes.create_string_buffer(value_size)

    def __getitem__(self, key: bytes) -> bytes:
        """The value stored under a key (an LPM trie: of its longest match); KeyError if there is none."""
        if self._lookup(self._fd, key, self._value) != 0:
            raise KeyError(key)
        return self._value.raw

    def __setitem__(self, key: bytes, value: bytes) -> None:
        if len(value) != self._value_size:
            raise ValueError(f"value of {len(value)} octets for a map of {self._value_size}")
        result = self._update(self._fd, key, value, BPF_ANY)
        if result != 0:
            raise self._library.error("Writing a map of the data plane", result)

    def rehearse(self, key: bytes, value: bytes) -> None:
        """Do what writing does except for writing, under a key that nothing is stored under."""
        self._update(self._fd, key, value, BPF_EXIST)

    def __delitem__(self, key: bytes) -> None:
        if self._library.bpf_map_delete_elem(self._fd, key) != 0:
            raise KeyError(key)


class RingBuffer:
    """The reader of a ring buffer; `fd` is readable when there is something."""

    def __init__(self, library: Library, map_fd: int) -> None:
        self._library = library
        self._samples: list[bytes] = []
        self._callback = _SampleCallback(self._take)
        self._handle = library.ring_buffer__new(map_fd, self._callback, None, None)
        if not self._handle:
            raise library.error("Opening the ring buffer")
        self.fd = library.ring_buffer__epoll_fd(self._handle)

    def _take(self, _context: int, data: int, size: int) -> int:
        self._samples.append(ctypes.string_at(data, size))
        return 0

    def rehearse(self, sample: bytes) -> bytes:
        """A sample as `read` would return it if the kernel had written it."""
        waiting, self._samples = self._samples, []
        buffer = ctypes.create_string_buffer(sample, len(sample))
        self._callback(None, ctypes.addressof(buffer), len(sample))
        (found,), self._samples = self._samples, waiting
        return found

    def read(self) -> list[bytes]:
        """All samples since the last call, oldest first; never blocks."""
        self._library.ring_buffer__consume(self._handle)
        samples, self._samples = self._samples, []
        return samples

    def close(self) -> None:
        """Free the reader."""
        self._library.ring_buffer__free(self._handle)


class BpfObject:
    """A loaded object file."""

    def __init__(self, path: Path) -> None:
        self._library = library = Library()
        handle = library.bpf_object__open_file(os.fsencode(path), None)
        if _is_error(handle):
            raise library.error(f"Opening {path.name}")
        self._handle = handle
        result = library.bpf_object__load(handle)
        if result != 0:
            library.bpf_object__close(handle)
            raise library.error("Loading the data plane into the kernel", result)

    def _map_fd(self, name: str) -> int:
        fd = self._library.bpf_object__find_map_fd_by_name(self._handle, name.encode())
        if fd < 0:
            raise self._library.error(f"Finding map {name}", fd)
        return fd

    def map(self, name: str, value_size: int) -> Map:
        """The map of that name, whose values have `value_size` octets."""
        return Map(self._library, self._map_fd(name), value_size)

    def per_cpu_map(self, name: str, value_size: int) -> Map:
        """A per-CPU map: a value read is those of all possible CPUs, each padded to 8 octets."""
        return self.map(name, -(-value_size // 8) * 8 * self._library.libbpf_num_possible_cpus())

    def ring_buffer(self, name: str) -> RingBuffer:
        """A reader of the ring buffer of that name."""
        return RingBuffer(self._library, self._map_fd(name))

    def _program(self, name: str) -> int:
        found = self._library.bpf_object__find_program_by_name(self._handle, name.encode())
        if not found:
            raise self._library.error(f"Finding program {name}")
        return found

    def attach(self, program: str) -> Callable[[], None]:
        """Attach a program where its section says; returns what detaches it again."""
        library = self._library
        link = library.bpf_program__attach(self._program(program))
        if _is_error(link):
            raise library.error(f"Attaching {program}")

        def detach() -> None:
            library.bpf_link__destroy(link)

        return detach

    def attach_ingress(self, program: str, ifindex: int) -> Callable[[], None]:
        """Attach a program at an interface's clsact ingress, in place of an earlier one of ours.

        Returns what detaches it again; both must be called in the interface's network namespace.
        """
        library = self._library
        found = self._program(program)
        hook = _TcHook(ctypes.sizeof(_TcHook), ifindex, INGRESS, 0)
        result = library.bpf_tc_hook_create(ctypes.byref(hook))
        if result not in (0, -errno.EEXIST):
            raise library.error("Creating clsact", result)
        options = _TcOptions(ctypes.sizeof(_TcOptions))
        options.program_fd = library.bpf_program__fd(found)
        options.flags, options.handle, options.priority = REPLACE, HANDLE, PRIORITY
        result = library.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
        if result != 0:
            raise library.error(f"Attaching {program}", result)
        library.messages.clear()  # "clsact exists" is no news

        def detach() -> None:
            # The interface may be gone by now, and its filters with it: that is the wanted state too.
            options = _TcOptions(ctypes.sizeof(_TcOptions))
            options.handle, options.priority = HANDLE, PRIORITY
            library.bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))

        return detach

    def close(self) -> None:
        """Free maps and programs that nothing else holds."""
        self._library.bpf_object__close(self._handle)


def _is_error(handle: int | None) -> bool:
    """Whether libbpf gave no object: NULL, or (0.x) an errno as a pointer in the last page."""
    return not handle or handle > (1 << (8 * ctypes.sizeof(ctypes.c_void_p))) - MAX_ERRNO - 1


@contextlib.contextmanager
def closing_on_error(close: Callable[[], None]) -> Iterator[None]:
    """Call `close` if the block fails, and let the block's error through."""
    try:
        yield
    except BaseException:
        close()
        raise
