// Server-sent events over fetch: EventSource cannot send the Authorization header.

import { Problem, send } from "./api.js";

// The API sends a comment every 15 s; a connection that is silent for three of them is dead without knowing it.
const SILENCE_MS = 45_000;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const LONGEST_WAIT_MS = 60_000; // that a Retry-After is obeyed for

/**
 * The frames of an event stream as {event, data, id}; `data` is parsed JSON, `id` undefined where the frame has none.
 * A frame that is cut off by the end of the stream is dropped, as the standard says. Throws Problem when the
 * connection breaks, AbortError when its request is aborted.
 */
export async function* frames(body, onBytes = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let frame = { event: "message", data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(broken);
      if (done) return;
      onBytes();
      // A "\r" at the very end may be half of a "\r\n": it waits for the next chunk.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          const data = frame.data.join("\n");
          if (data === "[DONE]") return; // how OpenAI's streams end
          if (frame.data.length > 0) yield { ...frame, data: JSON.parse(data) };
          frame = { event: "message", data: [] };
          continue;
        }
        const colon = line.indexOf(":");
        if (colon === 0) continue; // a comment
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") frame.data.push(text);
        else if (field === "event" || field === "id") frame[field] = text;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // already broken or aborted: nothing is left to cancel
  }
}

function broken(error) {
  if (error.name === "AbortError") throw error;
  throw new Problem({
    title: "The connection broke off",
    detail: "Is Plumbline still running, and is this machine online?",
    code: "unreachable",
    status: 0,
  });
}

/**
 * Follows a stream of numbered frames to its `end`, over as many connections as it takes, without losing a frame.
 * Returns the id of the last frame, to go on from later; or returns early when `signal` fires.
 * No connection is held while the page is hidden: a browser gives one host six, and tabs share them.
 * `onConnection(true|false)` tells whether frames can arrive. Throws Problem for what trying again cannot mend.
 */
export async function follow(path, { lastId, onFrame, onConnection = () => {}, signal }) {
  let failures = 0;
  while (!signal.aborted) {
    await visible(signal);
    const connection = new Connection(signal);
    let goOn = false;
    let refused;
    try {
      const headers = { Accept: "text/event-stream" };
      if (lastId !== undefined) headers["Last-Event-ID"] = lastId;
      const response = await send(path, { headers, signal: connection.signal });
      onConnection(true);
      for await (const frame of frames(response.body, () => connection.heard())) {
        failures = 0;
        if (frame.event === "end") return lastId;
        if (frame.event === "reconnect") {
          goOn = true;
          break;
        }
        onFrame(frame);
        lastId = frame.id ?? lastId;
      }
    } catch (error) {
      if (!mayPass(error) && error.name !== "AbortError") throw error;
      refused = error;
    } finally {
      connection.close();
    }
    if (goOn || document.hidden || signal.aborted) continue;
    onConnection(false);
    await sleep(delayAfter(failures++, refused), signal);
  }
  return lastId;
}

/** The result of `ask`, which is asked again while its Problem may pass. Throws as `ask` does, once `signal` fires too. */
export async function patiently(ask, signal) {
  for (let failures = 0; ; failures++) {
    try {
      return await ask();
    } catch (error) {
      if (!mayPass(error) || signal.aborted) throw error;
      await sleep(delayAfter(failures, error), signal);
    }
  }
}

const mayPass = (error) => error instanceof Problem && (error.status === 0 || error.status === 429 || error.status >= 500);

/** Milliseconds to wait after `failures` others in a row: more each time, and not less than the API asked for. */
function delayAfter(failures, error) {
  const own = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** failures) * (0.75 + Math.random() / 2);
  return Math.max(own, Math.min(LONGEST_WAIT_MS, 1000 * (error?.retryAfterS ?? 0)));
}

/** Aborts with its parent, when the page is hidden, and after a long silence. */
class Connection {
  #abort = new AbortController();
  #timer;

  constructor(parent) {
    const until = { signal: this.#abort.signal };
    parent.addEventListener("abort", () => this.#abort.abort(), until);
    document.addEventListener("visibilitychange", () => document.hidden && this.#abort.abort(), until);
    if (parent.aborted) this.#abort.abort();
    this.heard();
  }

  get signal() {
    return this.#abort.signal;
  }

  heard() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#abort.abort(), SILENCE_MS);
  }

  close() {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }
}

/** Waits `ms`, or until `signal` fires. */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

function visible(signal) {
  return new Promise((resolve) => {
    const check = () => (!document.hidden || signal.aborted) && resolve();
    document.addEventListener("visibilitychange", check, { signal });
    signal.addEventListener("abort", check, { once: true });
    check();
  });
}
