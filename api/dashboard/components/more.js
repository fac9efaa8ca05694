// A list that the API gives in pages: the first is kept fresh, the ones after it come when they are asked for.

import { useState } from "preact/hooks";
import { json } from "../api.js";
import { useAction, useAnswer } from "../hooks.js";
import { html } from "../ui.js";
import { ProblemNote } from "./notes.js";

/**
 * {rows, problem, loading, refresh, rest}: of `path`, a query that answers {data, next_cursor} with rows that have an
 * `id`. rows: null until the first page has come. rest: for `More`, which stands below the rows.
 * every: seconds between questions for the first page. refresh(): begins with the first page again.
 */
export function useList(path, { every = 0 } = {}) {
  const first = useAnswer(path, { every });
  const [later, setLater] = useState({ path, rows: [], cursor: undefined });
  const [act, busy, failed] = useAction();
  const { rows: old, cursor: after } = later.path === path ? later : { rows: [], cursor: undefined };
  const cursor = after === undefined ? first.data?.next_cursor : after;
  const more = () =>
    act(async () => {
      const page = await json(`${path}${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(cursor)}`);
      setLater({ path, rows: [...old, ...page.data], cursor: page.next_cursor });
    });
  const refresh = () => {
    setLater({ path, rows: [], cursor: undefined });
    return first.refresh();
  };
  const known = new Set(first.data?.data.map(({ id }) => id)); // rows move down as new ones come on top
  const rows = first.data && [...first.data.data, ...old.filter(({ id }) => !known.has(id))];
  return { rows, problem: first.problem, loading: first.loading, refresh, rest: cursor ? { more, busy, failed } : null };
}

/** rest: of useList. */
export const More = ({ rest }) =>
  rest &&
  html`
    ${rest.failed && html`<${ProblemNote} problem=${rest.failed} />`}
    <p><button disabled=${rest.busy} onClick=${rest.more}>Show more</button></p>
  `;
