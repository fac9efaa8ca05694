// Hooks that more than one page uses.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { json, Problem, session } from "./api.js";
import { everyWhileVisible } from "./ui.js";

/** The document's title while the component is shown: "name – Plumbline". */
export function useTitle(name) {
  useEffect(() => {
    document.title = name ? `${name} – Plumbline` : "Plumbline";
  }, [name]);
}

/**
 * The answer of `GET path`: {data, problem, loading, refresh}. A change of `path` asks anew; answers that were
 * overtaken are dropped, and `refresh` never settles for one that was asked for before it. While a later question is
 * under way, or has failed, `data` stays what it was.
 * `path` null asks nothing. every: seconds between questions while the page is visible; 0 asks once. Either asks again
 * when the API can be reached again.
 */
export function useAnswer(path, { every = 0 } = {}) {
  const [answer, setAnswer] = useState({ path, data: null, problem: null, loading: true });
  const ask = useRef(() => {});
  useEffect(() => {
    if (path === null) return undefined;
    const abort = new AbortController();
    let busy = false;
    let again = false; // refreshed while an answer was under way that may be older than the wish
    ask.current = async ({ fresh = false } = {}) => {
      again ||= fresh && busy;
      if (busy) return;
      busy = true;
      try {
        const data = await json(path, { signal: abort.signal });
        setAnswer({ path, data, problem: null, loading: false });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        if (!(problem instanceof Problem)) throw problem;
        setAnswer((before) => ({ ...before, path, problem, loading: false }));
      } finally {
        busy = false;
        if (again && !abort.signal.aborted) {
          again = false;
          ask.current();
        }
      }
    };
    setAnswer((before) => ({ ...before, loading: true }));
    session.addEventListener("reachable", ({ detail }) => detail && ask.current(), { signal: abort.signal });
    if (every > 0) everyWhileVisible(every, () => ask.current(), abort.signal);
    else ask.current();
    return () => abort.abort();
  }, [path, every]);
  const refresh = useCallback(() => ask.current({ fresh: true }), []);
  return { ...answer, refresh };
}

/** Runs `act` when one of `values` changes; not for those it begins with. */
export function useChange(act, values) {
  const begun = useRef(false);
  useEffect(() => {
    if (begun.current) act();
    begun.current = true;
  }, values);
}

/** [run, busy, problem, forget]: `run(promise-maker)` keeps the Problem it throws, for a note beside the button. */
export function useAction() {
  const [state, setState] = useState({ busy: false, problem: null });
  const run = useCallback(async (act) => {
    setState({ busy: true, problem: null });
    try {
      const result = await act();
      setState({ busy: false, problem: null });
      return result;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      setState({ busy: false, problem });
      return undefined;
    }
  }, []);
  const forget = useCallback(() => setState({ busy: false, problem: null }), []);
  return [run, state.busy, state.problem, forget];
}

/** Now in milliseconds, told every `seconds` while the page is visible: for times that count up. */
export function useNow(seconds) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const abort = new AbortController();
    everyWhileVisible(seconds, () => setNow(Date.now()), abort.signal);
    return () => abort.abort();
  }, [seconds]);
  return now;
}
