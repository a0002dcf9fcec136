// What this tab may do comes from the one-time code in its address. The token that the code is
// exchanged for is kept for this tab only: it outlives a reload, and nothing else.

const TOKEN = "token";

export const token = (): string | null => sessionStorage.getItem(TOKEN);

export function forget(): void {
  sessionStorage.clear();
}

/** Takes the code out of the address at once. False where there is neither code nor token. */
export async function open(): Promise<boolean> {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (location.hash) history.replaceState(null, "", location.pathname);
  const given = code && (await exchange(code));
  if (given) sessionStorage.setItem(TOKEN, given);
  return token() !== null;
}

async function exchange(code: string): Promise<string | null> {
  try {
    const answer = await fetch("/api/session", { method: "POST", body: JSON.stringify({ code }) });
    return answer.ok ? (await answer.json()).token : null;
  } catch {
    return null;
  }
}

/** Why a socket cannot be opened, which it cannot say itself. */
export async function readiness(): Promise<"ready" | "refused" | "gone"> {
  try {
    const answer = await fetch("/readyz", { headers: bearer() });
    return answer.status === 401 ? "refused" : "ready";
  } catch {
    return "gone";
  }
}

export const bearer = (): Record<string, string> => ({ Authorization: `Bearer ${token() ?? ""}` });
