"""What other programs' settings become here, and what is said of what does not fit."""

from pathlib import Path

import pytest

from sidecar.config import McpServerConfig
from sidecar.errors import ConfigInvalid
from sidecar.mcp_host.config_import import Imported, ImportedServer, LeftOut, parse

CLAUDE_DESKTOP = r"""
{
  "globalShortcut": "",
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": ["-y", "@scope/server-filesystem@2026.8.31", "C:\\Users\\me\\Desktop"]
    },
    "linear": {
      "command": "npx",
      "args": ["-y", "mcp-remote@0.1.2", "https://mcp.example.com/sse", "--header",
               "Authorization:${AUTH_HEADER}"],
      "env": {"AUTH_HEADER": "Bearer abcdef", "RETRIES": 3, "VERSION": 1.10, "QUIET": true}
    }
  }
}
"""

VS_CODE = """
{
  // asked for once
  "inputs": [
    {"type": "promptString", "id": "github-token", "description": "GitHub token", "password": true},
  ],
  "servers": {
    "github": {
      "type": "http",
      "url": "https://api.example.com/mcp/", /* the hosted one */
      "headers": {"Authorization": "Bearer ${input:github-token}"},
      "oauth": {"clientId": "abc"},
      "gallery": true,
    },
    "db": {
      "type": "stdio",
      "command": "uvx",
      "args": ["--from", "db-tools==1.2", "db", "--root", "${workspaceFolder}/data"],
      "env": {"TOKEN": "${input:github-token}", "CACHE": "${userHome}/cache"},
      "envFile": "${workspaceFolder}/.env",
      "dev": {"watch": "src/**"},
    },
  },
}
"""

CURSOR = """
{"mcpServers": {
  "search": {"url": "https://search.example.com/mcp",
             "headers": {"X-Api-Key": "${env:SEARCH_KEY}"},
             "auth": {"CLIENT_ID": "abc"}},
  "local": {"type": "stdio", "command": "node", "args": ["server.js"], "envFile": ".env"}
}}
"""

LM_STUDIO = """
{"mcpServers": {
  "hf-mcp-server": {"url": "https://hub.example.com/mcp",
                    "headers": {"Authorization": "Bearer <YOUR_HF_TOKEN>"}}
}}
"""

GOOSE = """
GOOSE_PROVIDER: openai
extensions:
  developer:
    bundled: true
    display_name: Developer
    enabled: true
    name: developer
    timeout: 300
    type: builtin
  github:
    args:
    - -y
    - '@modelcontextprotocol/server-github@1.0.0'
    available_tools: []
    bundled: null
    cmd: npx
    description: ''
    enabled: false
    env_keys:
    - GITHUB_TOKEN
    envs:
      GITHUB_HOST: github.example.com
    name: github
    timeout: 300
    type: stdio
  remote:
    available_tools:
    - search
    enabled: true
    env_keys:
    - REMOTE_KEY
    envs:
      TENANT: acme
    headers:
      X-Tenant: ${TENANT}
      Authorization: Bearer $REMOTE_KEY
    name: remote
    type: streamable_http
    uri: https://remote.example.com/mcp
"""

LIBRECHAT = """
version: 1.3.12
interface:
  mcpServers:
    use: true
mcpServers:
  # everything, over SSE
  everything:
    type: sse
    url: http://localhost:3001/sse
    timeout: 60000  # 1 minute
    initTimeout: 10000
    serverInstructions: true
  per-user:
    type: streamable-http
    url: https://example.com/api/
    headers:
      X-User-ID: "{{LIBRECHAT_USER_ID}}"
      X-Auth-Token: '{{SERVICE_KEY}}'
    customUserVars:
      SERVICE_KEY:
        title: Service key
        description: Get it on the service's page
    startup: false
    chatMenu: false
  old:
    type: websocket
    url: ws://localhost:3002
  tools:
    command: python
    args: [-m, tools, --port, 8080]
    env:
      VERSION: 1.10
      KEY: ${TOOLS_KEY}
"""


def imported(text: str) -> dict[str, ImportedServer]:
    result = parse(text)
    assert result.left_out == ()
    return {server.name: server for server in result.servers}


def one(entry: str) -> ImportedServer:
    [server] = imported(f'{{"mcpServers": {{"s": {entry}}}}}').values()
    return server


def left_out(entry: str) -> str:
    result = parse(f'{{"mcpServers": {{\n"s": {entry}}}}}')
    assert result.servers == ()
    [entry_left_out] = result.left_out
    assert entry_left_out.name == "s"
    return entry_left_out.reason


# ---- each program's file --------------------------------------------------------------------


def test_claude_desktops_file_is_taken_over_as_it_is() -> None:
    servers = imported(CLAUDE_DESKTOP)

    assert servers["filesystem"] == ImportedServer(
        "filesystem",
        McpServerConfig(
            command="npx",
            args=(
                "-y",
                "@scope/server-filesystem@2026.8.31",
                r"C:\Users\me\Desktop",
            ),
        ),
        (),
    )
    assert servers["linear"].config.env == {
        "AUTH_HEADER": "Bearer abcdef",
        "RETRIES": "3",
        "VERSION": "1.10",
        "QUIET": "true",
    }


def test_a_reference_to_the_entrys_own_variable_is_left_to_its_program() -> None:
    linear = imported(CLAUDE_DESKTOP)["linear"]

    assert linear.config.args[-1] == "Authorization:${AUTH_HEADER}"
    assert linear.warnings == ()


def test_vs_codes_questions_are_told_where_their_answers_are_needed() -> None:
    github = imported(VS_CODE)["github"]

    assert github.config == McpServerConfig(
        url="https://api.example.com/mcp/", headers={"Authorization": "Bearer {github-token}"}
    )
    assert github.warnings == (
        "Write a value in place of {github-token} in headers.Authorization (GitHub token).",
        "Its registration with an authorization server is not taken over: sign in again.",
    )


def test_vs_codes_variables_are_filled_in_only_where_they_are_the_same_here() -> None:
    db = imported(VS_CODE)["db"]

    assert db.config.args[-1] == "{workspaceFolder}/data"
    assert db.config.env == {"TOKEN": "{github-token}", "CACHE": f"{Path.home()}/cache"}
    assert db.warnings == (
        "Write a value in place of {workspaceFolder} in args.",
        "Write a value in place of {github-token} in env.TOKEN (GitHub token).",
        "Its envFile is not read: write the variables that it needs into env.",
        "Not taken over, since it means nothing here: dev.",
    )


def test_vs_codes_older_place_in_its_settings_is_known() -> None:
    text = '{"editor.fontSize": 14, "mcp": {"servers": {"a": {"command": "a"}}}}'

    assert imported(text)["a"].config == McpServerConfig(command="a")


def test_cursors_environment_is_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_KEY", "of this machine")

    servers = imported(CURSOR)

    assert servers["search"].config.headers == {"X-Api-Key": "{SEARCH_KEY}"}
    assert "{SEARCH_KEY} in headers.X-Api-Key" in servers["search"].warnings[0]
    assert "sign in again" in servers["search"].warnings[1]
    assert "envFile" in servers["local"].warnings[0]


def test_lm_studios_file_is_taken_over_as_it_is() -> None:
    assert imported(LM_STUDIO)["hf-mcp-server"].config == McpServerConfig(
        url="https://hub.example.com/mcp", headers={"Authorization": "Bearer <YOUR_HF_TOKEN>"}
    )


def test_gooses_extensions_are_servers_and_its_own_parts_are_not() -> None:
    result = parse(GOOSE, "config.yaml")

    github, remote = result.servers
    assert github.config == McpServerConfig(
        command="npx",
        args=("-y", "@modelcontextprotocol/server-github@1.0.0"),
        env={"GITHUB_HOST": "github.example.com", "GITHUB_TOKEN": "{GITHUB_TOKEN}"},
        enabled=False,
        call_timeout_s=300,
    )
    assert github.warnings == (
        "Write a value in place of {GITHUB_TOKEN} in env.GITHUB_TOKEN"
        " (goose keeps it in its own keyring).",
    )
    assert remote.config.headers == {"X-Tenant": "acme", "Authorization": "Bearer {REMOTE_KEY}"}
    assert remote.warnings[1:] == (
        "Not only its available_tools are offered here: list the others in deny.",
    )
    assert result.left_out == (
        LeftOut("developer", "config.yaml, line 4: it is a part of goose itself. Leave it there."),
    )


def test_librechats_servers_are_found_among_its_other_settings() -> None:
    result = parse(LIBRECHAT, "librechat.yaml")

    everything, per_user, tools = result.servers
    assert everything.config == McpServerConfig(
        url="http://localhost:3001/sse", transport="sse", call_timeout_s=60, connect_timeout_s=10
    )
    assert everything.warnings == (
        "Not taken over, since it means nothing here: serverInstructions.",
    )
    assert per_user.config.headers["X-Auth-Token"] == "{SERVICE_KEY}"
    assert per_user.warnings == (
        "Write a value in place of {LIBRECHAT_USER_ID} in headers.X-User-ID.",
        "Write a value in place of {SERVICE_KEY} in headers.X-Auth-Token (Service key).",
    )
    assert tools.config.args == ("-m", "tools", "--port", "8080")
    assert tools.config.env == {"VERSION": "1.10", "KEY": "{TOOLS_KEY}"}
    assert result.left_out == (
        LeftOut(
            "old",
            "librechat.yaml, line 27: the transport websocket is unknown."
            " There are stdio and http.",
        ),
    )


# ---- fragments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"files": {"command": "node"}}',
        '"files": {"command": "node"}',
        '"mcpServers": {\n  "files": {"command": "node"}\n},',
        '{"name": "files", "command": "node"}',
        "files:\n  command: node\n",
        '"files":\n  command: node\n',
        '\ufeff// a note\n{"mcpServers": {"files": {"command": "node",},},}',
        "mcp:\n  servers:\n    files: {command: node}\n",
    ],
)
def test_a_fragment_is_understood_as_pages_show_it(text: str) -> None:
    assert imported(text) == {"files": ImportedServer("files", McpServerConfig(command="node"), ())}


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *[(kind, "url") for kind in ("http", "sse", "streamable-http", "streamableHttp")],
        ("streamable_http", "url"),
        ("stdio", "command"),
    ],
)
def test_the_type_says_which_of_two_fields_counts(kind: str, field: str) -> None:
    server = one(f'{{"type": "{kind}", "command": "a", "url": "https://example.com/mcp"}}')

    assert server.config.model_dump(exclude_none=True)[field]
    assert (server.config.url is None) == (field == "command")


@pytest.mark.parametrize("section", ["{}", "null"])
def test_an_empty_section_has_no_servers(section: str) -> None:
    assert parse(f'{{"mcpServers": {section}}}') == Imported((), ())


# ---- what a person is told ------------------------------------------------------------------


def test_names_that_the_settings_do_not_take_are_changed_and_told() -> None:
    long = "x" * 70
    text = '{"mcpServers": {"My Files!": {"command": "a"}, "My-Files": {"command": "b"},'
    text += f'"{long}": {{"command": "c"}}, "文件\\u202e": {{"command": "d"}}}}}}'

    servers = parse(text).servers

    assert [server.name for server in servers] == ["My-Files-2", "My-Files", "x" * 64, "server"]
    assert [server.config.command for server in servers] == ["a", "b", "c", "d"]
    assert "'My Files!'" in servers[0].warnings[0]
    assert servers[1].warnings == ()
    assert "…'" in servers[2].warnings[0]
    assert "\u202e" not in servers[3].warnings[0]


def test_what_is_known_to_be_risky_of_an_entry_is_told_here_too() -> None:
    server = one('{"command": "npx", "args": ["-y", "server", "--api-key", "abcd1234"]}')

    unpinned, key = server.warnings
    assert "server@1.2.3" in unpinned
    assert "looks like a key" in key
    assert "abcd1234" not in "".join(server.warnings)


def test_a_key_within_json_among_the_arguments_is_told() -> None:
    server = one(r'{"command": "a", "args": ["{\"api_key\": \"abcd1234\"}"]}')

    assert "looks like a key" in server.warnings[0]


def test_nothing_is_taken_over_that_spares_a_question() -> None:
    server = one('{"command": "a", "trusted": true, "allow": ["x"], "alwaysAllow": ["x"]}')

    assert server.config == McpServerConfig(command="a")
    assert server.warnings == (
        "Not taken over, since it means nothing here: trusted, allow, alwaysAllow.",
    )


def test_what_stands_for_a_value_is_no_key_and_no_file_to_a_shell() -> None:
    server = one('{"command": "sh", "args": ["-c", "serve --api-key ${SERVE_KEY} > log"]}')

    assert server.config.args[1] == "serve --api-key {SERVE_KEY} > log"
    assert server.warnings == ("Write a value in place of {SERVE_KEY} in args.",)


def test_a_variable_that_refers_to_itself_must_be_given() -> None:
    server = one('{"command": "a", "env": {"KEY": "${KEY:-none}", "EMPTY": null}}')

    assert server.config.env == {"KEY": "{KEY}"}


@pytest.mark.parametrize("timeout", ['"60"', "true", "0", "-1", "1e999"])
def test_a_timeout_that_is_none_is_left_out_and_told(timeout: str) -> None:
    server = one(f'{{"command": "a", "timeout": {timeout}}}')

    assert server.config.call_timeout_s is None
    assert server.warnings == ("Its timeout is no number of seconds and is left out.",)


def test_what_a_file_says_cannot_hide_in_a_warning() -> None:
    server = one('{"command": "a", "\\u202edeny": 1, "env": {"\\u001b[2J": "${a\\u202eb}"}}')

    assert all(text.isprintable() for text in server.warnings)


@pytest.mark.parametrize("flag", ['"disabled": true', '"enabled": false'])
def test_what_was_switched_off_stays_off(flag: str) -> None:
    assert not one(f'{{"command": "a", {flag}}}').config.enabled


# ---- damage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("7", "a server is a map with a command or a url."),
        ("{}", "it has neither a command nor a url. Write one of them."),
        (
            '{"command": "a", "url": "https://a.example"}',
            "it has both a command and a url.",
        ),
        ('{"type": "stdio", "url": "https://a.example"}', "command is missing. Write it."),
        ('{"type": "http",\n"url": ""}', "url is missing. Write it."),
        ('{"url": "unix:///run/mcp.sock"}', "url: an address is written in full"),
        ('{"command": ["npx", "-y"]}', "command must be one text."),
        ('{"command": "a", "args": "-y b"}', "args must be a list of texts"),
        ('{"command": "a", "args": [["b"]]}', "a text is expected here."),
        ('{"command": "a", "env": ["A=b"]}', "env must be a map from name to text."),
        ('{"url": "https://a.example", "headers": {"a b": "c"}}', "headers: 'a b' cannot be"),
        ('{"type": "ws", "url": "ws://a.example"}', "the transport ws is unknown."),
    ],
)
def test_an_entry_that_cannot_be_read_says_where_and_what_to_do(entry: str, complaint: str) -> None:
    reason = left_out(entry)

    assert reason.startswith("the text, line 2: ")
    assert complaint in reason


def test_one_damaged_entry_costs_no_other() -> None:
    result = parse('{"mcpServers": {"bad": {"args": []}, "good": {"command": "a"}}}')

    assert [server.name for server in result.servers] == ["good"]
    assert [server.name for server in result.left_out] == ["bad"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '{\n"mcpServers": {\n"a": {"command": "x"}\n"b": {}}}',
            "line 3: a comma or a } is missing",
        ),
        ('{"a": ["x"\n"y"]}', "line 1: a comma or a ] is missing"),
        ('{\n"mcpServers": {', "line 2: the text ends before the { of line 2 is closed"),
        ('{"mcpServers": {}}\n}', "line 2: there is more text after the last }"),
        ('{\n"a": ["x"}}', "line 2: } stands where ] is expected"),
        ("{\n“mcpServers”: {}}", "line 2: a name is expected here. Put it into straight"),
        ("{\nmcpServers: {}}", "line 2: a name is expected here. Put it into straight"),
        ('{"a": {\n"command": npx}}', "line 2: this is no value. Put it into straight"),
        ("{\"a\":\n'x'}", "line 2: this is no value. Put it into straight"),
        ('{\n"a" "b"}', "line 2: a colon is missing"),
        ('{\n"a": }', "line 2: a value is missing here"),
        ('{\n"a": "b\n"}', "line 2: this text does not end on its line"),
        ('{"a": 1,\n"b": "C:\\Users"}', "line 2: a \\ in a text is written \\\\"),
        ('{"a": 1,\n"a": 2}', "line 2: a stands already on line 1"),
        ('{"a":\n/* b }', "line 2: the comment that begins here does not end"),
        ('{"a": 1 /* b }', "line 1: a comma or a } is missing"),
        ('{\n"a": NaN}', "line 2: no settings have such a number"),
        ('{\n"a": ' + "9" * 5000 + "}", "line 2: no settings have such a number"),
        ("[]", "line 1: JSON settings begin with {"),
        ('{"a": ' + "[" * 100, "line 1: there is more here than any settings have"),
        ("mcpServers:\n\ta: b", "line 2: indent with spaces"),
        ("mcpServers:\n  a: {command: x", "line 2: "),
        ("mcpServers:\n- a", "line 1: mcpServers: a map from name to server is expected"),
        ('{"servers": []}', "line 1: servers: a map from name to server is expected"),
        ("extensions: x", "line 1: extensions: a map from name to extension is expected"),
    ],
)
def test_a_damaged_file_says_where_and_what_to_do(text: str, complaint: str) -> None:
    with pytest.raises(ConfigInvalid) as raised:
        parse(text, "mcp.json")

    assert str(raised.value).startswith(f"mcp.json, {complaint}")
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "names no MCP servers"),
        ("{}", "names no MCP servers"),
        ('{"globalShortcut": ""}', "names no MCP servers"),
        ('{"command": "npx"}', "is one server without a name"),
        ("#" * 2_000_000, "is too large"),
    ],
)
def test_a_text_without_servers_says_where_they_are_looked_for(text: str, complaint: str) -> None:
    with pytest.raises(ConfigInvalid, match=complaint):
        parse(text)


def test_no_error_repeats_a_value() -> None:
    for damage in ('"env": {"A": "hunter22" "B"}', '"env": {"A": "hunter22}', '"env": "hunter22"'):
        text = f'{{"mcpServers": {{"s": {{"command": "a", {damage}}}}}}}'
        try:
            said = parse(text).left_out[0].reason
        except ConfigInvalid as error:
            said = str(error)
        assert "hunter22" not in said


def test_half_a_character_in_a_text_is_made_whole() -> None:
    server = one('{"command": "a", "args": ["\\ud83d\\ude00", "\\ud83d"]}')

    assert server.config.args == ("😀", "\ufffd")
