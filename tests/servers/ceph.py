"""A whole Ceph cluster in one process group: a monitor, one OSD in memory, and the S3 gateway.

``python ceph.py FOLDER PORT MONITOR_PORT MONITOR_PORT_V1`` runs it in an empty folder until it is told to stop.
Debian's packages ``radosgw``, ``ceph-mon`` and ``ceph-osd`` are enough, installed or, without root, unpacked by ``dpkg
-x`` below the folder that ``TEXTNLP_FAST_CEPH`` names. No daemon asks for a password of another; who speaks S3 signs
with a user's name as access key and as secret.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

USERS = ("test", "reader", "writer", "maintainer", "nobody")
"""Each signs with its name as access key and as secret; the first may say what the others may do."""
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_STEP_TIMEOUT_S = 60
_CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
ms bind ipv6 = false
ms mon client mode = crc
ms client mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
rgw rados pool pg num min = 1
mon allow pool size one = true
mon max pg per osd = 1000
osd crush chooseleaf type = 0
osd crush initial weight = 1
osd objectstore = memstore
memstore device bytes = 8589934592
run dir = {folder}/run
admin socket =
pid file = {folder}/run/$name.pid
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
crash dir = {folder}/run
osd class dir = {libraries}/rados-classes
erasure code dir = {libraries}/ceph/erasure-code
plugin dir = {libraries}/ceph
rgw data = {folder}/rgw
rgw enable usage log = false
rgw dynamic resharding = false
debug rgw = 0
debug ms = 0
debug mon = 0
debug osd = 0
debug objecter = 0
"""


def root() -> Path | None:
    """Below which folder Ceph's programs lie: the named one, ``build/ceph`` of this project, or the system's."""
    named = os.environ.get("TEXTNLP_FAST_CEPH")
    places = [Path(named)] if named else [Path(__file__).parents[2] / "build" / "ceph", Path("/")]
    needed = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool")
    return next(
        (place for place in places if all((place / "usr/bin" / name).exists() for name in needed)), None
    )


def environment(place: Path) -> dict[str, str]:
    """What unpacked programs need to find their libraries."""
    if place == Path("/"):
        return dict(os.environ)
    libraries = place / _LIBRARIES
    return {
        **os.environ,
        "LD_LIBRARY_PATH": f"{libraries}:{libraries}/ceph:{place / 'lib/x86_64-linux-gnu'}",
        "PYTHONPATH": str(place / "usr/lib/python3/dist-packages"),
    }


class Cluster:
    """The daemons, started one after another as each needs the one before."""

    def __init__(self, place: Path, folder: Path, ports: tuple[int, int, int]) -> None:
        self._place, self._folder = place, folder
        self._port, *self._monitor = ports
        self._environment = environment(place)
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for name in ("mon", "osd", "rgw", "run"):
            (self._folder / name).mkdir()
        osd = str(uuid.uuid4())
        mon_v2, mon_v1 = self._monitor
        values = {"fsid": uuid.uuid4(), "mon_v2": mon_v2, "mon_v1": mon_v1, "folder": self._folder}
        config = _CONFIG.format(**values, libraries=self._place / _LIBRARIES)
        (self._folder / "ceph.conf").write_text(config)
        address = f"[v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]"
        monmap = str(self._folder / "monmap")
        self._step("monmaptool", "--create", "--fsid", str(values["fsid"]), "--addv", "a", address, monmap)
        mon, data = (
            ["ceph-mon", "-i", "a", "--mon-data", str(self._folder / "mon")],
            str(self._folder / "osd"),
        )
        self._step(*mon, "--mkfs", "--monmap", monmap)
        self._daemon(*mon)
        # The command line is Debian's Python's, whatever runs the tests.
        self._step(
            "/usr/bin/python3",
            str(self._place / "usr/bin/ceph"),
            "--connect-timeout",
            "30",
            "osd",
            "new",
            osd,
        )
        self._step("ceph-osd", "-i", "0", "--osd-data", data, "--mkfs", "--osd-uuid", osd)
        self._daemon("ceph-osd", "-i", "0", "--osd-data", data)
        for user in USERS:
            self._step(
                *("radosgw-admin", "user", "create", "--uid", user, "--display-name", user),
                *("--access-key", user, "--secret-key", user),
                *(("--caps", "user-policy=*") if user == USERS[0] else ()),
            )
        self._daemon(
            "radosgw", "-n", "client.admin", "--rgw-frontends", f"beast endpoint=127.0.0.1:{self._port}"
        )

    def watch(self) -> None:
        """Wait until a daemon ends."""
        while all(daemon.poll() is None for daemon in self._daemons):
            time.sleep(0.5)

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.kill()  # all it has is in memory
        for daemon in self._daemons:
            daemon.wait()

    def _command(self, *arguments: str) -> list[str]:
        program = (
            arguments[0] if arguments[0].startswith("/") else str(self._place / "usr/bin" / arguments[0])
        )
        return [program, *arguments[1:]]

    def _step(self, *arguments: str) -> None:
        config = [] if arguments[0] == "monmaptool" else ["-c", str(self._folder / "ceph.conf")]
        subprocess.run(
            self._command(*arguments, *config),
            cwd=self._folder,
            env=self._environment,
            check=True,
            timeout=_STEP_TIMEOUT_S,
        )

    def _daemon(self, *arguments: str) -> None:
        command = self._command(*arguments, "-f", "-c", str(self._folder / "ceph.conf"))
        self._daemons.append(subprocess.Popen(command, cwd=self._folder, env=self._environment))


def main(folder: str, *ports: str) -> None:
    place = root()
    if place is None:
        sys.exit("Ceph is not installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cluster = Cluster(place, Path(folder).resolve(), tuple(map(int, ports)))  # type: ignore[arg-type]
    try:
        cluster.start()
        cluster.watch()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
