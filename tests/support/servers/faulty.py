"""MCP servers that misbehave, one class per fault; the argument names the class."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

from tests.support.servers.plain import Json, Plain, text, tool


class ExitsAtOnce(Plain):
    def serve(self) -> None:
        self.say("Traceback: the settings file is missing")
        sys.exit(3)


class Mute(Plain):
    """Reads everything and answers nothing."""

    def receive(self, message: Json) -> None:
        self.say(f"ignored {message['method']}")


class Banner(Plain):
    """Greets on stdout before it serves, and keeps talking."""

    def serve(self) -> None:
        self.write(b"\x1b[1mWelcome!\x1b[0m\nListening on stdio\n\n")
        super().serve()

    def call_echo(self, arguments: Json) -> Json | None:
        self.write(b"DEBUG: echoing\n{}\n")
        return super().call_echo(arguments)


class BadUtf8(Plain):
    def call_echo(self, arguments: Json) -> None:
        line = json.dumps({"jsonrpc": "2.0", "id": self.request_id, "result": text("caf?")})
        self.write(line.replace("?", "\xe9").encode("latin-1") + b"\n")


class HalfSurrogate(Plain):
    """As JavaScript does when it cuts a string in the middle of an emoji."""

    def call_echo(self, arguments: Json) -> Json | None:
        return text("cut \ud83d")


class Deaf(Plain):
    """Ignores SIGTERM and the end of its stdin."""

    def serve(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        super().serve()
        time.sleep(60)


class DeafParent(Deaf):
    """With a child that is as deaf, in a session of its own."""

    def serve(self) -> None:
        script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        command = [sys.executable, "-c", f"{script}; time.sleep(60)"]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        super().serve()


class DiesOnProbe(Plain):
    def on_unknown(self, message: Json) -> None:
        self.say(f"unknown method {message['method']}")
        sys.exit(1)


class MalformedTools(Plain):
    def on_tools_list(self, params: Json) -> Json:
        return {
            "tools": [
                tool("echo"),
                {"name": "no_schema"},
                tool("bad_annotations", annotations={"readOnlyHint": "perhaps"}),
                tool("bad_type", inputSchema={"type": "object", "properties": {"a": {"type": 7}}}),
                tool("array_arguments", inputSchema={"type": "array"}),
                "not even an object",
                tool("n" * 129),
                tool("too_large", outputSchema={"type": "object", "title": "x" * 2**18}),
                tool("refuse"),
            ]
        }


class EndlessCursor(Plain):
    """Every page has a next one, with a tool of its own."""

    pages = 0

    def on_tools_list(self, params: Json) -> Json:
        self.pages += 1
        return {"tools": [tool(f"tool_{self.pages}")], "nextCursor": str(self.pages)}


class SameCursor(EndlessCursor):
    def on_tools_list(self, params: Json) -> Json:
        return {**super().on_tools_list(params), "nextCursor": "again"}


class ManyTools(Plain):
    def on_tools_list(self, params: Json) -> Json:
        return {"tools": [tool(f"tool_{number:04}") for number in range(600)]}


class ListFails(Plain):
    """Its list of tools is no list, until the tools changed."""

    def on_tools_list(self, params: Json) -> Json:
        return {"tools": "soon"}


class Changing(Plain):
    """`grow` adds a tool and changes one, and says so five times, as real servers do."""

    version = 1

    def on_tools_list(self, params: Json) -> Json:
        echo = tool("echo", description=f"version {self.version}", title="t" * 300)
        return {"tools": [echo, tool("grow"), *([tool("new")] if self.version > 1 else [])]}

    def call_grow(self, arguments: Json) -> Json:
        self.version += 1
        for _ in range(5):
            self.notify("notifications/tools/list_changed")
        return text("grown")


class ClosesOutput(Plain):
    """Stays alive without a stdout."""

    def call_die(self, arguments: Json) -> None:
        os.close(1)
        time.sleep(60)


class EndlessLine(Plain):
    def call_big(self, arguments: Json) -> None:
        while True:
            self.write(b"x" * 2**20)


class EvilPattern(Plain):
    """Promises what takes seconds to check, breaks it, and writes its ids in another way."""

    def on_tools_list(self, params: Json) -> Json | None:
        schema = {"type": "object", "properties": {"sum": {"pattern": "^(a+)+$"}}}
        listed = {"tools": [tool("structured", outputSchema=schema)]}
        self.send({"id": f"0{self.request_id}", "result": listed})
        return None

    def call_structured(self, arguments: Json) -> Json:
        return {"content": [], "structuredContent": {"sum": "a" * 25 + "!"}}


class Leaky(Plain):
    """Tells its key and ends."""

    def serve(self) -> None:
        key = os.environ["SERVICE_KEY"]
        self.write(f"my key is {key}\n".encode())
        self.say(f"cannot log in with {key}")
        sys.exit(1)


class ClosesInput(Plain):
    """Takes one call and no more, and answers it later than others would wait for its end."""

    def serve(self) -> None:
        line = b""
        while byte := os.read(0, 1):  # unbuffered, so that stdin may be closed
            line += byte
            if byte == b"\n":
                message = json.loads(line)
                if message["method"] == "tools/call":
                    os.close(0)
                    time.sleep(2.5)
                    self.send({"id": message["id"], "result": text("late but right")})
                    time.sleep(60)
                self.receive(message)
                line = b""


class AnswersAndExits(Plain):
    """Its last answer is in the pipe when the process is gone already."""

    def call_die(self, arguments: Json) -> None:
        self.send({"id": self.request_id, "result": text("my last words")})
        os._exit(0)


class ListsLater(Plain):
    """Its first list is none."""

    lists = 0

    def on_tools_list(self, params: Json) -> Json | None:
        self.lists += 1
        return super().on_tools_list(params) if self.lists > 1 else {"tools": "soon"}


class Stormy(Plain):
    """Announces changes on and on, and says when it is asked for them."""

    def on_tools_list(self, params: Json) -> Json | None:
        self.say(f"listed {time.monotonic()}")
        return super().on_tools_list(params)

    def on_notification(self, method: str, params: Json) -> None:
        threading.Thread(target=self.storm, daemon=True).start()

    def storm(self) -> None:
        while True:
            self.notify("notifications/tools/list_changed")
            time.sleep(0.005)


class Inattentive(Plain):
    """Of the revision 2026-07-28; every subscription is over at once."""

    def on_server_discover(self, params: Json) -> Json:
        return {
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {"listChanged": True}, "prompts": {"listChanged": True}},
            "ttlMs": 0,
            "cacheScope": "private",
        }

    def on_subscriptions_listen(self, params: Json) -> Json:
        self.say(f"listen {time.monotonic()} {sorted(params['notifications'])}")
        return {"resultType": "complete"}

    def on_tools_list(self, params: Json) -> Json | None:
        self.say("listed")
        listed = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        return {**listed, "tools": [tool("echo")]}


class Held(Plain):
    """Does not begin before the file HOLD is gone; its version is VERSION, and its tool says so."""

    def serve(self) -> None:
        while os.path.exists(os.environ["HOLD"]):
            time.sleep(0.01)
        super().serve()

    def on_unknown(self, message: Json) -> None:
        self.say(f"unknown method {message['method']}")
        super().on_unknown(message)

    def on_initialize(self, params: Json) -> Json:
        info = {"name": "held", "version": os.environ["VERSION"]}
        return {**super().on_initialize(params), "serverInfo": info}

    def on_tools_list(self, params: Json) -> Json:
        echo = tool("echo", description=f"of version {os.environ['VERSION']}")
        return {"tools": [echo, tool("die"), tool("work")]}


class WantsProbe(Plain):
    """Ends on a handshake that no probe came before."""

    was_probed = False

    def on_unknown(self, message: Json) -> None:
        self.was_probed = True
        super().on_unknown(message)

    def on_initialize(self, params: Json) -> Json:
        if not self.was_probed:
            sys.exit(1)
        return super().on_initialize(params)


if __name__ == "__main__":
    globals()[sys.argv[1]]().serve()
