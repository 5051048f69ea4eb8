"""What a machine starts from: kernel, initial RAM disk, root image, and the disk with the programs under test."""

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("FERROFLUX_VM_CACHE", Path.home() / ".cache" / "ferroflux-vm"))
PACKAGES = [
    "systemd", "systemd-sysv", "udev", "dbus", "iproute2", "iputils-ping", "procps",
    "libzmq5", "libhwloc15", "libmpich12", "libgcc-s1",
]
# What is made by other rules is made anew.
RECIPE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
# Loaded in this order: each needs those before it.
MODULES = [
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
    "failover", "net_failover", "virtio_net", "virtio_console", "crc16", "crc32c_generic", "libcrc32c",
    "mbcache", "jbd2", "ext4",
]
# What costs time at start and serves no test.
MASKED = [
    "systemd-logind.service", "systemd-timesyncd.service", "e2scrub_reap.service", "fstrim.timer", "apt-daily.timer",
    "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "systemd-update-utmp.service",
    "getty.target", "serial-getty@ttyS0.service", "systemd-journal-flush.service", "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service", "ldconfig.service", "systemd-random-seed.service",
]
CONSOLE = """[Unit]
Description=Root shell of the test driver
DefaultDependencies=no
After=sysinit.target
[Service]
ExecStart=/bin/bash --noprofile --norc --noediting
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/hvc0
Environment=HOME=/root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin
ExecStartPre=/bin/stty -F /dev/hvc0 raw -echo
Restart=always
KillMode=process
[Install]
WantedBy=basic.target
"""


class Missing(Exception):
    """A tool of this machine is not there."""


def run(*words, **more):
    """Run a command that has to succeed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout


def need(*tools):
    missing = [tool for tool in tools if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing:
        raise Missing(f"not installed: {', '.join(missing)}")


def cached(name, make):
    """A file of the cache; `make(path)` makes it if it is not there."""
    path = CACHE / name
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        half = CACHE / f"{name}.{os.getpid()}"
        make(half)
        half.rename(path)
    return path


def filesystem(tree, path, megabytes, label):
    """An ext4 image of a directory."""
    with open(path, "wb") as file:
        file.truncate(megabytes << 20)
    run("/usr/sbin/mke2fs", "-q", "-t", "ext4", "-L", label, "-O", "^metadata_csum", "-d", tree, path)


def kernel_tree():
    """Debian's cloud kernel, unpacked."""

    def make(path):
        with tempfile.TemporaryDirectory() as work:
            depends = run("apt-cache", "depends", "linux-image-cloud-amd64")
            package = next(line.split()[-1] for line in depends.splitlines() if "Depends: linux-image" in line)
            run("apt-get", "download", package, cwd=work)
            run("dpkg", "-x", next(Path(work).glob("*.deb")), path)

    return cached("kernel", make)


def kernel():
    return next((kernel_tree() / "boot").glob("vmlinuz-*"))


def initrd():
    """Loads what finding the root file system takes, and starts systemd from there."""

    def make(path):
        modules = next((kernel_tree() / "lib" / "modules").iterdir())
        found = {file.name.removesuffix(".ko"): file for file in modules.rglob("*.ko")}
        with tempfile.TemporaryDirectory() as work:
            tree = Path(work)
            for name in ["bin", "dev", "proc", "sys", "sysroot", "modules"]:
                (tree / name).mkdir()
            shutil.copy("/bin/busybox", tree / "bin" / "busybox")
            loads = []
            for name in MODULES:
                if name in found:
                    shutil.copy(found[name], tree / "modules")
                    loads.append(f"/bin/busybox insmod /modules/{name}.ko")
            init = ["#!/bin/busybox sh", "/bin/busybox mount -t devtmpfs dev /dev", *loads]
            init += [
                "n=0",
                "until /bin/busybox mount -t ext4 /dev/vda /sysroot 2>/dev/null; do",
                "    n=$((n + 1)); [ $n -lt 300 ] || exec /bin/busybox sh; /bin/busybox sleep 0.1",
                "done",
                "/bin/busybox mount -t ext4 -o ro /dev/vdb /sysroot/payload",
                "/bin/busybox umount /dev",
                "exec /bin/busybox switch_root /sysroot /sbin/init",
            ]
            (tree / "init").write_text("\n".join(init) + "\n")
            (tree / "init").chmod(0o755)
            names = run("find", ".", cwd=work)
            archive = subprocess.run(
                ["/bin/busybox", "cpio", "-o", "-H", "newc"], input=names.encode(), cwd=work, capture_output=True, check=True
            )
            path.write_bytes(gzip.compress(archive.stdout, 6))

    return cached(f"initrd-{RECIPE}.gz", make)


def root():
    """Debian with systemd and the libraries the programs use."""

    def make(path):
        with tempfile.TemporaryDirectory() as work:
            tree = Path(work) / "root"
            sources = sorted(Path("/etc/apt/sources.list.d").glob("*.sources")) or [Path("/etc/apt/sources.list")]
            run("mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", tree, sources[0])
            system = tree / "etc" / "systemd" / "system"
            for unit in MASKED:
                (system / unit).unlink(missing_ok=True)
                (system / unit).symlink_to("/dev/null")
            (system / "console.service").write_text(CONSOLE)
            (system / "basic.target.wants").mkdir(exist_ok=True)
            (system / "basic.target.wants" / "console.service").symlink_to("../console.service")
            (tree / "etc" / "systemd" / "journald.conf").write_text("[Journal]\nStorage=volatile\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\nMaxLevelConsole=info\n")
            (tree / "etc" / "fstab").write_text("")
            (tree / "etc" / "machine-id").write_text("")
            for name in ["payload", "nix"]:
                (tree / name).mkdir()
            (tree / "nix" / "store").symlink_to("/payload/store")
            for at in ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"]:
                shutil.rmtree(tree / at, ignore_errors=True)
            filesystem(tree, path, 1024, "root")

    return cached(f"root-{RECIPE}.ext4", make)
