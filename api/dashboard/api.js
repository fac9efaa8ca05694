// The client of Plumbline's API: the session, requests, and problems as exceptions.
//
// The key is shown to the API once and kept nowhere: from then on an HttpOnly cookie, which no script can read, stands
// for it.

/** Fires `unauthorized` when the API no longer takes the session, `reachable` with {detail: boolean} when that changes. */
export const session = new EventTarget();

// No other origin can add it, so that a forged request is told from ours (api/authentication.py).
const OURS = { "X-Plumbline-Session": "1" };

const ANSWER_MS = 30_000;

/** An RFC 9457 problem. `status` is 0 when no answer came at all; `retryAfterS` 0 when the API did not say. */
export class Problem extends Error {
  constructor({ title, detail = "", code, status, ...extra }) {
    super(`${title} ${detail}`);
    Object.assign(this, extra, { title, detail, code, status });
  }

  static async of(response) {
    const retryAfterS = Number(response.headers.get("retry-after")) || 0; // a date, as a proxy may send, is left out
    return Object.assign(await Problem.#read(response), { retryAfterS });
  }

  static async #read(response) {
    const type = response.headers.get("content-type") ?? "";
    if (type.includes("problem+json")) return new Problem(await response.json());
    if (type.includes("json")) {
      const { error } = await response.json(); // in OpenAI's form, on the paths that are OpenAI's
      if (error) return new Problem({ title: "The API refused this", detail: error.message, ...error, status: response.status });
    }
    return new Problem({
      title: "The API gave an answer that is not its own",
      detail: `Status ${response.status}. Is there a proxy in between?`,
      code: "unexpected_answer",
      status: response.status,
    });
  }
}

/**
 * Starts a session with the key and returns who it belongs to. Throws Problem; one with the code `unauthorized` means
 * that the key is not good.
 */
export async function signIn(key) {
  const headers = { Authorization: `Bearer ${key}` };
  return (await send("/v1/session", { method: "POST", headers, signingIn: true })).json();
}

export const signOut = () => send("/v1/session", { method: "DELETE" });

/** The key of `#key=...`, which leaves the address bar; null if there is none. */
export function takeKeyFromAddress() {
  if (!location.hash.startsWith("#key=")) return null;
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  history.replaceState(null, "", location.pathname + location.search);
  return key?.trim() || null;
}

let reachable = true;

function tellReachable(now) {
  if (now === reachable) return;
  reachable = now;
  session.dispatchEvent(new CustomEvent("reachable", { detail: now }));
}

/**
 * Sends a request and returns the Response if it is a success. `body`: JSON, or FormData as it is.
 * Throws Problem, or AbortError when `signal` fires.
 */
export async function send(path, { method = "GET", body, headers = {}, signal, signingIn = false } = {}) {
  const options = { method, signal, headers: { ...OURS, ...headers }, cache: "no-store", credentials: "same-origin" };
  if (body instanceof FormData) {
    options.body = body;
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] ??= "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    tellReachable(false);
    throw unreachable();
  }
  tellReachable(true);
  if (response.ok) return response;
  throw await refusal(response, signingIn);
}

const unreachable = () =>
  new Problem({
    title: "The API cannot be reached",
    detail: "Is Plumbline still running, and is this machine online?",
    code: "unreachable",
    status: 0,
  });

async function refusal(response, signingIn) {
  if (response.status === 401 && !signingIn) session.dispatchEvent(new Event("unauthorized"));
  return Problem.of(response);
}

/** For an Idempotency-Key. crypto.randomUUID is there on secure origins only, and a cluster's dashboard may be none. */
export const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * Like `send`, for JSON answers. An answer to a GET that has not come whole after 30 s does not come: a connection that a
 * sleeping machine left behind would otherwise be waited for until the system gives it up.
 */
export async function json(path, { signal, ...options } = {}) {
  const patience = options.method ? [] : [AbortSignal.timeout(ANSWER_MS)];
  try {
    const response = await send(path, { ...options, signal: AbortSignal.any([...patience, ...(signal ? [signal] : [])]) });
    return await response.json();
  } catch (error) {
    if (!(error instanceof TypeError) && error.name !== "TimeoutError") throw error; // aborted, or not JSON
    tellReachable(false);
    throw unreachable();
  }
}

/**
 * Sends a file as multipart form data; returns the JSON answer. `fetch` cannot tell how much it has sent, so this is
 * XMLHttpRequest: `onProgress(bytes)`. Throws as `send` does.
 */
export function upload(path, file, { onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const aborted = () => reject(new DOMException("The upload was stopped.", "AbortError"));
    request.open("POST", path);
    for (const [name, value] of Object.entries(OURS)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded }) => onProgress(loaded));
    request.addEventListener("abort", aborted);
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("load", async () => {
      const headers = { "Content-Type": request.getResponseHeader("content-type") ?? "" };
      const response = new Response(request.responseText, { status: request.status, headers });
      if (response.ok) resolve(response.json());
      else reject(await refusal(response, false));
    });
    signal?.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", file);
    request.send(form);
  });
}
