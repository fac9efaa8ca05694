// A list of any length as pages that are loaded as one scrolls: those near the window are kept fresh, the others wait.

import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import { json, Problem } from "../../api.js";
import { TERMINAL } from "../../format.js";
import { everyWhileVisible } from "../../ui.js";

/** The list that was left last, so that who goes back is where they were. */
let kept = { key: null, pages: [] };

const ROWS = 50;

/**
 * {key, pages, problem, loading, more, onNear, onHeight}: of `path`, a query that answers {data, next_cursor}. key: tells
 * one list from another; the earlier one stays until the next has come. pages: [{cursor, data, next, far, height}]; each
 * begins where the one before it ends, also when new rows have come on top. more(): loads one further page, if there is
 * one. onNear(index, near): says which pages are near the window; they are asked for anew every `every` seconds.
 * onHeight(index, pixels): how high a page was last. whose: a list is never shown to somebody else than it was loaded for.
 */
export function useScrolledPages(path, { every, whose }) {
  const key = `${whose} ${path}`;
  const start = () => (kept.key === key ? kept.pages : []);
  const [shown, setShown] = useState(() => ({ key, pages: start(), problem: null, loading: true }));
  const list = useRef(null);

  // before a row says whether it is near
  useLayoutEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    const near = new Set();
    let pages = start();
    let busy = false;
    const show = (problem) => {
      kept = { key, pages };
      setShown({ key, pages, problem, loading: false });
    };
    const load = async (index) => {
      const cursor = pages[index]?.cursor ?? null;
      const part = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
      const { data, next_cursor: next } = await json(`${path}&limit=${ROWS}${part}`, { signal });
      const [following, ...rest] = next === null ? [] : pages.slice(index + 1);
      const page = { ...pages[index], cursor, data: unchanged(pages[index]?.data, data), next, at: performance.now() };
      pages = [...pages.slice(0, index), page, ...(following ? [{ ...following, cursor: next }, ...rest] : [])];
    };
    const ask = async (wanted) => {
      if (busy) return;
      busy = true;
      try {
        for (const index of wanted) if (index === 0 || index < pages.length) await load(index);
        show(null);
      } catch (problem) {
        if (problem.name === "AbortError") return;
        if (!(problem instanceof Problem)) throw problem;
        show(problem);
      } finally {
        busy = false;
      }
    };
    const refresh = () => ask(near.size > 0 ? [...near].sort((one, other) => one - other) : [0]);
    list.current = {
      near: (index, isNear) => {
        if (!isNear) near.delete(index);
        else near.add(index);
        const page = pages[index];
        if (page) page.far = !isNear;
        if (isNear && page && performance.now() - page.at > 1000 * every) refresh();
      },
      height: (index, pixels) => {
        if (pages[index]) pages[index].height = pixels;
      },
      more: () => {
        const next = pages.at(-1)?.next;
        if (!next || busy) return; // what is under way ends with a new list, and the question comes again
        pages = [...pages, { cursor: next, data: [], next: null, at: 0 }];
        near.add(pages.length - 1);
        ask([pages.length - 1]);
      },
    };
    if (pages.length > 0) setShown({ key, pages, problem: null, loading: true });
    everyWhileVisible(every, refresh, signal);
    return () => abort.abort();
  }, [key, path, every]);

  const more = useCallback(() => list.current.more(), []);
  const onNear = useCallback((...told) => list.current.near(...told), []);
  const onHeight = useCallback((...told) => list.current.height(...told), []);
  return { ...shown, loading: shown.loading || shown.key !== key, more, onNear, onHeight };
}

/** The jobs of `after`; those that have ended and are as they were in `before` are the same objects. */
function unchanged(before = [], after) {
  const known = new Map(before.map((job) => [job.id, job]));
  return after.map((job) => {
    const was = known.get(job.id);
    return was && TERMINAL.has(job.state) && JSON.stringify(was) === JSON.stringify(job) ? was : job;
  });
}
