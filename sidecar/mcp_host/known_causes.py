"""What a server writes when it dies of something that a person can mend → the one thing to do.

Each cause is a pattern over one line and the advice, in which `{0}` is what the pattern took from
the line. The order decides: what knows more stands first, since one failure is told in several
lines. Lines are as a person may see them; nothing in them is taken for an instruction.
"""

import re
from collections.abc import Sequence

TAKEN_CHARS = 120  # of what a server wrote, in an advice
_NAME = r"((?!ERR_)[A-Z][A-Z0-9]*_[A-Z0-9_]+)"  # of a variable; without a line it is any word

_CAUSES = (
    # its package
    (
        r"AttributeError: 'Server' object has no attribute 'list_",
        "It was written for an older `mcp` package: add `--with mcp<2` to its uvx arguments.",
    ),
    (
        r"npm (?:error|ERR!) code E404",
        "npm knows no package of that name: correct `args`.",
    ),
    (
        r"npm (?:error|ERR!) code ETARGET",
        "npm knows the package, but not that version: correct it in `args`.",
    ),
    (
        r"npm (?:error|ERR!) could not determine executable to run",
        "The npm package has no program to run: is it the right one in `args`?",
    ),
    (
        r"npm (?:error|ERR!) code (?:EACCES|EPERM)",
        "npm may not write to its own folder: give it back to your user with "
        "`sudo chown -R $(id -u) ~/.npm`.",
    ),
    (
        r"npm (?:error|ERR!) code (?:ENOTEMPTY|EEXIST|EINTEGRITY)",
        "npm's cache is damaged: delete the folder `~/.npm/_npx`, and run "
        "`npm cache clean --force`.",
    ),
    (
        r"npm (?:error|ERR!) code (?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT"
        r"|ENETUNREACH|ERR_SOCKET_TIMEOUT|ENOTCACHED)",
        "npm could not reach its registry: check the network, and HTTPS_PROXY if there is a proxy.",
    ),
    (
        r"npm (?:error|ERR!) code (?:EBADENGINE|ENOTSUP)",
        "Its package wants a newer Node.js: install one (https://nodejs.org).",
    ),
    (
        r"Cannot find (?:module|package) '[^']*[/\\]_npx[/\\]([0-9a-f]+)[/\\]",
        "npm's copy of the package is incomplete: delete the folder `~/.npm/_npx/{0}`.",
    ),
    (
        r"Because (\S+) was not found in the package registry",
        "uv knows no package named {0}: correct `args`.",
    ),
    (
        r"Because there is no version of (\S+)",
        "uv knows no version {0}: correct it in `args`.",
    ),
    (
        r"An executable named `(\S+)` is not provided by package `(\S+)`",
        "The package {1} has no program {0}: write `--from {1} PROGRAM` in `args`.",
    ),
    (
        r"does not satisfy Python([<>=~][^ ]*)",
        "It needs Python {0}: choose one with `--python` in its uvx arguments.",
    ),
    (
        r"requires a different Python: \S+ not in '([^']+)'",
        "It needs Python {0}: give the path of a newer one as `command`.",
    ),
    (
        r"No interpreter found for (Python \S+)",
        "uv has no {0}: install it with `uv python install`, or change `--python` in `args`.",
    ),
    (
        r"No solution found when resolving",
        "uv found no set of packages that fit together: loosen the versions in `args`.",
    ),
    # Docker
    (
        r"Cannot connect to the Docker daemon|Is the docker daemon running"
        r"|docker: error during connect|failed to connect to the docker API"
        r"|dockerDesktopLinuxEngine",
        "Docker does not run: start it.",
    ),
    (
        r"permission denied while trying to connect to the [Dd]ocker",
        "Your user may not use Docker: add it to the group `docker`, and log in again.",
    ),
    (
        r"pull access denied for ([^\s,]+)",
        "Docker may not load the image {0}: correct its name in `args`, or run `docker login`.",
    ),
    (
        r"manifest(?: for (\S+))?(?: not found|.* unknown)|no such image",
        "Docker knows no image of that name and tag: correct `args`.",
    ),
    (
        r"no matching manifest for (\S+)",
        "There is no image for {0}: add `--platform linux/amd64` after `run` in `args`.",
    ),
    (
        r"[Tt]he container name \"/?([^\"]+)\" is already in use",
        "An old container has its name: run `docker rm -f {0}`, and add `--rm` to `args`.",
    ),
    (
        r"the input device is not a TTY|cannot attach stdin to a TTY-enabled container",
        "Docker was asked for a terminal: write `-i` in `args` in place of `-it`.",
    ),
    # certificates and proxies
    (
        r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate|SSLCertVerificationError",
        "It does not trust a certificate, as of a company's proxy: give the file of its authority "
        "as SSL_CERT_FILE in `env`.",
    ),
    (
        r"SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO_VERIFY_LEAF_SIGNATURE"
        r"|UNABLE_TO_GET_ISSUER_CERT|unable to get local issuer certificate"
        r"|self[- ]signed certificate",
        "It does not trust a certificate, as of a company's proxy: give the file of its authority "
        "as NODE_EXTRA_CA_CERTS in `env`.",
    ),
    (
        r"CERT_HAS_EXPIRED|certificate has expired",
        "A certificate has expired: check the clock of this machine, then ask who runs the server.",
    ),
    (
        r"407 Proxy Authentication Required|ProxyError|tunneling socket could not be established"
        r"|Proxy response \(4\d\d\)",
        "The proxy refuses it: correct HTTPS_PROXY in `env`.",
    ),
    # what it was given
    (
        r"KeyError: '([A-Z][A-Z0-9_]{2,})'",
        "It needs the variable {0}: add it to `env`.",
    ),
    (
        rf"(?i:\b(?:missing|set|provide|requires?|needs?|define|export)\b[^.\n]{{0,60}}?)\b{_NAME}\b"
        r"(?i:[^.\n]{0,40}\benv(?:ironment)?\b)",
        "It needs the variable {0}: add it to `env`.",
    ),
    (
        rf"(?i:\benv(?:ironment)?[ _-]?var(?:iable)?s?\b[^.\n]{{0,40}}?)\b{_NAME}\b",
        "It needs the variable {0}: add it to `env`.",
    ),
    (
        rf"\b{_NAME}\b(?i:[^.\n]{{0,40}}?\b(?:not set|(?:is|are) required|must be (?:set|provided)"
        r"|not (?:provided|defined|configured)|(?:is|are) missing|(?:is|are) not found))",
        "It needs the variable {0}: add it to `env`.",
    ),
    (
        r"(?i)\b401 unauthorized\b|bad credentials|invalid[ _]api[ _]key|incorrect api key"
        r"|invalid_auth\b",
        "Its key or token was refused: correct it in `env`.",
    ),
    (
        r"is not a valid Git repository|not a git repository",
        "Its folder is no Git repository: correct the path in `args`.",
    ),
    # what it runs on
    (
        r"xcrun: error: invalid active developer path",
        "Apple's command line tools are missing: run `xcode-select --install`.",
    ),
    (
        r"env: [‘'`]?([^:’'\s]+)[’']?: No such file or directory",
        "{0} is not on its PATH: install it, or add its folder to PATH in `env`.",
    ),
    (
        r"'([^']+)' is not recognized as an internal or external command",
        "{0} is not on its PATH: install it, or add its folder to PATH in `env`.",
    ),
    (
        r"command not found: (\S+)|(?:^|: )([^\s:]+): (?:command )?not found$",
        "{0} is not on its PATH: install it, or add its folder to PATH in `env`.",
    ),
    (
        r"\bspawn (\S+) ENOENT",
        "It starts {0}, which is not on its PATH: install it, or add its folder to PATH in `env`.",
    ),
    (
        r"[Ff]ailed to spawn: `?([^`\s]+)",
        "{0} is not there: correct `args`, or add `--directory` with its folder.",
    ),
    (
        r"ReferenceError: (?:fetch|File|Blob|FormData|Headers|ReadableStream|WebSocket|crypto"
        r"|navigator|structuredClone|CustomEvent) is not defined"
        r"|SyntaxError: Unexpected token '(?:\.|\?|\?\?=|\|\|=|&&=|with|assert)'"
        r"|SyntaxError: The requested module 'node:\S+' does not provide an export"
        r"|ERR_UNKNOWN_BUILTIN_MODULE|No such built-in module: node:|node: bad option"
        r"|TypeError: (?:Object\.groupBy|Promise\.withResolvers|\S+\.(?:toSorted|findLast|at))"
        r" is not a function|ERR_REQUIRE_ESM",
        "Its Node.js is too old: install a newer one (https://nodejs.org).",
    ),
    (
        r"TypeError: unsupported operand type\(s\) for \|: 'type'"
        r"|SyntaxError: invalid syntax.*\bmatch\b|ImportError: cannot import name '\w+' from "
        r"'(?:typing|enum|datetime|asyncio|collections\.abc)'|No module named 'tomllib'",
        "Its Python is too old: give the path of a newer one as `command`.",
    ),
    (
        r"was compiled against a different Node\.js version",
        "A part of it was built for another Node.js: run `npm rebuild` in its folder, or delete "
        "`~/.npm/_npx`.",
    ),
    (
        r"UnsupportedClassVersionError",
        "Its Java is too old: install a newer one.",
    ),
    (
        r"(?:No module named|ModuleNotFoundError:.*) '?([\w.]+)'?",
        "The Python package {0} is not installed in the Python that is its `command`.",
    ),
    (
        r"ImportError: cannot import name '(\w+)' from '([\w.]+)'",
        "Its Python packages do not fit together: another version of {1} is needed.",
    ),
    (
        r"can't open file '([^']+)'|Cannot find module '((?:/|[A-Za-z]:\\)[^']+)'"
        r"|Unable to access jarfile (\S+)|Module not found \"file://([^\"]+)\"",
        "There is no file {0}: correct the path in `args`, or build the server first.",
    ),
    (
        r"Cannot find (?:module|package) '([^']+)'",
        "The npm package {0} is not installed: run `npm install` in the server's folder.",
    ),
    (
        r"error while loading shared libraries: ([^\s:]+)",
        "The library {0} is not installed on this system.",
    ),
    (
        r"version `(GLIBC\w*_[\d.]+)' not found",
        "It was built for a newer system ({0}): use an older version of it, or its Docker image.",
    ),
    (
        r"[Ee]xec format error|Bad CPU type in executable|cannot execute binary file",
        "It was built for another processor: install the version for this one.",
    ),
    (
        r"NotCapable: Requires (\w+) access",
        "Deno does not let it: add `--allow-{0}` to `args`.",
    ),
    (
        r"running scripts is disabled on this system",
        "PowerShell runs no scripts here: start the `.cmd` of the same name as `command`.",
    ),
    (
        r"JavaScript heap out of memory",
        "It ran out of memory: add NODE_OPTIONS: --max-old-space-size=4096 to `env`.",
    ),
    # what is around it
    (
        r"EADDRINUSE\D*?(?:[\d.]*|\S*?):+(\d+)|[Bb]ind for \S+?:(\d+) failed: port is already"
        r"|error while attempting to bind on address \('[^']*', (\d+)",
        "Port {0} is taken: is another copy of it running?",
    ),
    (
        r"EADDRINUSE|[Aa]ddress already in use|port is already allocated"
        r"|Only one usage of each socket address",
        "Its port is taken: is another copy of it running?",
    ),
    (
        r"System limit for number of file watchers reached",
        "The system watches no more files: raise `fs.inotify.max_user_watches`.",
    ),
    (
        r"\bENOSPC\b|[Nn]o space left on device",
        "The disk is full: make room.",
    ),
    (
        r"(?:EACCES: permission denied|EPERM: operation not permitted), \w+ '([^']+)'"
        r"|PermissionError: \[Errno \d+\] [\w ]+: '([^']+)'",
        "It may not use {0}: give your user access to it, or correct the path in `args`. On macOS "
        "see Privacy & Security in the system's settings.",
    ),
    (
        r"(?:ENOENT: no such file or directory, \w+|FileNotFoundError: \[Errno 2\][\w ]+:)"
        r" '([^']+)'",
        "There is no {0}: correct `args` or `env`, or create it.",
    ),
    (
        r"getaddrinfo (?:ENOTFOUND|EAI_AGAIN) (\S+)",
        "It cannot find the address of {0}: check the name in `args` or `env`, and the network.",
    ),
    (
        r"connect ECONNREFUSED (\S+)",
        "Nobody answers at {0}: start what it connects to, or correct the address.",
    ),
    (
        r"[Ff]ailed to fetch: \S+|Request failed after \d+ retries|Failed to download `"
        r"|failed to lookup address information|[Tt]emporary failure in name resolution"
        r"|Name or service not known|nodename nor servname provided",
        "It could not reach the network: check it, and HTTPS_PROXY if there is a proxy.",
    ),
    (
        r"Connection refused|ConnectionRefusedError",
        "Nobody answers where it connects to: start that, or correct the address.",
    ),
)
KNOWN_CAUSES = tuple((re.compile(pattern), advice) for pattern, advice in _CAUSES)


def advice_on(stderr: Sequence[str]) -> str | None:
    """None when none of the lines has a known cause."""
    for pattern, advice in KNOWN_CAUSES:
        for line in stderr:
            if (found := pattern.search(line)) is not None:
                return advice.format(*(taken[:TAKEN_CHARS] for taken in found.groups() if taken))
    return None
