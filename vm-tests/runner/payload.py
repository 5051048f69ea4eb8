"""The disk with what is under test."""

import os
import shutil
import tempfile
from pathlib import Path

from .image import REPOSITORY, filesystem, run

UNITS = REPOSITORY / "vm-tests" / "units"


def installed(programs, tree):
    """The programs where the generated unit has them."""
    store = (UNITS / "package").read_text().strip()
    env = dict(os.environ, PREFIX=store.replace("/nix/store", "/store"), DESTDIR=str(tree), BINDIR=str(programs), UNITDIR="/none")
    run(REPOSITORY / "scripts" / "install.sh", env=env)
    shutil.rmtree(tree / "none", ignore_errors=True)
    # All machines of a test share one certificate.
    run(programs / "flux", "keygen", tree / "units" / "curve.cert")


def packaged(programs, tree):
    """The Debian package of the programs, which nobody has installed yet."""
    with tempfile.TemporaryDirectory() as out:
        run(REPOSITORY / "packaging" / "deb", out, env=dict(os.environ, BINDIR=str(programs)))
        shutil.copy(next(Path(out).glob("*.deb")), tree / "ferroflux.deb")


def make(fill, programs, extra, path):
    """The disk: what `fill` makes of the programs, the scripts of `units/`, and `extra` programs for tests."""
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work)
        shutil.copytree(UNITS, tree / "units")
        fill(programs, tree)
        (tree / "bin").mkdir()
        for program in extra:
            shutil.copy(program, tree / "bin")
        filesystem(tree, path, 256, "payload")
