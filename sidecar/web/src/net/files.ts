// Files go over HTTP, since they do not fit a frame.

import type { AttachmentsCreateResult, ErrorInfo } from "../protocol";
import { Failure } from "./connection";
import { bearer } from "./session";

export async function send(file: File, purpose?: "import"): Promise<AttachmentsCreateResult> {
  const query = new URLSearchParams({ name: file.name });
  if (purpose) query.set("for", purpose);
  const headers = { ...bearer(), "Content-Type": file.type || "application/octet-stream" };
  const address = `/api/attachments?${query}`;
  return (await checked(await fetch(address, { method: "POST", body: file, headers }))).json();
}

/** An address of this page alone; whoever asks for it gives it back with `URL.revokeObjectURL`. */
export async function fetched(attachmentId: string): Promise<string> {
  const answer = await checked(await fetch(`/api/attachments/${attachmentId}`, { headers: bearer() }));
  return URL.createObjectURL(await answer.blob());
}

export async function download(attachmentId: string, name: string): Promise<void> {
  const address = await fetched(attachmentId);
  const anchor = Object.assign(document.createElement("a"), { href: address, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

async function checked(answer: Response): Promise<Response> {
  if (answer.ok) return answer;
  const { error, error_info }: { error: string; error_info: ErrorInfo } = await answer.json();
  throw new Failure(error, error_info);
}
