"""Keyrings for tests: one in memory, and one in a file for a sidecar in a process of its own."""

import json
import os
from pathlib import Path
from typing import ClassVar

from keyring.backend import KeyringBackend

FILE_VARIABLE = "TEST_KEYRING_FILE"


class MemoryKeyring:
    """Keeps its secrets as long as it lives; a back end for `sidecar.credentials.Keyring`."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.secrets.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.secrets[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.secrets[service, username]


class FileKeyring(KeyringBackend):
    """For `PYTHON_KEYRING_BACKEND`; its file is named by FILE_VARIABLE."""

    priority: ClassVar[float] = 1

    def get_password(self, service: str, username: str) -> str | None:
        return self._load().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._save({**self._load(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        secrets = self._load()
        del secrets[f"{service}/{username}"]
        self._save(secrets)

    def _load(self) -> dict[str, str]:
        file = _file()
        secrets: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        return secrets

    def _save(self, secrets: dict[str, str]) -> None:
        _file().write_text(json.dumps(secrets))


def _file() -> Path:
    return Path(os.environ[FILE_VARIABLE])
