// One socket to the sidecar, opened again whenever it is lost. Requests are answered once; a run
// streams to whoever follows it. Knows the protocol's frames and nothing of what they mean.

import { signal } from "@preact/signals";

import type { Action, ErrorInfo, Event, Frame, HelloResult, Payloads, Results } from "../protocol";
import { PROTOCOL_VERSION } from "../protocol";
import { forget, readiness, token } from "./session";

/** `refused` has no session, `stopped` was ended here: neither comes back by itself. */
export type Link = "connecting" | "open" | "gone" | "full" | "refused" | "stopped";

export type RunFrame = Exclude<Frame, { status: "event" }>;

/** What an action was refused with; `message` is a sentence for a person. */
export class Failure extends Error {
  readonly info: ErrorInfo;

  constructor(message: string, info: ErrorInfo) {
    super(message);
    this.info = info;
  }
}

const RETRY_MS = [300, 1000, 2000, 5000];
const LOST: ErrorInfo = { code: "network_unreachable", retryable: true, origin: "network" };

type Taker = (frame: RunFrame) => void;

export const link = signal<Link>("connecting");

let socket: WebSocket | null = null;
let attempts = 0;
let count = 0;
const waiting = new Map<string, Taker>();
const eventTakers = new Set<(event: Event) => void>();
let onHello: (result: HelloResult) => void = () => {};

export function onEvent(taker: (event: Event) => void): void {
  eventTakers.add(taker);
}

/** `greeted` is called at each connection, the first and every later one. */
export function connect(greeted: (result: HelloResult) => void): void {
  onHello = greeted;
  openSocket();
}

export function request<A extends Action>(action: A, payload: Payloads[A]): Promise<Results[A]> {
  return new Promise((resolve, reject) => {
    const isSent = stream(action, payload, (frame) => {
      if (frame.status === "complete") resolve(frame.result as Results[A]);
      else if (frame.status === "error") reject(new Failure(frame.error, frame.error_info));
    });
    if (!isSent) reject(new Failure("", LOST));
  });
}

/** Every frame of this request, until its last; null while there is no connection. */
export function stream<A extends Action>(
  action: A,
  payload: Payloads[A],
  take: Taker,
): string | null {
  if (socket?.readyState !== WebSocket.OPEN) return null;
  const id = `${++count}`;
  waiting.set(id, take);
  socket.send(JSON.stringify({ action, payload, request_id: id }));
  return id;
}

export async function quit(): Promise<void> {
  await request("shutdown", {});
  link.value = "stopped";
}

function openSocket(): void {
  const address = `${location.origin.replace("http", "ws")}/ws/chat`;
  const opened = new WebSocket(address, ["sidecar", `sidecar.token.${token()}`]);
  socket = opened;
  opened.onopen = () => {
    const client = { name: "page" };
    const hello = { protocol: PROTOCOL_VERSION, client, events: ["*"], answers: ["approvals"] };
    request("hello", hello).then(
      (result) => {
        attempts = 0;
        link.value = "open";
        onHello(result);
      },
      () => opened.close(),
    );
  };
  opened.onmessage = (message) => onFrame(JSON.parse(message.data));
  opened.onclose = () => void onClose();
}

async function onClose(): Promise<void> {
  const lost = [...waiting.entries()];
  waiting.clear();
  for (const [id, take] of lost) {
    take({ request_id: id, status: "error", error: "", error_info: LOST });
  }
  if (link.value === "stopped" || link.value === "refused") return;
  switch (await readiness()) {
    case "refused":
      forget();
      link.value = "refused";
      return;
    case "gone":
      link.value = "gone";
      break;
    case "ready":
      link.value = attempts > 1 ? "full" : "connecting";
  }
  setTimeout(openSocket, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
}

function onFrame(frame: Frame): void {
  if (frame.status === "event") {
    for (const take of eventTakers) take(frame.event);
    return;
  }
  const id = frame.request_id ?? "";
  const take = waiting.get(id);
  if (frame.status === "complete" || frame.status === "error") waiting.delete(id);
  take?.(frame);
}
