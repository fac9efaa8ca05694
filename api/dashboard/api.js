// The client of Plumbline's API: the key, requests, and problems as exceptions.

const STORED_AS = "plumbline.key";

export const currentKey = () => localStorage.getItem(STORED_AS);
export const keepKey = (key) => localStorage.setItem(STORED_AS, key);
export const forgetKey = () => localStorage.removeItem(STORED_AS);

/** Moves the key of `#key=...` from the address bar into local storage. True when there was one. */
export function takeKeyFromAddress() {
  if (!location.hash.startsWith("#key=")) return false;
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key) keepKey(key.trim());
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

/** Fires `unauthorized` when the API refuses the key in use. */
export const session = new EventTarget();

/** An RFC 9457 problem. `status` is 0 when no answer came at all. */
export class Problem extends Error {
  constructor({ title, detail = "", code, status, ...extra }) {
    super(`${title} ${detail}`);
    Object.assign(this, extra, { title, detail, code, status });
  }

  static async of(response) {
    if (response.headers.get("content-type")?.includes("problem+json")) return new Problem(await response.json());
    return new Problem({
      title: "The API gave an answer that is not its own",
      detail: `Status ${response.status}. Is there a proxy in between?`,
      code: "unexpected_answer",
      status: response.status,
    });
  }
}

/**
 * Sends a request with the key and returns the Response if it is a success.
 * Throws Problem, or AbortError when `signal` fires.
 */
export async function send(path, { method = "GET", body, headers = {}, signal, key = currentKey() } = {}) {
  const options = { method, signal, headers: { Authorization: `Bearer ${key}`, ...headers }, cache: "no-store" };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The API cannot be reached",
      detail: "Is Plumbline still running, and is this machine online?",
      code: "unreachable",
      status: 0,
    });
  }
  if (response.ok) return response;
  // The key may have been replaced while this request was under way: only the one in use is given up.
  if (response.status === 401 && key === currentKey()) {
    forgetKey();
    session.dispatchEvent(new Event("unauthorized"));
  }
  throw await Problem.of(response);
}

/** Like `send`, for JSON answers. */
export const json = async (path, options) => (await send(path, options)).json();
