// The plain chat page: one conversation over the WebSocket, as any other frontend would have it.
// Whatever comes from a model or a tool becomes text, never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const log = $("log");
const RETRY_MS = [500, 1000, 2000, 5000];
const FINISH = {
  length: "The answer ends here because it reached its length limit.",
  step_limit: "It stopped after as many steps as the settings allow.",
  content_filter: "The provider withheld the rest.",
  refusal: "The model declined to answer.",
  cancelled: "Stopped.",
};
const STATUS = { ok: "done", error: "failed", denied: "not allowed", timeout: "took too long",
  cancelled: "cancelled", unknown: "outcome unknown" };

const kept = sessionStorage; // of this tab: it outlives a reload, and nothing else
let socket = null;
let attempts = 0;
let hasEnded = false; // by Quit, or for want of a session
let count = 0;
let run = null; // the turn that is going on: {payload, requestId, id, seq, view}
let lastText = "";
const waiting = new Map(); // request_id → what its terminal frame is given to
const cards = new Map(); // tool_call_id → its card
const asked = new Map(); // approval_id → its card

// ---- elements --------------------------------------------------------------------------------

function el(tag, className = "", ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

function button(label, onClick) {
  const made = el("button", "", label);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

// Control and bidirectional characters could make a text look like another one.
function visible(text) {
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  return String(text).replace(hidden, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

const json = (value) => visible(JSON.stringify(value, null, 2));

function show(element, parent = log) {
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  parent.append(element);
  if (isAtEnd) log.scrollTop = log.scrollHeight;
  return element;
}

const note = (text, parent) => show(el("p", "note", text), parent);
const problem = (text, parent) => show(el("p", "problem", text), parent);
const state = (text) => { $("state").textContent = text; };

// ---- the session -----------------------------------------------------------------------------

async function begin() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (location.hash) history.replaceState(null, "", location.pathname);
  if (code) {
    const token = await exchange(code);
    if (token) kept.setItem("token", token);
  }
  if (!kept.getItem("token")) return endSession();
  const runId = kept.getItem("run");
  if (runId) run = { id: runId, seq: -1, view: null };
  connect();
}

async function exchange(code) {
  const body = JSON.stringify({ code });
  try {
    const answer = await fetch("/api/session", { method: "POST", body });
    return answer.ok ? (await answer.json()).token : null;
  } catch {
    return null;
  }
}

function endSession() {
  hasEnded = true;
  for (const name of ["token", "conversation", "run"]) kept.removeItem(name);
  stopUsing();
  state("");
  show(el("section", "ask",
    el("h2", "", "This tab has no session"),
    el("p", "", "Start ", el("code", "", "sidecar"), " again, from a terminal or with a double",
      " click: it opens a new page that has one. If it runs already, that takes a moment only."),
    el("p", "", "An address with a code in it is good once, and for a minute.")));
}

function stopUsing() {
  run?.view?.classList.remove("waiting");
  $("composer").hidden = $("fresh").hidden = $("quit").hidden = true;
}

// ---- the socket ------------------------------------------------------------------------------

function connect() {
  const address = location.origin.replace("http", "ws") + "/ws/chat";
  const opened = new WebSocket(address, ["sidecar", "sidecar.token." + kept.getItem("token")]);
  socket = opened;
  opened.onopen = () => request("hello", { protocol: 1, client: { name: "plain-page" }, events: [],
    answers: ["approvals"] }, onHello);
  opened.onmessage = (message) => onFrame(JSON.parse(message.data));
  opened.onclose = () => onClose();
}

async function onClose() {
  waiting.clear();
  for (const id of [...asked.keys()]) closeAsked(id); // those that still wait come again
  if (hasEnded) return;
  $("send").disabled = true;
  try { // a socket that failed cannot say why
    const headers = { Authorization: "Bearer " + kept.getItem("token") };
    const answer = await fetch("/readyz", { headers });
    if (answer.status === 401) return endSession();
    if (attempts) state("The sidecar takes no connection now. Trying again…");
  } catch {
    state("The sidecar has gone. Trying again until it is back…");
  }
  setTimeout(connect, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
}

function request(action, payload, done = () => {}, requestId = String(++count)) {
  waiting.set(requestId, done);
  socket.send(JSON.stringify({ action, payload, request_id: requestId }));
  return requestId;
}

function onFrame(frame) {
  if (frame.status === "event") return onEvent(frame.event);
  if (run && frame.request_id === run.requestId) return onRunFrame(frame);
  if (frame.status !== "complete" && frame.status !== "error") return;
  const done = waiting.get(frame.request_id);
  waiting.delete(frame.request_id);
  if (done) done(frame);
}

function onHello(frame) {
  if (frame.status === "error") {
    hasEnded = true;
    stopUsing();
    return problem(frame.error);
  }
  attempts = 0;
  state("");
  $("about").textContent = frame.result.server.version;
  $("composer").hidden = $("fresh").hidden = $("quit").hidden = false;
  $("send").disabled = false;
  frame.result.pending.approvals.forEach(ask);
  const conversation = kept.getItem("conversation");
  if (conversation && !log.childElementCount) {
    request("conversations.get", { conversation_id: conversation }, (found) => goOn(found.result));
  } else goOn(null);
}

// With what was said before a reload, where there was something.
function goOn(found) {
  if (found) showBranch(found);
  else if (!log.childElementCount) kept.removeItem("conversation"); // deleted, or never kept
  if (run) follow();
  else $("text").focus();
}

function onEvent(event) {
  if (event.type === "approvals.pending") ask(event.data);
  else if (event.type === "approvals.resolved") closeAsked(event.data.approval_id);
  else if (event.type === "server.shutdown" && !hasEnded) state("The sidecar is stopping.");
}

// ---- a turn ----------------------------------------------------------------------------------

function send() {
  const text = $("text").value;
  if (run || !text.trim() || $("send").disabled) return;
  lastText = text;
  $("text").value = "";
  const payload = { text, retry_key: crypto.randomUUID() }; // sent twice, it is one turn
  const conversation = kept.getItem("conversation");
  if (conversation) payload.conversation_id = conversation;
  show(el("div", "mine", text));
  run = { payload, id: null, seq: -1, view: view() };
  log.scrollTop = log.scrollHeight;
  follow();
}

// Also after a lost connection: the run went on without us.
function follow() {
  $("stop").hidden = false;
  $("send").hidden = $("fresh").disabled = true;
  if (!run.view) run.view = view();
  run.requestId = run.id
    ? request("resume", { run_id: run.id, after_seq: run.seq })
    : request("chat", run.payload);
}

function view() {
  const answer = el("div", "answer waiting");
  answer.setAttribute("aria-busy", "true");
  return show(answer);
}

function onRunFrame(frame) {
  if (frame.seq !== undefined && frame.seq !== null) run.seq = frame.seq;
  if (frame.status === "complete" || frame.status === "error") return endRun(frame);
  if (frame.status === "processing") return beginRun(frame.chunk.metadata);
  onChunk(frame.chunk, run.view);
}

function beginRun(started) {
  if (!run.payload && started.user_message) { // resumed after a reload
    run.view.before(el("div", "mine", started.user_message));
  }
  run.id = started.run_id;
  kept.setItem("run", run.id);
  kept.setItem("conversation", started.conversation_id);
  $("about").textContent = started.model;
}

function endRun(frame) {
  const { view: shown, payload } = run;
  shown.classList.remove("waiting");
  shown.removeAttribute("aria-busy");
  run = null;
  kept.removeItem("run");
  $("stop").hidden = true;
  $("send").hidden = $("fresh").disabled = false;
  const code = frame.status === "error" ? frame.error_info.code : "";
  if (code === "not_found" && !payload) note("The answer that was going on is no longer kept.", shown);
  else if (code) problem(frame.error, shown);
  else if (FINISH[frame.result.finish_reason]) note(FINISH[frame.result.finish_reason], shown);
  if (code === "not_found") kept.removeItem("conversation"); // the sidecar was started anew
  if (code === "key_missing") askForKey(frame.error_info.provider, shown);
  else $("text").focus();
}

function onChunk(chunk, shown) {
  const { type, data, metadata } = chunk;
  if (type === "text") appendText(data, shown);
  else if (type === "reasoning") appendThought(data, shown);
  else if (type === "tool_call") showCall(metadata, shown);
  else if (type === "tool_result") showResult(metadata, data);
  else if (type === "retry" || type === "notice") note(data, shown);
  else if (type === "snapshot") showSnapshot(metadata.message, shown);
}

function appendText(data, shown) {
  const last = shown.lastElementChild;
  const target = last?.className === "text" ? last : show(el("div", "text"), shown);
  show(document.createTextNode(data), target);
}

function appendThought(data, shown) {
  let last = shown.lastElementChild;
  if (last?.className !== "thoughts") {
    last = el("details", "thoughts", el("summary", "", "Thoughts"), el("div", "text"));
    show(last, shown);
  }
  last.lastElementChild.append(data);
}

function showCall(call, shown) {
  const name = call.server ? `${call.server} · ${call.name}` : call.name;
  const status = el("span", "status", "…");
  const given = call.invalid_arguments ? visible(call.invalid_arguments) : json(call.arguments);
  const card = el("details", "card", el("summary", "", visible(name), status), el("pre", "", given));
  cards.set(call.tool_call_id, card);
  show(card, shown);
}

function showResult(result, text) {
  const card = cards.get(result.tool_call_id);
  if (!card) return;
  card.querySelector(".status").textContent = STATUS[result.status] ?? result.status;
  if (result.arguments_used) show(el("pre", "", json(result.arguments_used)), card);
  show(el("pre", "", visible(text)), card);
}

function showSnapshot(message, shown) {
  shown.replaceChildren();
  for (const part of message.parts) {
    if (part.type === "text") appendText(part.text, shown);
    else if (part.type === "reasoning") appendThought(part.text, shown);
    else if (part.type === "tool_call") showCall(part, shown);
    else if (part.type === "tool_result") showResult(part, part.text);
    else if (part.type === "summary") note("For the model, what came before is summarised.", shown);
  }
}

// The branch in use. What is being answered comes with its run.
function showBranch({ conversation, messages, head, has_more: hasMore }) {
  const known = new Map(messages.map((message) => [message.message_id, message]));
  const branch = [];
  for (let at = known.get(head); at; at = known.get(at.parent_id)) branch.unshift(at);
  if (conversation.run_id) {
    run ??= { payload: null, id: conversation.run_id, seq: -1, view: null };
    if (branch.at(-1)?.role === "assistant") branch.pop();
    branch.pop();
  }
  if (hasMore) note("What came before is not shown here.", log);
  for (const message of branch) {
    if (message.role === "user") show(el("div", "mine", said(message)));
    else {
      const shown = show(el("div", "answer"));
      showSnapshot(message, shown);
      if (message.error) problem(message.error, shown);
      else if (message.status === "cancelled") note(FINISH.cancelled, shown);
    }
  }
  log.scrollTop = log.scrollHeight;
}

function said(message) {
  return message.parts.map((part) => part.text ?? `[${part.name ?? part.type}]`).join("\n");
}

// ---- questions -------------------------------------------------------------------------------

function ask(approval) {
  const { approval_id: id, changed } = approval;
  if (asked.has(id)) return;
  const answer = (decision, duration) => {
    for (const each of row.children) each.disabled = true;
    request("approvals.resolve", { approval_id: id, decision, duration }, () => closeAsked(id));
  };
  const row = el("div", "row",
    button("Allow once", () => answer("allow", "once")),
    button("Always", () => answer("allow", "always")),
    button("Deny", () => answer("deny", "once")));
  const card = el("section", "ask",
    el("h2", "", `May the model use ${visible(approval.name)} of ${visible(approval.server)}?`));
  if (approval.description) card.append(el("p", "note", visible(approval.description)));
  if (changed) {
    card.append(el("p", "problem", "It was allowed before, and has changed since."),
      el("pre", "", `before: ${visible(changed.before)}\nnow: ${visible(changed.after)}`));
  }
  card.append(el("pre", "", json(approval.arguments)));
  if (approval.arguments_truncated) {
    card.append(el("p", "problem", "The arguments are too long to show in full."));
  }
  card.append(row);
  card.setAttribute("aria-label", "A tool asks");
  asked.set(id, card);
  show(card);
}

function closeAsked(id) {
  asked.get(id)?.remove();
  asked.delete(id);
}

function askForKey(provider, shown) {
  const field = el("input");
  Object.assign(field, { type: "password", required: true, autocomplete: "off" });
  field.setAttribute("aria-label", `Key for ${provider}`);
  field.placeholder = `Key for ${provider}`;
  const said = el("p", "note", "It goes into the keyring of this computer, and to nobody but the provider.");
  const save = el("button", "", "Store");
  const form = el("form", "ask", said, el("div", "row", field, save));
  const store = (persist) => {
    const payload = { provider, key: field.value.trim(), persist };
    request("keys.set", payload, (frame) => onStored(frame, form, said, store));
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    store(true);
  });
  show(form, shown);
  field.focus();
}

function onStored(frame, form, said, store) {
  if (frame.status === "error") {
    said.textContent = frame.error;
    if (frame.error_info.code === "keyring_unavailable" && !form.querySelector(".once")) {
      const once = button("Use it until the sidecar ends", () => store(false));
      once.classList.add("once");
      form.querySelector(".row").append(once);
    }
    return;
  }
  form.replaceWith(el("p", "note", "The key is known now. Send the message again."));
  $("text").value ||= lastText;
  $("text").focus();
}

// ---- the person ------------------------------------------------------------------------------

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => {
  if (!run || socket.readyState !== WebSocket.OPEN) return;
  request("cancel", run.id ? { run_id: run.id } : { target: run.requestId });
});
$("fresh").addEventListener("click", () => {
  kept.removeItem("conversation");
  log.replaceChildren();
  cards.clear();
  $("text").focus();
});
$("quit").addEventListener("click", () => {
  if (!confirm("Stop the sidecar? Answers that are going on end with it.")) return;
  request("shutdown", {}, () => {
    hasEnded = true;
    stopUsing();
    state("The sidecar is stopped. Start it again to go on; this tab can be closed.");
  });
});

addEventListener("hashchange", () => location.reload()); // a new code for this very tab

begin();
