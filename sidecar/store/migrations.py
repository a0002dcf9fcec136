"""The shape of the database, as the list of steps that lead to it.

A step is never changed once it was released: what comes later is a step of its own. The number of
steps that a file has been through is its `user_version`. Knows no connection.
"""

MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id INTEGER PRIMARY KEY,
        conversation_id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        titled_by TEXT NOT NULL,  -- words, model or person; each may replace the one before it
        model TEXT,
        system_prompt TEXT,
        params TEXT,  -- JSON, as `tools`
        tools TEXT,
        head TEXT,
        pinned INTEGER NOT NULL DEFAULT 0,
        archived INTEGER NOT NULL DEFAULT 0,
        message_count INTEGER NOT NULL DEFAULT 0,
        usage TEXT NOT NULL,  -- JSON
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    ) STRICT;
    CREATE INDEX conversations_listed
        ON conversations (archived, pinned DESC, updated_at DESC, id DESC);

    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        message_id TEXT NOT NULL UNIQUE,
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        parent_id TEXT,
        status TEXT NOT NULL,
        body TEXT NOT NULL,  -- the message as JSON
        vendor TEXT  -- its vendor's own words as JSON
    ) STRICT;
    CREATE INDEX messages_of_conversation ON messages (conversation, id);
    CREATE INDEX messages_streaming ON messages (id) WHERE status = 'streaming';

    -- what a message that is still being written has so far, in pieces
    CREATE TABLE pieces (
        id INTEGER PRIMARY KEY,
        message INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE,
        place INTEGER NOT NULL,  -- of the part; a second piece with the same place goes on with it
        part TEXT NOT NULL  -- JSON
    ) STRICT;
    CREATE INDEX pieces_of_message ON pieces (message, id);

    CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');

    CREATE TABLE shown_attachments (
        attachment_id TEXT NOT NULL,
        message INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE,
        PRIMARY KEY (attachment_id, message)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX attachments_of_message ON shown_attachments (message);

    CREATE TABLE retries (
        retry_key TEXT PRIMARY KEY,
        digest BLOB NOT NULL,
        run_id TEXT NOT NULL,
        conversation_id TEXT NOT NULL,
        user_message_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        finish_reason TEXT,
        at TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)
