// What waits for a person: calls of tools that need consent.

import { signal } from "@preact/signals";

import * as connection from "../net/connection";
import type { Approval, ApprovalsResolvePayload } from "../protocol";

export const approvals = signal<Approval[]>([]);

export function ask(approval: Approval): void {
  settle(approval.approval_id);
  approvals.value = [...approvals.value, approval];
}

export function settle(id: string): void {
  approvals.value = approvals.value.filter((each) => each.approval_id !== id);
}

export async function resolve(
  id: string,
  answer: Omit<ApprovalsResolvePayload, "approval_id">,
): Promise<void> {
  await connection.request("approvals.resolve", { approval_id: id, ...answer });
  settle(id);
}
