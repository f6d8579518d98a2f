#!/usr/bin/python3
"""Build the dom0 and guest images of `recipe.json` into a cache; print the folder.

usage: build.py [--cache FOLDER] [--force] [--print-path]

The folder is named after the digest of everything that goes in: the recipe, this program, and the files of
`images/` and `xen/`. If it is there, nothing is done. It is made under another name and renamed when
it is whole, so an interrupted build leaves no half image behind. What it holds:

    xen.elf          the hypervisor, as QEMU's multiboot loader takes it
    vmlinux          dom0's kernel, uncompressed (decompressing costs seconds under emulation)
    initrd.cpio      the few modules that mount the root
    root.erofs       dom0's root, uncompressed and read-only
    guest.kernel     the guest's kernel
    guest.initrd     the guest's whole system
    manifest.json    digest, package versions, sizes

Root is needed (mmdebstrap in root mode). Only the standard library, so that it runs before anything
is installed into a virtual environment.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
XEN = HERE.parent / "xen"
XZ_MAGIC = b"\xfd7zXZ\x00"
LZ4_MAGIC = b"\x02\x21\x4c\x18"
DEBIAN_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")

BUSYBOX_GUEST = ("sh", "mount", "cat", "cut", "echo", "hostname", "insmod", "ip", "mkdir", "ping", "sleep", "usleep")
BUSYBOX_INITRD = ("sh", "mount", "umount", "cat", "insmod", "switch_root", "usleep")

# Packages are extracted and never configured, so dpkg's database stays empty: the archives' names tell the versions.
HOOK = '--extract-hook=ls "$1/var/cache/apt/archives" > "$1/archives"'

INITRD_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module"; done
until mount -t erofs -o ro /dev/vda /root 2>/dev/null; do usleep 20000; done
umount /proc
exec switch_root /root /sbin/testbed-init
"""


class BuildError(Exception):
    """The build cannot go on; the text says why."""


def say(text: str) -> None:
    """One line of progress, to standard error: standard output carries the result."""
    print(f"images: {text}", file=sys.stderr, flush=True)


def recipe_files() -> list[Path]:
    """Every file that the images are made of, in a stable order."""
    files = [path for root in (HERE, XEN) for path in root.rglob("*") if path.is_file()]
    return sorted(path for path in files if "__pycache__" not in path.parts and path.suffix not in (".md", ".pyc"))


def digest() -> str:
    """The digest that names the images: 16 hexadecimal characters of SHA-256."""
    summed = hashlib.sha256()
    for path in recipe_files():
        content = path.read_bytes()
        summed.update(f"{path.relative_to(HERE.parent)}\0{len(content)}\0".encode())
        summed.update(content)
    return summed.hexdigest()[:16]


def run(*command: str | Path, **options: object) -> str:
    """Run a command and return its output; BuildError carries the end of it when it fails."""
    done = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        **options,
    )
    if done.returncode:
        raise BuildError(f"{command[0]} failed ({done.returncode}):\n" + "\n".join(done.stdout.splitlines()[-15:]))
    return str(done.stdout)


def bootstrap_root(recipe: dict[str, list[str]], root: Path) -> dict[str, str]:
    """Unpack the packages and what they need into `root`; returns their versions."""
    command = ["mmdebstrap", "--variant=extract", "--format=directory", f"--include={','.join(recipe['packages'])}"]
    command += [HOOK, str(recipe["suite"]), str(root)]
    if os.environ.get("TESTBED_DEBIAN_MIRROR"):
        command.append(os.environ["TESTBED_DEBIAN_MIRROR"])
    elif DEBIAN_SOURCES.exists() and f"Suites: {recipe['suite']}" in DEBIAN_SOURCES.read_text():
        command.append(str(DEBIAN_SOURCES))  # the machine's own mirror; otherwise mmdebstrap's default
    run(*command)
    names = (root / "archives").read_text().split()
    (root / "archives").unlink()
    split = [name.removesuffix(".deb").replace("%3a", ":").split("_") for name in names if name.endswith(".deb")]
    return {package: version for package, version, _ in split}


def static_program(source: Path, output: Path) -> None:
    """Compile one C file to a static program."""
    output.parent.mkdir(parents=True, exist_ok=True)
    run("cc", "-O2", "-Wall", "-Wextra", "-Wno-stringop-truncation", "-static", "-s", "-o", output, source)


def copy_modules(root: Path, release: str, names: list[str], target: Path) -> list[str]:
    """Copy modules and those they depend on to `target`; returns the file names in load order."""
    order: list[str] = []
    for name in names:
        shown = run("modprobe", "-d", root, "-S", release, "--show-depends", name)
        for line in shown.splitlines():
            words = line.split()
            if words[:1] == ["insmod"] and Path(words[1]).name not in order:
                order.append(Path(words[1]).name)
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(words[1], target)
    return order


def cpio_archive(tree: Path, output: Path) -> None:
    """Pack a tree as an initramfs, owned by root, in a stable order."""
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    with output.open("wb") as out:
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet", "--owner", "0:0", "--reproducible"],
            cwd=tree,
            input="\n".join(names).encode(),
            stdout=out,
            check=False,
        )
    if packed.returncode:
        raise BuildError(f"cpio failed ({packed.returncode})")


def initramfs(
    root: Path,
    release: str,
    init: str,
    modules: list[str],
    applets: tuple[str, ...],
    output: Path,
    extra: dict[str, Path] | None = None,
) -> None:
    """Build an initramfs of busybox, modules, an init and extra programs."""
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        tree = Path(folder)
        for name in ("bin", "proc", "sys", "dev", "root", "modules"):
            (tree / name).mkdir()
        shutil.copy(root / "bin/busybox", tree / "bin/busybox")
        for applet in applets:
            (tree / "bin" / applet).symlink_to("busybox")
        for name, source in (extra or {}).items():
            shutil.copy(source, tree / name)
        order = copy_modules(root, release, modules, tree / "modules")
        (tree / "modules/order").write_text("\n".join(order) + "\n")
        (tree / "init").write_text(init)
        (tree / "init").chmod(0o755)
        cpio_archive(tree, output)


def extract_vmlinux(image: Path, output: Path) -> None:
    """Take the uncompressed kernel out of a bzImage (Debian compresses with xz, the cloud kernel with LZ4)."""
    data = image.read_bytes()
    for magic, unpack in ((XZ_MAGIC, unpack_xz), (LZ4_MAGIC, unpack_lz4)):
        start = data.find(magic)
        if start >= 0:
            kernel = unpack(data[start:])
            if kernel[:4] == b"\x7fELF":
                output.write_bytes(kernel)
                return
    raise BuildError(f"{image.name}: no kernel in it that this knows how to unpack (xz, LZ4)")


def unpack_xz(data: bytes) -> bytes:
    """Decompress an xz stream, whatever follows it."""
    return lzma.LZMADecompressor().decompress(data)


def unpack_lz4(data: bytes) -> bytes:
    """Decompress a legacy LZ4 stream; lz4 complains of what follows it and has written all by then."""
    done = subprocess.run(["lz4", "-d", "-c"], input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout


def install_busybox(root: Path) -> None:
    """Link every applet of busybox that no package provides."""
    for applet in run("/usr/sbin/chroot", root, "/bin/busybox", "--list").split():
        if not any((root / folder / applet).exists() for folder in ("bin", "sbin", "usr/bin", "usr/sbin")):
            (root / "usr/bin" / applet).symlink_to("/bin/busybox")


def furnish_dom0(root: Path, release: str, recipe: dict[str, list[str]], out: Path) -> None:
    """Turn the unpacked packages into dom0's root: configuration, helpers, modules, the guest's files."""
    modules = copy_modules(root, release, recipe["dom0_modules"], root / "usr/lib/testbed-modules")
    for pattern in recipe["drop"]:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name in ("boot", "proc", "sys", "dev", "run", "tmp", "images", "etc/testbed", "etc/dropbear", "var/cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/testbed/modules").write_text("\n".join(modules) + "\n")
    install_busybox(root)
    for tool in ("xl", "xenstored", "oxenstored", "xenconsoled", "xen-init-dom0"):  # in place of the wrapper scripts
        (root / "usr/sbin" / tool).unlink(missing_ok=True)
        (root / "usr/sbin" / tool).symlink_to(f"/usr/lib/xen-4.17/bin/{tool}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (root / "etc/shells").write_text("/bin/sh\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    for link, target in (("var/run", "/run"), ("var/lock", "/run/lock"), ("etc/mtab", "/proc/mounts")):
        path = root / link
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    (root / "bin/sh").unlink(missing_ok=True)
    (root / "bin/sh").symlink_to("/bin/busybox")
    shutil.copy(XEN / "dom0-init", root / "sbin/testbed-init")
    (root / "etc/libvirt").mkdir(exist_ok=True)
    shutil.copy(XEN / "libvirtd.conf", root / "etc/libvirt/libvirtd.conf")
    shutil.copy(XEN / "oxenstored.conf", root / "etc/xen/oxenstored.conf")
    cpu_map = root / "usr/share/libvirt/cpu_map"
    shutil.copy(XEN / "cpu-model.xml", cpu_map / "x86_testbed-tcg64.xml")
    index = cpu_map / "index.xml"
    first = "<include filename='x86_486.xml'/>"
    if first not in index.read_text():
        raise BuildError(f"{index}: {first} is not there any more")
    index.write_text(index.read_text().replace(first, f"{first}\n    <include filename='x86_testbed-tcg64.xml'/>"))
    static_program(XEN / "vif-bridge.c", root / "etc/xen/scripts/vif-bridge")
    static_program(XEN / "xenstore-events.c", root / "usr/sbin/xenstore-events")
    for name in ("guest.kernel", "guest.initrd"):
        shutil.copy(out / name, root / "images" / name)
    run("/usr/sbin/ldconfig", "-r", root)


def build(out: Path, work: Path) -> dict[str, object]:
    """Build everything into `out`; returns the manifest."""
    recipe = json.loads((HERE / "recipe.json").read_text())
    root = work / "root"
    say(f"1/4 unpacking {len(recipe['packages'])} packages and what they need (mmdebstrap, {recipe['suite']})")
    versions = bootstrap_root(recipe, root)
    # The guest takes Debian's cloud kernel (front ends only, half the size and boot time); dom0 needs the full one.
    releases = sorted(path.name for path in (root / "lib/modules").iterdir())
    guest_release = next(name for name in releases if "-cloud-" in name)
    release = next(name for name in releases if "-cloud-" not in name)
    say(f"2/4 kernels {release} and {guest_release}, hypervisor")
    for name, target in ((release, "vmlinux"), (guest_release, "guest.kernel")):
        run("depmod", "-b", root, name)
        extract_vmlinux(root / f"boot/vmlinuz-{name}", out / target)
    with gzip.open(root / "boot/xen-4.17-amd64.gz") as packed:
        (out / "xen.elf").write_bytes(packed.read())
    say("3/4 guest")
    programs = {name: work / f"guest-{name}" for name in ("services", "prober")}
    for name, program in programs.items():
        static_program(HERE / f"guest/{name}.c", program)
    initramfs(
        root,
        guest_release,
        (HERE / "guest/init").read_text(),
        recipe["guest_modules"],
        BUSYBOX_GUEST,
        out / "guest.initrd",
        {f"bin/{program.name}": program for program in programs.values()},
    )
    initramfs(root, release, INITRD_INIT, recipe["initrd_modules"], BUSYBOX_INITRD, out / "initrd.cpio")
    say("4/4 dom0's root")
    furnish_dom0(root, release, recipe, out)
    run("mkfs.erofs", "-T0", "--all-root", out / "root.erofs", root)
    return {
        "dom0_kernel": release,
        "guest_kernel": guest_release,
        "packages": versions,
        "sizes": {p.name: p.stat().st_size for p in sorted(out.iterdir())},
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("TESTBED_CACHE", "/var/cache/testbed"))
    parser.add_argument("--cache", type=Path, default=default, help=f"where images are kept (default {default})")
    parser.add_argument("--force", action="store_true", help="build even if the images are there")
    parser.add_argument("--print-path", action="store_true", help="only print where the images are or would be")
    arguments = parser.parse_args()
    name = digest()
    final = arguments.cache / "images" / name
    if arguments.print_path or (final.exists() and not arguments.force):
        print(final)
        return 0
    if os.geteuid() != 0:
        say("building images needs root; next: sudo images/build.py")
        return 11
    started = time.monotonic()
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=final.parent) as folder:
        out, work = Path(folder) / "out", Path(folder) / "work"
        out.mkdir()
        work.mkdir()
        try:
            manifest = build(out, work)
        except BuildError as error:
            say(str(error))
            return 11
        (out / "manifest.json").write_text(json.dumps({"digest": name, **manifest}, indent=2, sort_keys=True) + "\n")
        if final.exists():
            shutil.rmtree(final)
        out.rename(final)
    say(f"built in {time.monotonic() - started:.0f} s")
    print(final)
    return 0


if __name__ == "__main__":
    sys.exit(main())
