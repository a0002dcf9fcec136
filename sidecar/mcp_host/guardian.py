"""Who ends the servers when this process cannot: it was killed, and ran no line of its own.

One small shell, for all servers, in a session of its own. It reads from a pipe whose writing end
only we have: `+ 12` for a process group that began, `- 12` for one that is gone. When the pipe
ends with groups still listed, it ends these, and the descendants of theirs that are in other
groups. After a clean end there is none, and it just goes. If it is itself killed, another one is
started; for the moments in between there are the notes (`run_notes.py`) that the next start reads.

A number stays a group's as long as anyone is in it, its leader or not, so nobody else is hit: we
take a number back in the moment in which all of its group have been killed, and the shell stops
naming one that it has once seen gone. Between the birth of a server and its `+` lie a few turns of
the event loop, in which asyncio keeps its pid to itself; who is killed just then leaves a server
that the notes do not know either, and that ends if it reads the end of its input.

Windows needs none of this: there the kernel ends a job when its last handle closes.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import structlog

from sidecar.mcp_host.run_notes import RunNotes
from sidecar.mcp_host.tree import OPENERS
from sidecar.mcp_host.variables import child_environment

RESTART_S = 1.0  # one that lives for less is not started again before a server needs it
GOODBYE_S = 3.0  # its script takes milliseconds with nobody listed, and else a little over 2 s
SHELL = "/bin/sh"
_ENVIRONMENT = ("HOME", "PATH")  # `ps` and `sleep` are on the path; nothing here is secret

# The strays are looked for before anybody is told to end: once a parent is gone, so is the trace.
SCRIPT = f"""
trap '' HUP INT QUIT TERM
groups=' '
while read -r sign id; do
  case $sign$groups in
    +*" $id "*) ;;
    +*) groups="$groups$id " ;;
    -*" $id "*) groups="${{groups%%" $id "*}} ${{groups#*" $id "}}" ;;
  esac
done
[ "$groups" = ' ' ] && exit
table=$(ps -A -o pid= -o ppid= -o pgid= -o comm= 2>/dev/null)
family=' '
strays=
before=
while [ "$before" != "$family" ]; do
  before=$family
  while read -r pid parent group name; do
    case $family in *" $pid "*) continue ;; esac
    case $name in {"|".join(OPENERS)}) continue ;; esac
    case $groups in
      *" $group "*) family="$family$pid " ;;
      *) case $family in *" $parent "*) family="$family$pid "; strays="$strays $pid" ;; esac ;;
    esac
  done <<END
$table
END
done
left=$strays
for group in $groups; do left="$left -$group"; done
for id in $left; do kill -s TERM -- "$id"; done 2>/dev/null
tries=20
while [ -n "$left" ] && [ $tries -gt 0 ]; do
  tries=$((tries - 1))
  sleep 0.1
  still=
  for id in $left; do kill -s 0 -- "$id" && still="$still $id"; done 2>/dev/null
  left=$still
done
for id in $left; do kill -s KILL -- "$id"; done 2>/dev/null
"""

log = structlog.get_logger()


class Guardian:
    """Knows the groups that live. All of it is quick and synchronous."""

    def __init__(self, notes: RunNotes | None) -> None:
        self._notes = notes
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._began_at = 0.0

    def be_ready(self) -> None:
        """Before a server is started: be there when it is. Without a shell, nobody is."""
        if self._process is None:
            self._start()

    def watch(self, server: str, pid: int) -> None:
        """This process of a server leads a group that has just begun."""
        self._groups.add(pid)
        self._tell(f"+ {pid}")
        if self._notes is not None:
            self._notes.began(server, pid)

    def release(self, pid: int) -> None:
        """All of its group have been killed, or have ended. From any thread."""
        if pid in self._groups:
            self._groups.discard(pid)
            self._tell(f"- {pid}")
            if self._notes is not None:
                self._notes.ended(pid)

    def close(self) -> None:
        """All servers have ended; it ends who is still listed, and itself."""
        process, self._process = self._process, None
        if process is not None:
            self._hang_up()
            try:
                process.wait(GOODBYE_S)
            except subprocess.TimeoutExpired:  # somebody has stopped it
                process.kill()
                process.wait()
        if self._notes is not None and not self._groups:
            self._notes.close()

    def _start(self) -> None:
        if sys.platform == "win32":
            return
        reading, writing = os.pipe()  # neither is inherited, but for what Popen makes stdin
        try:
            self._process = subprocess.Popen(
                [SHELL, "-c", SCRIPT, "sidecar-guardian"],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            os.close(writing)
            log.warning("guardian_not_started", reason=error.strerror)
            return
        finally:
            os.close(reading)
        os.set_blocking(writing, False)
        self._pipe, self._began_at = writing, time.monotonic()
        # the writing end of a pipe is readable when the other one is gone
        asyncio.get_running_loop().add_reader(writing, self._on_end)
        for pid in self._groups:
            self._tell(f"+ {pid}")

    def _tell(self, line: str) -> None:
        if self._process is None:
            return
        try:
            os.write(self._pipe, f"{line}\n".encode())
        except BrokenPipeError:
            pass  # `_on_end` comes
        except BlockingIOError:  # it does not read: somebody has stopped it
            self._process.kill()

    def _on_end(self) -> None:
        """It is not there any more; nobody but us should end it."""
        process, self._process = self._process, None
        self._hang_up()
        if process is not None:
            process.kill()
            process.wait()
        lived_s = time.monotonic() - self._began_at
        log.warning("guardian_ended", groups=len(self._groups), lived_s=round(lived_s, 1))
        if self._groups and lived_s > RESTART_S:
            self._start()

    def _hang_up(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)
        self._pipe = -1


def _environment() -> Mapping[str, str]:
    env = child_environment({})
    return {name: env[name] for name in _ENVIRONMENT if name in env}
