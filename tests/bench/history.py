"""What a long history costs: list, open and search, beside a store with one conversation.

    uv run python -m tests.bench.history [CONVERSATIONS] [MESSAGES]

Prints the median of each in milliseconds, through the store as the handlers use it, and how many
times as long it takes as in a small store. Also how long a start takes until the first list.
"""

import asyncio
import random
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from uuid import uuid4

from sidecar.messages import Message, TextPart, Usage
from sidecar.protocol.conversations import (
    ConversationsGetPayload,
    ConversationsListPayload,
    ConversationsSearchPayload,
)
from sidecar.store.conversations import Conversations
from sidecar.store.database import Database
from sidecar.store.history import History
from sidecar.store.records import message_row, searched
from sidecar.store.rows import recover

ROUNDS = 30
WORDS_A_MESSAGE = 40
VOCABULARY = [f"{a}{b}{c}" for a in "bdgklmn" for b in "aeiou" for c in ("", "ra", "sto", "vin")]


def fill(connection: sqlite3.Connection, conversations: int, messages: int) -> None:
    """Straight into the tables: as the store writes them, without its transactions."""
    chance = random.Random(1)
    each = messages // conversations
    at = "2026-01-01T00:00:00.000Z"
    row = 0
    for number in range(1, conversations + 1):
        bodies, texts = [], []
        parent: str | None = None
        for turn in range(each):
            words = chance.choices(VOCABULARY, k=WORDS_A_MESSAGE)
            if chance.random() < 0.001:
                words[0] = "xylophone"
            text = " ".join(words)
            message = Message(
                message_id=uuid4().hex,
                parent_id=parent,
                role="assistant" if turn % 2 else "user",
                parts=(TextPart(text=text),),
                usage=Usage(input=10, output=10) if turn % 2 else None,
                created_at=at,
            )
            row += 1
            body, vendor = message_row(message)
            bodies.append((row, message.message_id, number, parent, "complete", body, vendor))
            texts.append((row, searched(text)))
            parent = message.message_id
        connection.execute(
            "INSERT INTO conversations VALUES "
            "(?, ?, ?, 'words', 'openai/x', NULL, NULL, NULL, ?, 0, 0, ?, ?, ?, ?)",
            [
                number,
                f"c{number}",
                texts[0][1][:80],
                parent,
                each,
                Usage().model_dump_json(),
                at,
                f"2026-01-01T00:00:00.{number:09}Z",
            ],
        )
        connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", bodies)
        connection.executemany("INSERT INTO texts (rowid, text) VALUES (?, ?)", texts)


async def median_ms(work: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = perf_counter()
        await work()
        times.append((perf_counter() - began) * 1000)
    return statistics.median(times)


async def measure(file: Path, conversations: int, messages: int) -> dict[str, float]:
    database = Database(file, recover=recover)
    await database.write(lambda connection: fill(connection, conversations, messages))
    await database.close()

    began = perf_counter()
    database = Database(file, recover=recover)
    store = Conversations(database, lambda event: None)
    history = History(database, store, lambda event: None)
    await history.page(ConversationsListPayload())
    start_ms = (perf_counter() - began) * 1000

    middle = (await history.page(ConversationsListPayload(limit=100))).next_cursor
    opened = f"c{conversations // 2 or 1}"
    asked = ConversationsGetPayload(conversation_id=opened)
    head = await store.head(opened)
    figures = {
        "start": start_ms,
        "list": await median_ms(lambda: history.page(ConversationsListPayload(cursor=middle))),
        "open": await median_ms(lambda: history.get(asked)),
        "search, a common word": await median_ms(
            lambda: history.search(ConversationsSearchPayload(q="basto"))
        ),
        "search, a rare word": await median_ms(
            lambda: history.search(ConversationsSearchPayload(q="xyloph"))
        ),
        "search, two words": await median_ms(
            lambda: history.search(ConversationsSearchPayload(q="basto xylophone"))
        ),
        "history of a turn": await median_ms(lambda: store.path(opened, head)),
    }
    await database.close()
    return figures


async def main(conversations: int, messages: int) -> None:
    each = messages // conversations
    with tempfile.TemporaryDirectory() as folder:
        small = await measure(Path(folder, "small.db"), 1, each)
        large = await measure(Path(folder, "large.db"), conversations, messages)
    print(f"{conversations:,} conversations, {messages:,} messages beside 1 with {each}")
    print(f"{'':24}{'ms':>8}{'times':>8}")
    for name, large_ms in large.items():
        print(f"{name:24}{large_ms:8.1f}{large_ms / small[name]:8.1f}")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*(given or (10_000, 1_000_000))))
