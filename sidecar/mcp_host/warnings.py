"""What a person should know of an entry before they let it start; no reason to refuse it.

Pure, and about what the entry says alone: a package runner that runs whatever is newest, a key
where every program sees it, or on the wire for anyone to read.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from itertools import pairwise
from pathlib import PureWindowsPath
from urllib.parse import urlsplit

from sidecar.config import McpServerConfig
from sidecar.redaction import redact

_EXACT = re.compile(r"v?\d+(\.\d+)+[\w.+-]*")
_OF_SHELL = re.compile(r"/[cCkK]")
_LOCAL = re.compile(r"[./~]|[A-Za-z]:\\|file:")
# Options that take the next argument along, so that it is not mistaken for the package.
# fmt: off
_NPM = frozenset((
    "-p", "--package", "-c", "--call", "--registry", "--cache", "-w", "--workspace", "--prefix",
    "--userconfig",
))
_UV = frozenset((
    "--from", "--with", "--with-editable", "--with-requirements", "-p", "--python", "--index",
    "--default-index", "-i", "--index-url", "--extra-index-url", "-f", "--find-links",
    "--directory", "--project", "--config-file", "--env-file", "--cache-dir", "-c",
    "--constraints", "--overrides", "-P", "--upgrade-package", "--exclude-newer", "-w",
))
_PIPX = frozenset(("--spec", "--python", "--pip-args", "--index-url", "-i"))
_DOCKER = frozenset((
    "-a", "-c", "-e", "-h", "-l", "-m", "-p", "-u", "-v", "-w", "--add-host", "--cap-add",
    "--cap-drop", "--cpus", "--device", "--dns", "--entrypoint", "--env", "--env-file", "--gpus",
    "--hostname", "--ipc", "--label", "--log-driver", "--log-opt", "--memory", "--mount", "--name",
    "--network", "--net", "--pid", "--platform", "--publish", "--pull", "--restart", "--runtime",
    "--security-opt", "--shm-size", "--tmpfs", "--ulimit", "--user", "--userns", "--volume",
    "--volumes-from", "--workdir",
))
# fmt: on


def warnings(config: McpServerConfig) -> tuple[str, ...]:
    """Sentences, each with what to do."""
    return tuple((*_of_url(config), *_of_package(config), *_of_arguments(config.args)))


def _of_url(config: McpServerConfig) -> Iterator[str]:
    parts = urlsplit(config.url or "")
    if parts.scheme == "http" and not _is_this_machine(parts.hostname or ""):
        yield (
            f"What is said to {parts.hostname} can be read on the way, keys included: "
            "write https: in `url` if it can be had."
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _of_arguments(args: Sequence[str]) -> Iterator[str]:
    with_options = (f"{option}={value}" for option, value in pairwise(args) if option[:1] == "-")
    if any(redact(text) != text for text in (*args, *with_options)):
        yield (
            "An argument looks like a key, and every program of this machine can read the "
            "arguments of others: give it in `env`."
        )


def _of_package(config: McpServerConfig) -> Iterator[str]:
    command, args = _unwrapped(config.command or "", config.args)
    match (command, *args):
        case (
            ("npx" | "bunx" | "pnpx", *rest)
            | ("npm", "exec" | "x", *rest)
            | ("pnpm" | "yarn", "dlx", *rest)
            | ("bun", "x", *rest)
        ):
            yield from _unpinned_npm(_package(rest, _NPM, "-p", "--package"))
        case ("uvx", *rest) | ("uv", "tool", "run", *rest):
            if not any(arg.startswith("--exclude-newer") for arg in rest):
                yield from _unpinned_python(_package(rest, _UV, "--from"))
        case ("pipx", "run", *rest):
            yield from _unpinned_python(_package(rest, _PIPX, "--spec"))
        case ("deno", "run", *rest):
            module = next((arg for arg in rest if arg.startswith(("npm:", "jsr:"))), None)
            if module is not None:
                yield from _unpinned_npm(module[4:])
        case ("docker" | "podman", "run", *rest) | ("docker" | "podman", "container", "run", *rest):
            yield from _unpinned_image(_package(rest, _DOCKER))


def _unwrapped(command: str, args: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Without the `cmd /c` that Windows is given to start a batch file."""
    name = PureWindowsPath(command).name.lower()  # which knows both kinds of slashes
    name = re.sub(r"\.(exe|cmd|bat)$", "", name)
    if name == "cmd" and len(args) > 1 and _OF_SHELL.fullmatch(args[0]):
        return _unwrapped(args[1], args[2:])
    return name, args


def _package(args: Sequence[str], taking: frozenset[str], *naming: str) -> str | None:
    """What an option names as the package, else the first argument that is none."""
    waiting = iter(args)
    for arg in waiting:
        name, _, value = arg.partition("=")
        if name in naming:
            return value or next(waiting, None)
        if arg in taking:
            next(waiting, None)
        elif arg == "--":
            return next(waiting, None)
        elif not arg.startswith("-"):
            return arg
    return None


def _unpinned_npm(package: str | None) -> Iterator[str]:
    if package is None or _LOCAL.match(package):
        return
    if "://" in package or re.match(r"\w+:", package):
        if "#" not in package:
            yield _unpinned(package, f"{package}#COMMIT")
        return
    name, _, version = package[1:].partition("@")  # the first may be a scope's
    if not _EXACT.fullmatch(version):
        name = package[:1] + name
        yield _unpinned(package, f"{name}@1.2.3")


def _unpinned_python(package: str | None) -> Iterator[str]:
    if package is None or _LOCAL.match(package):
        return
    if "://" in package:
        if "@" not in package.partition("://")[2].partition("/")[2]:
            yield _unpinned(package, f"{package}@COMMIT")
        return
    name, version = re.split(r"===?|@|(?=[<>~!])|$", package, maxsplit=1)
    if not _EXACT.fullmatch(version):
        yield _unpinned(package, f"{name}@1.2.3")


def _unpinned_image(image: str | None) -> Iterator[str]:
    if image is None or "@sha256:" in image:
        return
    _, _, tag = image.rpartition("/")[2].partition(":")
    if tag in ("", "latest"):
        yield _unpinned(image, f"{image.removesuffix(':latest')}:TAG")


def _unpinned(package: str, pinned: str) -> str:
    return (
        f"It runs whatever {redact(package)} is when it starts, which may change without your "
        f"approval: name a version, as in {redact(pinned)}."
    )
