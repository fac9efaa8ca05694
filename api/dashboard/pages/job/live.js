// A job and its events, live over one stream.

import { useEffect, useRef, useState } from "preact/hooks";
import { Problem } from "../../api.js";
import { follow, sleep } from "../../sse.js";

// The stream of a finished job ends; its deployment may still change, by somebody else or after a removal.
const LOOK_AGAIN_MS = 10_000;
const REMOVING_MS = 2_000;

/**
 * {job, events, connected, problem, again}: `job` null until the first frame; `again()` looks at an ended job without
 * waiting. Every event comes once, over as many connections as it takes.
 */
export function useLiveJob(id) {
  const [state, setState] = useState({ job: null, events: [], connected: true, problem: null });
  const rest = useRef(new AbortController());
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    let job = null;
    let pending = [];
    const change = (changes) => setState((before) => ({ ...before, ...changes }));
    // The replay of a long job is hundreds of frames: they are drawn together.
    const flush = () => {
      if (pending.length === 0) return;
      const more = pending;
      pending = [];
      setState((before) => ({ ...before, events: [...before.events, ...more] }));
    };
    const onFrame = ({ event, data }) => {
      if (event === "job") change({ job: (job = data) });
      else if (event === "event" && pending.push(data) === 1) setTimeout(flush);
    };
    const live = async () => {
      let lastId;
      while (!signal.aborted) {
        rest.current = new AbortController(); // from here on, so that `again()` is heard while the stream ends too
        lastId = await follow(`/v1/jobs/${id}/events`, {
          lastId,
          signal,
          onFrame,
          onConnection: (connected) => change({ connected }),
        });
        if (signal.aborted) return;
        if (!rest.current.signal.aborted) await sleep(job?.deployment?.state === "removing" ? REMOVING_MS : LOOK_AGAIN_MS, rest.current.signal);
      }
    };
    live().catch((problem) => {
      if (!(problem instanceof Problem)) throw problem;
      change({ problem });
    });
    return () => (abort.abort(), rest.current.abort());
  }, [id]);
  return { ...state, again: () => rest.current.abort() };
}
