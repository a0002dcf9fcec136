"""The bytes of images and files, under the hash of what they are.

Kept in memory, for as long as the program runs. Two that are the same are one.
"""

import hashlib

from sidecar.errors import NotFound
from sidecar.messages import Attachment


class Attachments:
    def __init__(self) -> None:
        self._kept: dict[str, Attachment] = {}

    async def save(self, attachment: Attachment) -> str:
        attachment_id = hashlib.sha256(attachment.data).hexdigest()
        self._kept.setdefault(attachment_id, attachment)
        return attachment_id

    async def load(self, attachment_id: str) -> Attachment:
        attachment = self._kept.get(attachment_id)
        if attachment is None:
            raise NotFound(f"There is no attachment {attachment_id} any more; send it again.")
        return attachment
