"""A well-behaved MCP server in a few lines of standard library, for tests to start and to spoil.

Speaks the handshake of 2025-11-25 over stdin and stdout. Run as a script it serves the tools
below; `faulty.py` starts from it.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
OBJECT: Json = {"type": "object"}


def tool(name: str, **more: Any) -> Json:
    return {"name": name, "description": f"{name}, for a test", "inputSchema": OBJECT, **more}


def text(value: str, **more: Any) -> Json:
    return {"content": [{"type": "text", "text": value}], **more}


class Plain:
    """`call_NAME(arguments)` is the tool NAME; a result of None is no answer."""

    def __init__(self) -> None:
        self.request_id: Any = None
        self.meta: Json = {}

    def serve(self) -> None:
        while line := sys.stdin.buffer.readline():
            self.receive(json.loads(line))

    def receive(self, message: Json) -> None:
        if "method" not in message:
            self.on_answer(message["result"])
            return
        if "id" not in message:
            self.on_notification(message["method"], message.get("params") or {})
            return
        self.request_id = message["id"]
        handler: Callable[[Json], Json | None] | None = getattr(
            self, "on_" + message["method"].replace("/", "_"), None
        )
        if handler is None:
            self.on_unknown(message)
            return
        result = handler(message.get("params") or {})
        if result is not None:
            self.send({"id": message["id"], "result": result})

    def send(self, message: Json) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def notify(self, method: str, **params: Any) -> None:
        self.send({"method": method, "params": params})

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def on_answer(self, result: Json) -> None:
        """To what `ask` asked: it is the result of that call."""
        self.send({"id": self.request_id, "result": text(json.dumps(result, sort_keys=True))})

    def on_unknown(self, message: Json) -> None:
        self.send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})

    def on_notification(self, method: str, params: Json) -> None:
        if method == "notifications/cancelled":
            self.say(f"cancelled {params['requestId']}")

    def on_initialize(self, params: Json) -> Json:
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "plain", "version": "1"},
        }

    def on_tools_list(self, params: Json) -> Json | None:
        names = sorted(name[5:] for name in dir(self) if name.startswith("call_"))
        return {"tools": [tool(name) for name in names]}

    def on_tools_call(self, params: Json) -> Json | None:
        self.meta = params.get("_meta") or {}
        handler: Callable[[Json], Json | None] = getattr(self, f"call_{params['name']}")
        return handler(params.get("arguments") or {})

    # ---- tools ----

    def call_echo(self, arguments: Json) -> Json | None:
        self.say(f"echo {arguments.get('text')}")
        return text(str(arguments.get("text")))

    def call_ask(self, arguments: Json) -> None:
        """Asks the person; the arguments are the parameters of `elicitation/create`."""
        self.say("asking")
        self.send({"id": "q1", "method": "elicitation/create", "params": arguments})

    def call_environment(self, arguments: Json) -> Json:
        return text(json.dumps(dict(os.environ)))

    def call_hang(self, arguments: Json) -> None:
        self.say(f"hanging {self.request_id}")

    def call_work(self, arguments: Json) -> Json:
        """Tells of its progress; `steps` and `step_s`."""
        for step in range(arguments["steps"]):
            time.sleep(arguments["step_s"])
            how_far = {
                "progress": step,
                "total": arguments["steps"],
                "message": f"step {step}\u202e",
            }
            token = self.meta["progressToken"]
            self.notify("notifications/progress", progressToken=token, **how_far)
        return text("worked")

    def call_big(self, arguments: Json) -> Json | None:
        return text("x" * arguments["bytes"])

    def call_structured(self, arguments: Json) -> Json:
        return {"content": [], "structuredContent": {"sum": 3}}

    def call_media(self, arguments: Json) -> Json:
        data = base64.b64encode(b"12345").decode()
        return {
            "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image", "mimeType": "image/png", "data": data},
                {"type": "audio", "mimeType": "audio/wav", "data": data},
                {"type": "resource_link", "name": "page", "uri": "https://example.com/page"},
                {"type": "resource", "resource": {"uri": "memo://1", "text": "a memo"}},
                {
                    "type": "resource",
                    "resource": {"uri": "memo://2", "blob": data, "mimeType": "application/zip"},
                },
            ]
        }

    def call_paint(self, arguments: Json) -> Json:
        """The image that it is given."""
        image = {"type": "image", "mimeType": "image/png", "data": arguments["data"]}
        return {"content": [image]}

    def call_refuse(self, arguments: Json) -> Json:
        return text("No, thank you.", isError=True)

    def call_fail(self, arguments: Json) -> None:
        """A JSON-RPC error of the server's own: `code` and `message`."""
        self.send({"id": self.request_id, "error": arguments})

    def call_malformed(self, arguments: Json) -> Json:
        """Blocks of which only the first and the last are as MCP has them."""
        return {
            "content": [
                {"type": "text", "text": "before"},
                {"type": "hologram"},
                {"type": "image", "data": 7, "mimeType": "image/png"},
                {"text": "no type"},
                "no object",
                {"type": "text", "text": "after"},
            ]
        }

    def call_formless(self, arguments: Json) -> Json:
        return {"content": "no list"}

    def call_die(self, arguments: Json) -> None:
        self.say("about to die")
        os.kill(os.getpid(), signal.SIGKILL)

    def call_child(self, arguments: Json) -> Json:
        """Start a process that outlives this one if nobody ends it, and tell its pid.

        `away` puts it into a session of its own.
        """
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            stdin=subprocess.DEVNULL,
            start_new_session=arguments.get("away", False),
        )
        return text(str(child.pid))


if __name__ == "__main__":
    Plain().serve()
