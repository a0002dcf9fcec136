import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from sidecar.config import Config, Flags, Loaded, load, masked, show, starter
from sidecar.errors import ConfigInvalid
from sidecar.paths import Folders, shipped_settings


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "config", tmp_path / "data", tmp_path / "log")


class Settings:
    """A person's settings: writes their file and loads it."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.file = folders.settings_file
        folders.make()

    def __call__(
        self, text: str = "", environ: dict[str, str] | None = None, **arguments: Any
    ) -> Loaded:
        if text:
            self.file.write_text(textwrap.dedent(text), "utf-8")
        return load(self.folders, environ=environ or {}, **arguments)

    def problem(self, text: str, environ: dict[str, str] | None = None, **arguments: Any) -> str:
        with pytest.raises(ConfigInvalid) as caught:
            self(text, environ, **arguments)
        return str(caught.value).replace(f"{self.file}, ", "")


@pytest.fixture
def settings(folders: Folders) -> Settings:
    return Settings(folders)


# What ships.


def sections(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield above, model
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation, f"{above}{name}.")


def test_the_shipped_file_has_exactly_the_keys_of_the_models() -> None:
    written: Any = yaml.safe_load(shipped_settings().read_text("utf-8"))

    for place, model in sections(Config):
        section = written
        for step in filter(None, place.split(".")):
            section = section[step]
        assert set(section) == set(model.model_fields), place or "top level"


def test_the_shipped_file_says_every_key_of_an_entry_in_a_comment() -> None:
    text = shipped_settings().read_text("utf-8")

    entries = [
        get_args(field.annotation)[1]
        for _, model in sections(Config)
        for field in model.model_fields.values()
        if get_origin(field.annotation) is dict
    ]
    missing = [name for entry in entries for name in entry.model_fields if f"{name}:" not in text]
    assert len(entries) == 2
    assert set(missing) <= {"connect_timeout_s"}  # named with call_timeout_s, on one line
    assert "connect_timeout_s, call_timeout_s:" in text


def test_the_shipped_providers_have_no_key_and_a_kind(settings: Settings) -> None:
    providers = settings().config.providers

    assert set(providers) >= {"openai", "anthropic", "gemini", "ollama", "lmstudio", "openrouter"}
    assert all(provider.model_fields_set <= {"kind", "base_url"} for provider in providers.values())


def test_without_any_file_everything_is_a_default(settings: Settings) -> None:
    loaded = settings()

    assert set(loaded.sources.values()) == {"default"}
    assert (loaded.config.server.host, loaded.config.server.port) == ("127.0.0.1", 8000)
    assert loaded.notes == () and loaded.file == settings.file


def test_the_starter_changes_nothing_and_has_every_line_in_reach(settings: Settings) -> None:
    _, *rows = starter().split("\n\n")
    uncommented = "\n".join(row.removeprefix("#") for row in "\n".join(rows).splitlines())

    assert settings(starter()).sources == settings("# nothing").sources
    assert settings(uncommented).config == settings("# nothing").config
    assert set(settings(uncommented).sources.values()) == {f"file {settings.file}"}


def test_loading_needs_none_of_the_heavy_libraries() -> None:
    program = """
import sys
from sidecar.config import load
assert not {"keyring", "openai", "mcp", "jsonschema", "ruamel.yaml"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], timeout=20, check=True)


# Layers.


def test_later_layers_win_and_each_value_knows_its_source(settings: Settings) -> None:
    loaded = settings(
        """
        server: {host: 127.0.0.2, port: 1111}
        chat: {max_steps: 3}
        logging: {level: WARNING}
        """,
        {"SIDECAR_SERVER__PORT": "2222", "SIDECAR_LOGGING__LEVEL": "ERROR"},
        flags=Flags(log_level="debug"),
    )

    config, sources = loaded.config, loaded.sources
    assert (config.server.host, config.server.port) == ("127.0.0.2", 2222)
    assert (config.chat.max_steps, config.logging.level) == (3, "DEBUG")
    assert sources["server.host"] == sources["chat.max_steps"] == f"file {settings.file}"
    assert sources["server.port"] == "environment SIDECAR_SERVER__PORT"
    assert (sources["logging.level"], sources["chat.max_retries"]) == ("flag", "default")


def test_a_named_file_stands_in_for_the_one_in_the_folder(
    settings: Settings, tmp_path: Path
) -> None:
    named = tmp_path / "mine.yaml"
    named.write_text("server: {port: 7}")

    loaded = settings("chat: {max_steps: 3}", config_file=named)

    assert (loaded.config.server.port, loaded.config.chat.max_steps) == (7, 16)
    assert loaded.file == named


def test_a_named_file_must_exist(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"none\.yaml cannot be read"):
        settings(config_file=tmp_path / "none.yaml")


def test_maps_merge_lists_replace_and_null_removes_an_entry(settings: Settings) -> None:
    loaded = settings(
        """
        server: {allowed_origins: ["http://a.example"]}
        providers:
          groq: null
          ollama: {base_url: "http://127.0.0.1:9/v1"}
        mcp: {servers: {one: {command: a, args: [x, y]}, two: {command: b}}}
        """,
        {
            "SIDECAR_SERVER__ALLOWED_ORIGINS": '["http://b.example"]',
            "SIDECAR_MCP__SERVERS": '{"one": {"args": ["z"]}, "two": null}',
        },
    )

    config = loaded.config
    assert config.server.allowed_origins == ("http://b.example",)
    assert "groq" not in config.providers and "providers.groq.kind" not in loaded.sources
    assert config.providers["ollama"].kind == "openai_compatible"
    assert config.providers["ollama"].base_url == "http://127.0.0.1:9/v1"
    assert set(config.mcp.servers) == {"one"}
    assert (config.mcp.servers["one"].command, config.mcp.servers["one"].args) == ("a", ("z",))


def test_null_is_the_value_of_a_plain_setting(settings: Settings) -> None:
    assert settings("chat: {system_prompt: null}").config.chat.system_prompt is None


def test_a_section_whose_every_line_is_commented_out_says_nothing(settings: Settings) -> None:
    loaded = settings("server:\n#  port: 1\nmcp:\n  servers:\nproviders:\n")

    assert loaded.config == settings("# nothing at all").config


def test_flags_add_origins_to_those_of_the_settings(settings: Settings) -> None:
    loaded = settings(
        'server: {allowed_origins: ["http://a.example"]}',
        flags=Flags(allow_origins=("null", "http://b.example")),
    )

    expected = ("http://a.example", "null", "http://b.example")
    assert loaded.config.server.allowed_origins == expected


@pytest.mark.parametrize(("flag", "port"), [(None, 0), (0, 0), (4711, 4711)])
def test_managed_only_the_flag_sets_the_port(
    settings: Settings, flag: int | None, port: int
) -> None:
    loaded = settings(
        "server: {port: 1111}",
        {"SIDECAR_SERVER__PORT": "2222"},
        flags=Flags(port=flag),
        managed=True,
    )

    assert loaded.config.server.port == port


def test_demo_adds_a_provider_and_a_default_model(settings: Settings) -> None:
    loaded = settings(flags=Flags(demo=True))

    assert loaded.config.providers["demo"].kind == "demo"
    assert loaded.config.chat.model == "demo/scripted"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("chat: {model: ollama/llama}", {}),
        ("openai: {model: gpt-4o}", {}),
        ("", {"SIDECAR_CHAT__MODEL": "ollama/llama"}),
    ],
)
def test_demo_leaves_a_model_that_was_chosen(
    settings: Settings, text: str, environ: dict[str, str]
) -> None:
    assert settings(text, environ, flags=Flags(demo=True)).config.chat.model != "demo/scripted"


def test_the_revision_changes_with_the_settings_and_with_nothing_else(settings: Settings) -> None:
    first = settings("chat: {max_steps: 3}").revision

    assert settings("# a comment\nchat: {max_steps: 3}").revision == first
    assert settings("chat: {max_steps: 4}").revision != first


# The environment.


def test_variables_that_are_no_settings_are_left_alone(settings: Settings) -> None:
    environ = {"SIDECAR_TOKEN": "x", "SIDECAR_PARENT_PID": "1", "OTHER__NAME": "1", "SIDECAR": ""}

    assert settings("", environ).config == settings().config


@pytest.mark.parametrize(
    ("variable", "text", "read"),
    [
        ("CHAT__SYSTEM_PROMPT", "Use # and: such", "Use # and: such"),
        ("CHAT__SYSTEM_PROMPT", "42", "42"),
        ("CHAT__SYSTEM_PROMPT", "[INST] be brief", "[INST] be brief"),
        ("CHAT__SYSTEM_PROMPT", '["json"]', '["json"]'),
        ("CHAT__SYSTEM_PROMPT", "null", None),
        ("CHAT__TEMPERATURE", "0.5", 0.5),
        ("CHAT__MAX_TOKENS", "10", 10),
    ],
)
def test_a_variable_means_what_its_setting_needs(
    settings: Settings, variable: str, text: str, read: object
) -> None:
    chat = settings("", {f"SIDECAR_{variable}": text}).config.chat

    assert getattr(chat, variable.partition("__")[2].lower()) == read


def test_a_later_layer_leaves_nothing_of_a_value_that_it_replaces(settings: Settings) -> None:
    problem = settings.problem(
        'mcp: {servers: {one: {command: "${COMMAND}"}}}',
        {"COMMAND": "5", "SIDECAR_MCP__SERVERS": '{"one": {"command": 6}}'},
    )

    assert problem.startswith("environment variable SIDECAR_MCP__SERVERS: mcp.servers.one.command")


def test_a_variable_finds_an_entry_in_its_own_spelling(settings: Settings) -> None:
    loaded = settings(
        "mcp: {servers: {Files: {command: a}}}",
        {
            "SIDECAR_MCP__SERVERS__FILES__TRUSTED": "true",
            "SIDECAR_MCP__SERVERS__FILES__ENV__LEVEL": "5",
        },
    )

    files = loaded.config.mcp.servers["Files"]
    assert (files.trusted, files.env) == (True, {"LEVEL": "5"})


def test_a_wrong_variable_is_named(settings: Settings) -> None:
    unknown = settings.problem("", {"SIDECAR_SERVER__PROT": "1"})
    mistyped = settings.problem("", {"SIDECAR_SERVER__PORT": "soon"})
    undecodable = settings.problem("", {"SIDECAR_CHAT__SYSTEM_PROMPT": "\udcff"})

    assert unknown == (
        "environment variable SIDECAR_SERVER__PROT: server.prot is not a setting;"
        " did you mean server.port?"
    )
    assert mistyped.startswith("environment variable SIDECAR_SERVER__PORT: server.port: a whole")
    assert "SYSTEM_PROMPT: chat.system_prompt is not valid Unicode" in undecodable


# References.


def test_references_are_replaced_in_the_persons_file(settings: Settings) -> None:
    loaded = settings(
        """
        server: {port: "${PORT}"}
        chat: {system_prompt: "${NUMBER}"}
        mcp: {servers: {one: {command: a, args: ["--dir=${DIR}"], env: {EMPTY: "${EMPTY}"}}}}
        """,
        {"PORT": "99", "NUMBER": "5", "DIR": "/d", "EMPTY": ""},
    )

    config = loaded.config
    assert (config.server.port, config.chat.system_prompt) == (99, "5")
    assert config.mcp.servers["one"].args == ("--dir=/d",)
    assert config.mcp.servers["one"].env == {"EMPTY": ""}


@pytest.mark.parametrize("environ", [{}, {"MY_KEY": ""}])
def test_a_missing_reference_in_a_key_means_not_set_here(
    settings: Settings, environ: dict[str, str]
) -> None:
    loaded = settings('providers: {openai: {api_key: "${MY_KEY}"}}', environ)

    assert loaded.config.providers["openai"].api_key is None


def test_any_other_missing_reference_is_an_error_with_its_place(settings: Settings) -> None:
    problem = settings.problem("mcp:\n  servers:\n    one:\n      url: http://${HOST}/mcp\n")

    assert problem.startswith("line 4: mcp.servers.one.url needs the environment variable HOST")


def test_only_plain_names_are_references(settings: Settings) -> None:
    problem = settings.problem('chat: {system_prompt: "${A:-b}"}')

    assert problem == "line 1: chat.system_prompt has ${A:-b}; only ${NAME} is replaced."


def test_a_variable_is_not_searched_for_references(settings: Settings) -> None:
    environ = {"SIDECAR_CHAT__SYSTEM_PROMPT": "${HOME}", "HOME": "/h"}

    assert settings("", environ).config.chat.system_prompt == "${HOME}"


def test_a_leading_tilde_is_the_home_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    loaded = settings(
        """
        storage: {path: ~/chats.db}
        mcp: {servers: {one: {command: ~/bin/one, args: [~/Documents, a~/b, --x=~/y]}}}
        """
    )

    one = loaded.config.mcp.servers["one"]
    assert loaded.config.storage.path == f"{tmp_path}/chats.db"
    assert one.command == f"{tmp_path}/bin/one"
    assert one.args == (f"{tmp_path}/Documents", "a~/b", "--x=~/y")


# Mistakes.


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("chat:\n  temprature: 1", "line 2: chat.temprature is not a setting; did you mean "
         "chat.temperature?"),
        ("sever: {}", "line 1: sever is not a setting; did you mean server?"),
        ("temperature: 1", "line 1: temperature is not a setting; did you mean chat.temperature?"),
        ("providers:\n  x:\n    knd: openai", "line 3: providers.x.knd is not a setting; did you "
         "mean providers.x.kind? (And 1 more.)"),
        ("providers:\n  x: {}", "line 2: providers.x.kind is missing."),
        ("server:\n  port: many", "line 2: server.port: a whole number is expected, and this is a "
         "text. Write it without quotes."),
        ("server:\n  port: true", "line 2: server.port: a whole number is expected, and this is "
         "true or false."),
        ("server:\n  port: 70000", "line 2: server.port: should be less than or equal to 65535."),
        ("server: 8000", "line 1: server: a map of keys and values is expected, and this is a "
         "number."),
        ("mcp: {servers: 5}", "line 1: mcp.servers: a map of keys and values is expected, and this "
         "is a number."),
        ("chat:\n  model: {a: b}", "line 2: chat.model: a text is expected, and this is a map."),
        ("server:\n  allowed_hosts: me", "line 2: server.allowed_hosts: a list, such as "
         "[first, second], is expected, and this is a text."),
        ("storage:\n  enabled: no", "line 2: storage.enabled: true or false is expected, and this "
         "is a text. Write false."),
        ("mcp:\n  servers:\n    one:\n      command: a\n      args:\n        - -v\n        - 1.10",
         "line 7: mcp.servers.one.args.1: a text is expected, and this is a number. Put it into "
         "quotes."),
        ("logging: {level: LOUD}", "line 1: logging.level must be DEBUG, INFO, WARNING or ERROR."),
        ("timeouts: {connect_s: .inf}", "line 1: timeouts.connect_s: should be a finite number."),
        ("mcp: {servers: {my server: {command: a}}}", "line 1: 'my server' cannot be a name: use "
         "up to 64 letters, digits, '-', '_' and '.'."),
        ("mcp:\n  servers:\n    one: {}", "line 3: mcp.servers.one: a server has either a command "
         "or a url."),
        ("mcp:\n  servers:\n    one: {command: a, url: http://b}", "line 3: mcp.servers.one: a "
         "server has either a command or a url."),
        ("providers:\n  x: {kind: openai_compatible}", "line 2: providers.x: kind "
         "openai_compatible needs a base_url."),
        ("providers:\n  x: {kind: openai_compatible, base_url: 'http://a', api: chat}", "line 2: "
         "providers.x: api is for kind openai only; every other kind has one API."),
        ("providers: {openai: {api: completions}}", "line 1: providers.openai.api must be "
         "responses or chat."),
        ("providers: {ollama: {base_url: localhost:11434/v1}}", "line 1: providers.ollama.base_url:"
         " an address is written in full, as in https://example.com/v1."),
        ("providers: {groq: {base_url: 'http://api..groq.com/v1'}}", "line 1: "
         "providers.groq.base_url: an address is written in full, as in https://example.com/v1."),
        ("providers: {groq: {headers: {X Y: z}}}", "line 1: providers.groq.headers: 'X Y' cannot "
         "be the name of a header."),
        ("providers: {groq: {headers: {X-Title: Café}}}", "line 1: providers.groq.headers: the "
         "header X-Title must be one line of ASCII characters."),
        ('mcp: {servers: {one: {url: "http://b", headers: {X-Key: "a\\n"}}}}', "line 1: "
         "mcp.servers.one.headers: the header X-Key must be one line of ASCII characters."),
        ("mcp: {servers: {one: {command: a, oauth: {}}}}", "line 1: mcp.servers.one: oauth is for "
         "servers with a url; a command gets its secrets in env."),
        ('mcp: {servers: {one: {url: "http://b", oauth: {client_secret: s}}}}', "line 1: "
         "mcp.servers.one.oauth: a client_secret belongs to a client_id."),
        ('mcp: {servers: {one: {url: "http://b", oauth: {redirect_uri: "http://b:1/"}}}}',
         "line 1: mcp.servers.one.oauth.redirect_uri: the browser comes back to this machine: an "
         "http address of it with a port, as in http://127.0.0.1:33418/callback."),
        ("network: {proxy: 'socks5://kim:secret@h:1'}", "line 1: network.proxy: only http and "
         "https proxies serve, as in http://proxy.example.com:3128."),
        ("network: {proxy: 'http://h:port'}", "line 1: network.proxy: only http and https proxies "
         "serve, as in http://proxy.example.com:3128."),
        ("server: {tls: {cert: a.pem}}", "line 1: server.tls: cert and key belong together; set "
         "both or neither."),
        ("chat: {model: gpt-4o}", "line 1: chat.model is written provider/model, as in "
         "openai/gpt-4o-mini."),
        ("chat: {model: olama/x}", "line 1: chat.model names the provider olama, which there is "
         "not; did you mean ollama?"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_what_to_do(
    settings: Settings, text: str, problem: str
) -> None:
    assert settings.problem(text) == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server:\n\tport: 1", "line 2: indent with spaces"),
        ("chat:\n  model: a/b\n  model: c/d", "line 3: model stands already on line 2."),
        ("server: [1, 2", "line 1:"),
        ("chat: {model: ${MODEL}}", "into quotes."),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("just words", "line 1: settings are written as `section: ...`."),
        ("chat: {model: !!python/name:os.system x}", "line 1: a tag such as"),
        ("? [a]\n: b", "line 1: the name of a setting must be a text."),
        ("[" * 100_000, "line 1: nested deeper than any setting."),
        ("chat: &a {model: *a}", "line 1: an alias"),
        (
            "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
                f"{new}: &{new} [*{old},*{old},*{old},*{old},*{old},*{old},*{old},*{old}]\n"
                for old, new in zip("abcdef", "bcdefg", strict=True)
            ),
            "an alias (*name) stands for more than any setting has.",
        ),
        ("chat: {model: \x01}", "control characters"),
    ],
)  # fmt: skip
def test_what_is_no_settings_file_is_told_with_the_line(
    settings: Settings, text: str, problem: str
) -> None:
    assert problem in settings.problem(text)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"server:\n  host: \xff", "line 2: this is not UTF-8 text"),
        ("server: {}".encode("utf-16"), "line 1: this is not UTF-8 text"),
        (b"\x7fELF\0\0", "is not a text file"),
        (b"# " * 600_000, "has 1200000 bytes"),
    ],
)
def test_a_file_of_another_kind_is_refused(settings: Settings, data: bytes, problem: str) -> None:
    settings.file.write_bytes(data)

    assert problem in settings.problem("")


def test_a_file_with_a_byte_order_mark_is_read(settings: Settings) -> None:
    settings.file.write_bytes(b"\xef\xbb\xbfserver: {port: 5}")

    assert settings().config.server.port == 5


def test_plain_words_mean_what_they_say(settings: Settings) -> None:
    loaded = settings(
        """
        mcp: {servers: {one: {command: no, args: [2024-01-01, 12:30, on, '5', !!str 6]}}}
        """
    )

    one = loaded.config.mcp.servers["one"]
    assert (one.command, one.args) == ("no", ("2024-01-01", "12:30", "on", "5", "6"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-machine", ""])
def test_an_open_host_needs_tls_and_the_error_has_the_line_to_write(
    settings: Settings, host: str
) -> None:
    problem = settings.problem(f'server:\n  host: "{host}"')

    assert problem.startswith("line 2: server.host")
    assert "Write `host: 127.0.0.1`" in problem


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_host_needs_no_tls(settings: Settings, host: str) -> None:
    assert settings(f'server: {{host: "{host}"}}').config.server.host == host


def test_an_open_host_with_tls_is_taken(settings: Settings) -> None:
    loaded = settings("server: {host: 0.0.0.0, tls: {cert: /c.pem, key: /k.pem}}")

    assert loaded.config.server.host == "0.0.0.0"


@pytest.mark.parametrize(
    "origin", ["*", "http://*.example", "http://a.example/", "a.example", "HTTP://a.example", ""]
)
def test_an_origin_that_could_never_match_is_an_error(settings: Settings, origin: str) -> None:
    problem = settings.problem(f'server: {{allowed_origins: ["{origin}"]}}')

    assert "an origin is written exactly" in problem
    with pytest.raises(ConfigInvalid, match="command line: server"):
        settings("# nothing", flags=Flags(allow_origins=(origin,)))


def test_no_error_repeats_a_value(settings: Settings) -> None:
    secret = "sk-very-secret"
    texts = [
        f"providers: {{openai: {{api_key: [{secret}]}}}}",
        f"providers: {{openai: {{headers: {secret}}}}}",
        f"providers: {{openai: {{base_url: 'ftp://u:{secret}@h'}}}}",
        f"mcp: {{servers: {{one: {{env: {{A: [{secret}]}}, command: a}}}}}}",
    ]

    assert not [text for text in texts if secret in settings.problem(text)]


# Old shapes.


def test_the_old_openai_section_still_works_with_a_note(settings: Settings) -> None:
    loaded = settings(
        """
        openai:
          api_key: "${MY_KEY}"
          model: gpt-4o
          temperature: 0.5
          top_p: 0.9
          max_tokens: 100
          system_prompt: Hi
        chat:
          max_tokens: 50
        """,
        {"MY_KEY": "sk-1"},
    )

    chat = loaded.config.chat
    assert (chat.model, chat.temperature, chat.top_p) == ("openai/gpt-4o", 0.5, 0.9)
    assert (chat.system_prompt, chat.max_tokens) == ("Hi", 50)
    assert loaded.config.providers["openai"].api_key == "sk-1"
    (note,) = loaded.notes
    assert "line 2" in note and "model to chat.model" in note


def test_an_unknown_key_of_the_old_section_is_an_error(settings: Settings) -> None:
    assert settings.problem("openai:\n  modle: x") == (
        "line 2: openai.modle is not a setting; did you mean model?"
    )


def test_servers_as_a_list_still_work_with_a_note(settings: Settings) -> None:
    loaded = settings(
        """
        mcp:
          servers:
            - {name: docs, url: "http://127.0.0.1:3000/mcp", transport: http, timeout: 30}
        """
    )

    docs = loaded.config.mcp.servers["docs"]
    assert (docs.url, docs.call_timeout_s) == ("http://127.0.0.1:3000/mcp", 30)
    assert len(loaded.notes) == 1


@pytest.mark.parametrize("item", ["{url: http://a}", "text", "{name: a, url: http://a}"])
def test_a_listed_server_without_a_name_of_its_own_is_an_error(
    settings: Settings, item: str
) -> None:
    problem = settings.problem(f"mcp:\n  servers:\n  - {{name: a, url: http://a}}\n  - {item}")

    assert problem == "line 4: a server in a list needs a `name` of its own."


@pytest.mark.parametrize(
    ("written", "meant"),
    [("http", "http"), ("streamable_http", "http"), ("streamableHttp", "http"), ("SSE", "sse")],
)
@pytest.mark.parametrize("key", ["type", "transport"])
def test_others_words_for_a_transport_are_understood(
    settings: Settings, key: str, written: str, meant: str
) -> None:
    listed = settings(f"mcp: {{servers: [{{name: d, url: 'http://a/b', {key}: {written}}}]}}")
    mapped = settings(f"mcpServers: {{d: {{url: 'http://a/b', {key}: {written}}}}}")

    for loaded in (listed, mapped):
        assert loaded.config.mcp.servers["d"].transport == meant


def test_a_transport_that_nobody_speaks_is_an_error(settings: Settings) -> None:
    problem = settings.problem(
        "mcp:\n  servers:\n  - {name: d, url: 'http://a/b', transport: telex}"
    )

    assert "transport" in problem and "line 3" in problem


def test_a_command_has_no_transport_to_choose(settings: Settings) -> None:
    assert "pipes" in settings.problem("mcp: {servers: {d: {command: x, transport: sse}}}")


def test_only_a_lazy_server_can_be_stopped_when_unused(settings: Settings) -> None:
    problem = settings.problem("mcp: {servers: {d: {command: x, idle_stop_s: 60}}}")

    assert "start: lazy" in problem


def test_the_communitys_server_map_is_understood(settings: Settings) -> None:
    loaded = settings(
        """
        mcpServers:
          files: {command: npx, args: [-y, files], type: stdio, disabled: true}
          docs: {url: "http://127.0.0.1:3000/mcp"}
        mcp: {servers: {docs: {url: "http://127.0.0.1:4000/mcp"}}}
        """
    )

    servers = loaded.config.mcp.servers
    assert (servers["files"].command, servers["files"].enabled) == ("npx", False)
    assert servers["docs"].url == "http://127.0.0.1:4000/mcp"
    assert len(loaded.notes) == 1


def test_a_key_written_out_is_noted_and_not_repeated(settings: Settings) -> None:
    loaded = settings("providers:\n  openai:\n    api_key: sk-literal", {})

    (note,) = loaded.notes
    assert "line 3" in note and "sidecar keys set openai" in note
    assert "sk-literal" not in note
    assert loaded.config.providers["openai"].api_key == "sk-literal"


# What is shown.

SECRETS = """
    providers:
      openai: {api_key: HIDDEN-1, headers: {X-Org: HIDDEN-2}, base_url: "https://u:HIDDEN-3@h/v1?k=HIDDEN-4"}
    network: {proxy: "http://HIDDEN-5@proxy:3128"}
    mcp:
      servers:
        one:
          command: a
          env: {TOKEN: HIDDEN-6}
          args: [--api-key, HIDDEN-7, --token=HIDDEN-8, "https://h/?x=HIDDEN-9", "${FROM_ENV}", a]
        remote:
          command: npx
          args: [--header, "Authorization: Bearer HIDDEN-13", "--header=X-Any: HIDDEN-14",
                 -H, "X-Other:HIDDEN-15", "X-Api-Key: HIDDEN-16"]
        docker:
          command: docker
          args: [run, -e, GITHUB_TOKEN=HIDDEN-17, -e, PLAIN=HIDDEN-18, --env=OTHER=HIDDEN-19,
                 -e, FROM_OUTSIDE, MY_SECRET=HIDDEN-20, "postgres://u:HIDDEN-21@h/db", image]
        two: {url: "https://h/mcp?key=HIDDEN-11", headers: {Authorization: Bearer HIDDEN-12}}
        three: {url: "https://h/mcp", oauth: {client_id: me, client_secret: HIDDEN-22}}
    """


def test_nothing_secret_is_shown(settings: Settings) -> None:
    loaded = settings(SECRETS, {"FROM_ENV": "HIDDEN-10"})

    assert "HIDDEN" not in json.dumps(masked(loaded)) + show(loaded) + str(loaded.sources)


def test_the_representation_of_settings_has_no_key_and_no_header(settings: Settings) -> None:
    config = settings(SECRETS, {"FROM_ENV": ""}).config

    sections = (config.providers["openai"], config.network, *config.mcp.servers.values())
    shown = "".join(repr(section.model_copy(update={"base_url": None})) for section in sections)
    for number in (1, 2, 5, 6, 12):
        assert f"HIDDEN-{number}'" not in shown and f"HIDDEN-{number}@" not in shown


def test_masked_settings_keep_their_shape(settings: Settings) -> None:
    shown: Any = masked(settings(SECRETS, {"FROM_ENV": "HIDDEN-10"}))

    openai, one = shown["providers"]["openai"], shown["mcp"]["servers"]["one"]
    assert openai["api_key"] == openai["headers"]["X-Org"] == {"masked": True}
    assert openai["base_url"] == "https://[masked]@h/v1?[masked]"
    assert one["env"] == {"TOKEN": {"masked": True}}
    assert one["args"] == [
        "--api-key",
        {"masked": True},
        "--token=[masked]",
        "https://h/?[masked]",
        "${FROM_ENV}",
        "a",
    ]
    assert shown["mcp"]["servers"]["remote"]["args"][:3] == [
        "--header",
        "Authorization: [masked]",
        "--header=X-Any: [masked]",
    ]
    docker = shown["mcp"]["servers"]["docker"]["args"]
    assert docker[:5] == ["run", "-e", "GITHUB_TOKEN=[masked]", "-e", "PLAIN=[masked]"]
    assert docker[6:9] == ["-e", "FROM_OUTSIDE", "MY_SECRET=[masked]"]
    assert docker[-1] == "image"


def test_an_argument_that_is_a_key_by_its_shape_is_hidden_wherever_it_stands(
    settings: Settings,
) -> None:
    loaded = settings("mcp: {servers: {one: {command: a, args: [ghp_0123456789abcdefghij]}}}")

    assert "ghp_" not in show(loaded)


def test_the_text_form_is_yaml_that_says_where_each_value_came_from(settings: Settings) -> None:
    loaded = settings("chat: {system_prompt: 'a: # b'}", {"SIDECAR_SERVER__PORT": "9"})

    text = show(loaded)

    assert yaml.safe_load(text) == masked(loaded)
    assert "  port: 9  # environment SIDECAR_SERVER__PORT\n" in text
    assert f'  system_prompt: "a: # b"  # file {settings.file}\n' in text


def test_the_text_form_cannot_move_the_cursor_of_a_terminal(settings: Settings) -> None:
    loaded = settings('chat: {system_prompt: "\\e[2J\\u202eabc"}')

    text = show(loaded)

    assert "\x1b" not in text and "\u202e" not in text
    assert yaml.safe_load(text)["chat"]["system_prompt"] == "\x1b[2J\u202eabc"
