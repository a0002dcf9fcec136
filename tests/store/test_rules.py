"""Remembered decisions survive a restart, a broken file and each other."""

import asyncio
from pathlib import Path

from sidecar.mcp_host.consent import Pin, StoredRule
from sidecar.store.rules import Rules


def a_rule(rule_id: str, name: str = "read", decision: str = "allow") -> StoredRule:
    return StoredRule(
        rule_id=rule_id,
        decision="deny" if decision == "deny" else "allow",
        scope="tool",
        server="files",
        name=name,
        fingerprint="f1",
        pins={name: Pin("d1", "Reads.")},
        conversation_id=None,
        created_at="2026-01-01T00:00:00Z",
    )


def reloaded(file: Path) -> Rules:
    rules = Rules(file)
    rules.load()
    return rules


async def test_what_is_added_is_there_after_a_restart_for_this_person_only(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    rules = reloaded(file)

    await rules.add(a_rule("r1"))

    assert reloaded(file).all() == (a_rule("r1"),)
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_new_answer_about_the_same_tool_replaces_the_old_one(tmp_path: Path) -> None:
    rules = reloaded(tmp_path / "rules.json")

    await rules.add(a_rule("r1"))
    await rules.add(a_rule("r2", decision="deny"))

    assert [rule.rule_id for rule in rules.all()] == ["r2"]


async def test_answers_given_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    rules = reloaded(file)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(rules.add(a_rule(f"r{number}", name=f"tool{number}")))

    assert len(reloaded(file).all()) == 8


async def test_one_or_all_can_be_removed(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    rules = reloaded(file)
    await rules.add(a_rule("r1", name="a"))
    await rules.add(a_rule("r2", name="b"))
    await rules.add(a_rule("r3", name="c"))

    assert await rules.remove("r2") == 1
    assert await rules.remove("r2") == 0
    assert await rules.remove(None) == 2
    assert reloaded(file).all() == ()


async def test_a_broken_file_is_put_aside_and_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text("{ half a fi")

    rules = reloaded(file)
    await rules.add(a_rule("r1"))

    assert reloaded(file).all() == (a_rule("r1"),)
    assert (tmp_path / "rules.broken.json").read_text() == "{ half a fi"


async def test_until_a_broken_file_is_seen_to_it_is_known_that_a_denial_may_be_missing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rules.json"
    file.write_text("{ half a fi")

    assert reloaded(file).are_incomplete
    assert reloaded(file).are_incomplete  # the next start knows it too
    (tmp_path / "rules.broken.json").unlink()
    assert not reloaded(file).are_incomplete


async def test_another_processs_answers_are_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    ours, theirs = reloaded(file), reloaded(file)

    await theirs.add(a_rule("r1", name="a", decision="deny"))
    await ours.add(a_rule("r2", name="b"))

    assert [rule.rule_id for rule in reloaded(file).all()] == ["r1", "r2"]


async def test_a_write_that_nobody_waits_for_any_more_undoes_no_later_one(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    rules = reloaded(file)
    writing = asyncio.create_task(rules.add(a_rule("r1")))
    await asyncio.sleep(0)
    writing.cancel()

    await rules.remove(None)

    assert reloaded(file).all() == ()


async def test_a_write_leaves_no_other_file_behind(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"

    await reloaded(file).add(a_rule("r1"))

    assert [path.name for path in tmp_path.iterdir()] == ["rules.json"]


async def test_without_a_file_they_are_kept_for_this_run() -> None:
    rules = Rules(None)
    rules.load()

    await rules.add(a_rule("r1"))

    assert rules.all() == (a_rule("r1"),)
