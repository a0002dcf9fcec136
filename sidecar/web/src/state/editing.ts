// Which message is being written anew; shared by the messages and the composer, whose arrow up
// begins it.

import { signal } from "@preact/signals";

export const editing = signal<string | null>(null);
