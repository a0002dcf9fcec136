"""A keyring of one's own: GNOME's, on a D-Bus of its own, in a folder of its own.

    with secret_service() as keyring:
        subprocess.run([...], env={**environment, **keyring.environ})
        keyring.lock()      # nobody can be asked for its password
        keyring.freeze()    # it answers nothing any more

The person's own keyring is neither seen nor touched. When it is left, no process and no file of
it stays. `missing_programs()` says what it needs and cannot find.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jeepney.io.blocking import DBusConnection  # type: ignore[import-untyped]

BUS, DAEMON = "dbus-daemon", "gnome-keyring-daemon"
PATIENCE_S = 10.0  # on a machine that does other things too
PASSWORD = b"correct horse"
# without folders of services: nothing is started on demand, so no prompt is ever shown
BUS_SETTINGS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:dir={folder}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""

State = Literal["unlocked", "locked", "missing"]


def missing_programs() -> str | None:
    """Why there can be no keyring here; None when there can."""
    missing = [program for program in (BUS, DAEMON) if shutil.which(program) is None]
    return f"needs {' and '.join(missing)}" if missing else None


@dataclass(frozen=True)
class SecretService:
    """`environ` is what a program needs to find it."""

    environ: Mapping[str, str]
    daemon: "subprocess.Popen[bytes] | None"

    def lock(self) -> None:
        """As a person does, with all that is in it."""
        import secretstorage

        with closing(_open_bus(self.environ)) as bus:
            collection = secretstorage.get_default_collection(bus)
            collection.lock()
            assert collection.is_locked()

    def freeze(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGSTOP)


@contextmanager
def secret_service(state: State = "unlocked") -> Iterator[SecretService]:
    """Empty; `locked` is one that was never opened, `missing` a bus on which there is none."""
    with ExitStack() as stack:
        # not a test's folder: the path of a socket has at most 107 characters
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="keyring-"))
        address = _start_bus(Path(folder), stack)
        environ = {"DBUS_SESSION_BUS_ADDRESS": address, "XDG_RUNTIME_DIR": folder}
        daemon = None
        if state != "missing":
            daemon = _start_daemon(environ, stack, is_unlocked=state == "unlocked")
        yield SecretService(environ, daemon)


def _start_bus(folder: Path, stack: ExitStack) -> str:
    settings = folder / "bus.conf"
    settings.write_text(BUS_SETTINGS.format(folder=folder))
    command = (BUS, "--nofork", "--print-address", f"--config-file={settings}")
    bus = _started(command, {"XDG_RUNTIME_DIR": str(folder)}, stack)
    assert bus.stdout is not None
    address = bus.stdout.readline().decode().strip()
    assert address, f"{BUS} ended at once"
    return address


def _start_daemon(
    environ: Mapping[str, str], stack: ExitStack, *, is_unlocked: bool
) -> "subprocess.Popen[bytes]":
    """Returns when it can be asked."""
    folder = environ["XDG_RUNTIME_DIR"]
    unlock = ("--unlock",) if is_unlocked else ()
    control = f"--control-directory={folder}/control"
    command = (DAEMON, "--foreground", "--components=secrets", control, *unlock)
    daemon = _started(command, environ, stack)
    assert daemon.stdin is not None
    if is_unlocked:
        daemon.stdin.write(PASSWORD)
    daemon.stdin.close()
    _wait_for_service(environ, daemon)
    return daemon


def _wait_for_service(environ: Mapping[str, str], daemon: "subprocess.Popen[bytes]") -> None:
    import secretstorage

    give_up_at = time.monotonic() + PATIENCE_S
    with closing(_open_bus(environ)) as bus:
        while not secretstorage.check_service_availability(bus):
            assert daemon.poll() is None, f"{DAEMON} ended with {daemon.returncode}"
            assert time.monotonic() < give_up_at, f"{DAEMON} has offered no service"
            time.sleep(0.01)  # nothing else runs


def _open_bus(environ: Mapping[str, str]) -> "DBusConnection":
    from jeepney.io.blocking import open_dbus_connection

    return open_dbus_connection(environ["DBUS_SESSION_BUS_ADDRESS"])


def _started(
    command: Sequence[str], environ: Mapping[str, str], stack: ExitStack
) -> "subprocess.Popen[bytes]":
    """Its files are below XDG_RUNTIME_DIR; it ends with the stack."""
    folder = environ["XDG_RUNTIME_DIR"]
    process = subprocess.Popen(
        command,
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # both complain of what a container does not allow
    )
    stack.enter_context(process)  # waits for it, and closes its pipes
    stack.callback(process.kill)  # what it keeps goes with the folder; ends a frozen one too
    return process
