"""A machine as NixOS's test driver offers it, and what runs it: QEMU."""

import base64
import json
import re
import shlex
import socket
import subprocess
import time
from pathlib import Path

# Seconds a machine may take to its first shell; without hardware to help, several start at a time.
BOOT = 300


class Failed(Exception):
    """A step has not gone as the test says."""


class Machine:
    """One virtual machine: its disk stays when it crashes."""

    def __init__(self, name, names, network, place, image, say):
        self.name, self.names, self.network, self.image = name, names, network, image
        self.number = names.index(name) + 1
        self.place = place / name
        self.place.mkdir()
        self.say = lambda text: say(f"{name}: {text}")
        self.qemu = self.shell = None
        self.disk = self.place / "disk.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.root), str(self.disk)], check=True
        )

    # --- life ---

    def start(self):
        if self.qemu:
            return
        for name in ["shell", "control"]:
            (self.place / name).unlink(missing_ok=True)
        words = [
            "qemu-system-x86_64", "-accel", self.image.accel, "-cpu", self.image.cpu, "-m", str(self.image.memory), "-smp", "1",
            "-nodefaults", "-display", "none", "-no-user-config", "-no-reboot",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd),
            "-append", f"console=ttyS0 quiet panic=-1 systemd.hostname={self.name} net.ifnames=0 mitigations=off no_timer_check systemd.show_status=0",
            "-drive", f"file={self.disk},if=virtio,cache=unsafe",
            "-drive", f"file={self.image.payload},if=virtio,format=raw,readonly=on",
            "-netdev", f"vde,id=net0,sock={self.network}",
            "-device", f"virtio-net-pci,netdev=net0,id=nic0,mac=52:54:00:12:34:{self.number:02x},romfile=",
            "-device", "virtio-serial", "-chardev", f"socket,id=shell,path={self.place}/shell,server=on,wait=off",
            "-device", "virtconsole,chardev=shell", "-serial", f"file:{self.place}/console.log",
            "-qmp", f"unix:{self.place}/control,server=on,wait=off", "-device", "virtio-rng-pci",
        ]
        began = time.monotonic()
        log = open(self.place / "qemu.log", "ab")
        self.qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._meet(began)

    def _meet(self, began):
        """Wait for the root shell, then run what gives the machine its address and, maybe, its part in a cluster."""
        self.shell = None
        while self.shell is None:
            if self.qemu.poll() is not None:
                raise Failed(f"{self.name}: QEMU ended: {(self.place / 'qemu.log').read_text()[-500:]}")
            if time.monotonic() - began > BOOT:
                raise Failed(f"{self.name} has no shell after {BOOT} s; see {self.place}/console.log")
            try:
                shell = socket.socket(socket.AF_UNIX)
                shell.settimeout(5)
                shell.connect(str(self.place / "shell"))
                # The number is computed there, so that an echo of the command is not taken for its answer.
                shell.sendall(b"\nstty -echo; PS1=; PS2=; echo ready-$((6 * 7))\n")
                seen = b""
                while b"ready-42" not in seen:
                    seen += shell.recv(4096)
                self.shell = shell
            except (OSError, TimeoutError):
                shell.close()
                time.sleep(1)
        self.shell.settimeout(None)
        self.succeed(f"{self.image.setup} {self.number} {' '.join(self.names)}")
        self.say(f"is up after {time.monotonic() - began:.0f} s")

    def control(self, command, **arguments):
        """Ask QEMU itself (QMP)."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(30)
            control.connect(str(self.place / "control"))
            answers = control.makefile("rw")
            answers.readline()
            for request in [{"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}]:
                answers.write(json.dumps(request) + "\n")
                answers.flush()
                while "return" not in (answer := json.loads(answers.readline())):
                    if "error" in answer:
                        raise Failed(f"{self.name}: {command}: {answer['error']['desc']}")

    def crash(self):
        """Pull the plug."""
        self.say("crashes")
        self.qemu.kill()
        self.qemu.wait()
        self.qemu = self.shell = None

    def shutdown(self):
        if self.qemu:
            self.shell.sendall(b"systemctl poweroff\n")
            self.qemu.wait(timeout=BOOT)
            self.qemu = self.shell = None

    def reboot(self):
        self.say("reboots")
        self.shutdown()
        self.start()

    def block(self):
        """Cut the network."""
        self.say("is cut off")
        self.control("set_link", name="nic0", up=False)

    def unblock(self):
        self.say("is back in the network")
        self.control("set_link", name="nic0", up=True)

    def end(self):
        if self.qemu:
            self.qemu.kill()
            self.qemu.wait()

    # --- commands ---

    def execute(self, command, timeout=900):
        """Exit code and output of a command."""
        if self.shell is None:
            self.start()
        mark = f"end-{time.monotonic_ns()}"
        line = f"timeout {timeout} bash -c {shlex.quote(command)} </dev/null 2>&1 | base64 -w0; echo :${{PIPESTATUS[0]}}:{mark}\n"
        self.shell.sendall(line.encode())
        self.shell.settimeout(timeout + 60)
        seen = ""
        while not (answer := re.search(rf"([A-Za-z0-9+/=]*):(\d+):{mark}", seen)):
            piece = self.shell.recv(65536)
            if not piece:
                raise Failed(f"{self.name} is gone")
            seen += piece.decode(errors="replace")
        return int(answer[2]), base64.b64decode(answer[1]).decode(errors="replace")

    def succeed(self, *commands, timeout=900):
        output = ""
        for command in commands:
            code, text = self.execute(command, timeout)
            if code != 0:
                raise Failed(f"{self.name}: `{command}` failed ({code}): {text[-2000:]}")
            output += text
        return output

    def fail(self, *commands, timeout=900):
        output = ""
        for command in commands:
            code, text = self.execute(command, timeout)
            if code == 0:
                raise Failed(f"{self.name}: `{command}` has not failed: {text[-2000:]}")
            output += text
        return output

    def _until(self, what, timeout, is_so):
        end = time.monotonic() + timeout
        while True:
            said = is_so()
            if said is True:
                return
            if time.monotonic() > end:
                raise Failed(f"{self.name}: {what}: not so after {timeout} s: {said}")
            time.sleep(1)

    def wait_until_succeeds(self, command, timeout=900):
        kept = []

        def ask():
            code, text = self.execute(command, timeout)
            kept[:] = [text]
            return code == 0 or text[-1000:]

        self._until(f"`{command}`", timeout, ask)
        return kept[0]

    def wait_until_fails(self, command, timeout=900):
        self._until(f"`{command}` fails", timeout, lambda: self.execute(command, timeout)[0] != 0)

    def wait_for_unit(self, unit, timeout=900):
        name = unit if "." in unit else f"{unit}.service"

        def ask():
            state = self.execute(f"systemctl is-active {name}")[1].strip()
            if state == "failed":
                raise Failed(f"{self.name}: {name} failed: {self.execute(f'journalctl -n 20 --no-pager -u {name}')[1]}")
            return state == "active" or state

        self._until(f"unit {name}", timeout, ask)
