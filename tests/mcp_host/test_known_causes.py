"""What real servers and their runners write, and the one thing that a person is told to do."""

import time

import pytest

from sidecar.mcp_host.diagnosis import stdio_failure
from sidecar.mcp_host.known_causes import advice_on

# (what is on stderr, a part of the advice); the texts are those of the programs themselves
CAUSES = [
    # ---- npm and npx
    (
        """
npm error code E404
npm error 404 Not Found - GET https://registry.example.com/mcp-no-such
npm error 404  The requested resource 'mcp-no-such@*' could not be found or you do not have
permission to access it.
npm error A complete log of this run can be found in: /home/a/.npm/_logs/debug-0.log""",
        "npm knows no package of that name",
    ),
    ("npm ERR! code E404\nnpm ERR! 404 Not Found", "npm knows no package of that name"),
    (
        "npm error code ETARGET\nnpm error notarget No matching version found for x@9.9.9.",
        "not that version",
    ),
    (
        """
npm error code ECONNREFUSED
npm error syscall connect
npm error errno ECONNREFUSED
npm error FetchError: request to http://127.0.0.1:9/x failed, reason: connect ECONNREFUSED
127.0.0.1:9""",
        "npm could not reach its registry",
    ),
    (
        "npm error code ENOTCACHED\nnpm error request to https://registry.example.com/x failed: "
        "cache mode is 'only-if-cached' but no cached response is available.",
        "npm could not reach its registry",
    ),
    (
        """
npm error code EACCES
npm error syscall open
npm error path /Users/a/.npm/_cacache/tmp/d9f4
npm error errno EACCES
npm error Your cache folder contains root-owned files, due to a bug in
npm error previous versions of npm which has since been addressed.""",
        "sudo chown -R",
    ),
    ("npm error code ENOTEMPTY\nnpm error syscall rename", "cache is damaged"),
    ("npm error could not determine executable to run", "no program to run"),
    (
        """
npm error code EBADENGINE
npm error engine Unsupported engine
npm error engine Not compatible with your version of node/npm: x@1.0.0""",
        "newer Node.js",
    ),
    (
        """
node:internal/modules/esm/resolve:274
    throw new ERR_MODULE_NOT_FOUND(
Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/a/.npm/_npx/4d0da7c6f53b225e/node_modules/x/i.js'
  code: 'ERR_MODULE_NOT_FOUND',""",
        "delete the folder `~/.npm/_npx/4d0da7c6f53b225e`",
    ),
    # ---- Node.js
    (
        """
node:internal/modules/cjs/loader:1210
  throw err;
  ^

Error: Cannot find module '/home/a/server/build/index.js'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15)
  code: 'MODULE_NOT_FOUND',""",
        "There is no file /home/a/server/build/index.js",
    ),
    (
        "Error: Cannot find module 'express'\nRequire stack:\n- /home/a/server.cjs",
        "The npm package express is not installed",
    ),
    (
        "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'zod' imported from /home/a/index.mjs",
        "The npm package zod is not installed",
    ),
    ("ReferenceError: fetch is not defined\n    at main (index.js:3:1)", "Node.js is too old"),
    (
        """
file:///home/a/.npm/_npx/28829/lib/node_modules/mcp-remote/dist/chunk.js:5452
crypto = globalThis.crypto?.webcrypto ?? // Node.js [18-16] REPL
                           ^

SyntaxError: Unexpected token '.'
    at Loader.moduleStrategy (internal/modules/esm/translators.js:140:18)""",
        "Node.js is too old",
    ),
    (
        "Error: The module '/a/better_sqlite3.node'\nwas compiled against a different Node.js "
        "version using\nNODE_MODULE_VERSION 115.",
        "npm rebuild",
    ),
    (
        "Error: listen EADDRINUSE: address already in use :::3000\n    at Server.setupListenHandle",
        "Port 3000 is taken",
    ),
    ("Error: listen EADDRINUSE: address already in use 127.0.0.1:8080", "Port 8080 is taken"),
    (
        "Error: EACCES: permission denied, open '/etc/secret.json'\n    at openSync",
        "may not use /etc/secret.json",
    ),
    (
        "Error: EPERM: operation not permitted, scandir '/Users/a/Documents'",
        "Privacy & Security",
    ),
    (
        "Error accessing directory /home/a/Docs: Error: ENOENT: no such file or directory, stat "
        "'/home/a/Docs'",
        "There is no /home/a/Docs",
    ),
    ("Error: spawn docker ENOENT\n    at ChildProcess._handle.onexit", "It starts docker"),
    ("Error: getaddrinfo ENOTFOUND db.example.com", "the address of db.example.com"),
    ("Error: connect ECONNREFUSED 127.0.0.1:5432", "Nobody answers at 127.0.0.1:5432"),
    (
        "TypeError: fetch failed\n  cause: Error: self-signed certificate in certificate chain\n"
        "    code: 'SELF_SIGNED_CERT_IN_CHAIN'",
        "NODE_EXTRA_CA_CERTS",
    ),
    ("Error: unable to get local issuer certificate", "NODE_EXTRA_CA_CERTS"),
    ("Error: certificate has expired\n  code: 'CERT_HAS_EXPIRED'", "certificate has expired"),
    (
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "out of memory",
    ),
    (
        "Error: ENOSPC: System limit for number of file watchers reached, watch '/home/a'",
        "watches no more files",
    ),
    # ---- uv and uvx
    (
        """
error: No solution found when resolving tool dependencies
  cause: Because mcp-no-such was not found in the package registry and you require mcp-no-such, we
can conclude that your requirements are unsatisfiable.""",
        "uv knows no package named mcp-no-such",
    ),
    (
        """
  × No solution found when resolving tool dependencies:
  ╰─▶ Because there is no version of mcp-server-time==0.0.1 and you require
      mcp-server-time==0.0.1, we can conclude that your requirements are unsatisfiable.""",
        "uv knows no version mcp-server-time==0.0.1",
    ),
    (
        """
  × No solution found when resolving tool dependencies:
  ╰─▶ Because the current Python version (3.9.6) does not satisfy Python>=3.10 and
      mcp-server-time depends on Python>=3.10""",
        "It needs Python >=3.10",
    ),
    (
        """
An executable named `time` is not provided by package `mcp-server-time`.
The following executables are available:
- mcp-server-time""",
        "`--from mcp-server-time PROGRAM`",
    ),
    (
        "error: No interpreter found for Python 3.14 in managed installations or search path",
        "uv has no Python 3.14",
    ),
    (
        """
error: Failed to fetch: `https://packages.example.com/simple/mcp-server-time/`
  cause: client error (Connect)
  cause: dns error
  cause: failed to lookup address information: Name or service not known""",
        "could not reach the network",
    ),
    (
        """
error: Failed to fetch: `https://packages.example.com/simple/mcp-server-time/`
  Caused by: client error (Connect)
  Caused by: invalid peer certificate: UnknownIssuer""",
        "SSL_CERT_FILE",
    ),
    (
        "error: Failed to spawn: `server.py`\n  Caused by: No such file or directory (os error 2)",
        "server.py is not there",
    ),
    # ---- Python
    (
        """
Traceback (most recent call last):
  File "/x/server.py", line 60, in main
    @server.list_resources()
AttributeError: 'Server' object has no attribute 'list_resources'""",
        "--with mcp<2",
    ),
    (
        """
Traceback (most recent call last):
  File "/home/a/server.py", line 1, in <module>
    from mcp.server.fastmcp import FastMCP
ModuleNotFoundError: No module named 'mcp'""",
        "The Python package mcp is not installed",
    ),
    ("/usr/bin/python3: No module named mcp_server_git", "package mcp_server_git is not"),
    (
        "python3: can't open file '/home/a/server.py': [Errno 2] No such file or directory",
        "There is no file /home/a/server.py",
    ),
    (
        "ImportError: cannot import name 'Server' from 'mcp.server' (/x/mcp/server/__init__.py)",
        "another version of mcp.server",
    ),
    (
        "TypeError: unsupported operand type(s) for |: 'type' and 'NoneType'",
        "Python is too old",
    ),
    (
        "ERROR: Package 'mcp' requires a different Python: 3.9.6 not in '>=3.10'",
        "It needs Python >=3.10",
    ),
    (
        "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): "
        "address already in use",
        "Port 8000 is taken",
    ),
    ("OSError: [Errno 48] Address already in use", "Its port is taken"),
    ("PermissionError: [Errno 13] Permission denied: '/var/log/x'", "may not use /var/log/x"),
    (
        "FileNotFoundError: [Errno 2] No such file or directory: '/home/a/db.sqlite'",
        "There is no /home/a/db.sqlite",
    ),
    ("OSError: [Errno 28] No space left on device", "disk is full"),
    (
        "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
        "unable to get local issuer certificate (_ssl.c:1006)",
        "SSL_CERT_FILE",
    ),
    (
        "requests.exceptions.ProxyError: HTTPSConnectionPool(host='api.example.com', port=443)",
        "The proxy refuses it",
    ),
    ("ERROR:mcp_server_git.server:/home/a is not a valid Git repository", "no Git repository"),
    # ---- variables
    ("KeyError: 'GITHUB_TOKEN'", "the variable GITHUB_TOKEN"),
    ("Error: BRAVE_API_KEY environment variable is required", "the variable BRAVE_API_KEY"),
    ("GITHUB_PERSONAL_ACCESS_TOKEN not set", "the variable GITHUB_PERSONAL_ACCESS_TOKEN"),
    (
        "Please set SLACK_BOT_TOKEN and SLACK_TEAM_ID environment variables",
        "the variable SLACK_BOT_TOKEN",
    ),
    ("Missing required environment variable: NOTION_TOKEN", "the variable NOTION_TOKEN"),
    (
        "ValueError: Environment variable `POSTGRES_URL` must be provided",
        "the variable POSTGRES_URL",
    ),
    ("HttpError: Bad credentials", "key or token was refused"),
    # ---- Docker
    (
        "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker "
        "daemon running?.\nSee 'docker run --help'.",
        "Docker does not run",
    ),
    (
        'docker: error during connect: Head "http://%2F%2F.%2Fpipe%2FdockerDesktopLinuxEngine/'
        '_ping": open //./pipe/dockerDesktopLinuxEngine: The system cannot find the file.',
        "Docker does not run",
    ),
    (
        "docker: permission denied while trying to connect to the Docker daemon socket at "
        "unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied.",
        "group `docker`",
    ),
    (
        "Unable to find image 'mcp/none:latest' locally\ndocker: Error response from daemon: pull "
        "access denied for mcp/none, repository does not exist or may require 'docker login'",
        "load the image mcp/none",
    ),
    (
        "docker: Error response from daemon: manifest for mcp/time:v9 not found: manifest unknown",
        "no image of that name and tag",
    ),
    (
        "docker: no matching manifest for linux/arm64/v8 in the manifest list entries.",
        "--platform linux/amd64",
    ),
    (
        'docker: Error response from daemon: Conflict. The container name "/mcp" is already in use '
        'by container "1f".',
        "docker rm -f mcp",
    ),
    ("the input device is not a TTY", "in place of `-it`"),
    (
        "docker: Error response from daemon: Bind for 0.0.0.0:8080 failed: port is already "
        "allocated",
        "Port 8080 is taken",
    ),
    # ---- the system
    ("env: node: No such file or directory", "node is not on its PATH"),
    ("/usr/bin/env: ‘node’: No such file or directory", "node is not on its PATH"),
    ("sh: 1: mcp-server-x: not found", "mcp-server-x is not on its PATH"),
    ("bash: line 1: uvx: command not found", "uvx is not on its PATH"),
    ("zsh:1: command not found: uvx", "uvx is not on its PATH"),
    (
        "'npx' is not recognized as an internal or external command,\r\noperable program or batch "
        "file.",
        "npx is not on its PATH",
    ),
    (
        "xcrun: error: invalid active developer path (/Library/Developer/CommandLineTools)",
        "xcode-select --install",
    ),
    ("./server: error while loading shared libraries: libssl.so.1.1: cannot open", "libssl.so.1.1"),
    (
        "./server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found",
        "newer system (GLIBC_2.38)",
    ),
    ("sh: ./server: cannot execute binary file: Exec format error", "another processor"),
    ("error: Uncaught (in promise) NotCapable: Requires read access to", "--allow-read"),
]


@pytest.mark.parametrize(("stderr", "advice"), CAUSES)
def test_a_known_cause_is_told_with_what_to_do(stderr: str, advice: str) -> None:
    assert advice in (advice_on(stderr.strip().splitlines()) or "nothing")


@pytest.mark.parametrize(
    "stderr",
    [
        "",
        "Secure MCP Filesystem Server running on stdio",
        "ERROR the file was not found",
        "npm warn deprecated inflight@1.0.6: This module is not supported",
        "Error [ERR_SOMETHING_ELSE]: it is required that nothing was",
        "2026-11-27 INFO Processing request of type ListToolsRequest",
        "Installed 32 packages in 41ms",
    ],
)
def test_what_has_no_known_cause_gets_no_advice(stderr: str) -> None:
    assert advice_on(stderr.splitlines()) is None


def test_the_advice_stands_in_the_error_and_the_words_in_its_detail() -> None:
    error = stdio_failure(
        "github",
        was_ready=False,
        exit_code=1,
        fault=None,
        junk=(),
        stderr=["GITHUB_TOKEN not set"],
        error=None,
    )

    assert str(error) == (
        "The MCP server github exited with code 1 before it was ready. "
        "It needs the variable GITHUB_TOKEN: add it to `env`."
    )
    assert error.detail == "GITHUB_TOKEN not set"


def test_no_text_takes_long_to_look_at() -> None:
    """On the loop, where chats stream; a server may write what it likes."""
    letters = ("A", "A_", "npm error code ", "'", "set A_", "env variable ", "Cannot find module '")
    for text in letters:
        lines = [text * (4096 // len(text))] * 20
        began = time.thread_time()  # whatever else the machine does
        advice_on(lines)
        assert time.thread_time() - began < 0.2, text  # 0.02 on an idle machine
