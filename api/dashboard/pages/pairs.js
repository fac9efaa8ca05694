// What training did to a job's pairs: margins before and after, a pair token by token, flags, the corrected set.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { json, Problem, session } from "../api.js";
import { Empty, Loading, ProblemNote } from "../components/notes.js";
import { useWho } from "../components/who.js";
import { jobTitle, number } from "../format.js";
import { useAnswer, useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { Correct } from "./pairs/correct.js";
import { Detail } from "./pairs/detail.js";
import { useFlags } from "./pairs/flags.js";
import { PairList, SORTS } from "./pairs/list.js";
import { Scatter } from "./pairs/scatter.js";

await Promise.all([
  stylesheet("../vendor/uplot-1.6.32/uPlot.min.css", import.meta.url),
  stylesheet("./pairs.css", import.meta.url),
]);

// While the focus is on a pair or in the list; elsewhere they are nothing.
const FLAG_KEYS = { s: "swap", d: "drop", u: null };
const STEPS = { j: 1, k: -1 };

export default ({ id }) => html`<${PairsPage} key=${id} id=${id} />`;

function PairsPage({ id }) {
  const base = `/v1/jobs/${id}/pairs`;
  const asked = new URLSearchParams(location.search);
  const [sort, setSort] = useState(SORTS.has(asked.get("sort")) ? asked.get("sort") : "most_wrong");
  const [flagged, setFlagged] = useState(asked.get("flagged") === "true");
  const [row, setRow] = useState(Number(asked.get("row")) || null);
  const job = useAnswer(`/v1/jobs/${id}`);
  const margins = useAnswer(`${base}/margins`);
  const list = usePages(base, sort, flagged);
  useTitle(job.data ? `Pairs of ${jobTitle(job.data)}` : "Pairs");

  const pairs = list.pairs;
  const shown = row ?? pairs?.[0]?.row ?? null;
  useEffect(() => {
    const query = new URLSearchParams({ sort, ...(flagged && { flagged }), ...(row && { row }) });
    history.replaceState(history.state, "", `${location.pathname}?${query}`); // to be shared; no new page
  }, [sort, flagged, row]);

  const region = useRef(null);
  const loaded = useRef(null); // the pair that was shown last, which may be on no page of the list
  const mayFlag = useWho().may("member");
  const flags = useFlags(base, list.setFlag);
  const at = useRef(shown); // ahead of what is drawn: of two quick keys the second is for the pair that the first went to
  at.current = shown;
  const choose = (next) => {
    at.current = next;
    setRow(next);
  };
  const move = (by) => {
    const place = pairs?.findIndex((pair) => pair.row === at.current) ?? -1;
    const next = pairs?.[place + by];
    if (!next) return;
    choose(next.row);
    // what has the focus in the pair that goes would take it along
    if (document.activeElement.closest(".pair")) region.current.focus({ preventScroll: true });
  };
  const mark = (action) => {
    const row = at.current;
    const known = [...(pairs ?? []), loaded.current].find((pair) => pair?.row === row);
    if (mayFlag && row !== null) flags.mark(row, action, flags.flagOf(row, known?.flag));
  };
  const onKey = (event) => {
    const writes = event.target.matches("input, textarea, select");
    if (writes || event.ctrlKey || event.metaKey || event.altKey) return;
    const { [event.key]: by } = STEPS;
    if (event.key in FLAG_KEYS) mark(FLAG_KEYS[event.key]);
    else if (by) move(by);
    else return;
    event.preventDefault();
  };

  if (list.problem && !pairs) return html`<${Head} id=${id} job=${job.data} /><${ProblemNote} problem=${list.problem} />`;
  return html`
    <${Head} id=${id} job=${job.data} />
    ${list.about && html`<${Summary} about=${list.about} />`}
    ${list.problem && html`<${ProblemNote} problem=${list.problem} />`}
    ${list.about && html`<${Correct} id=${id} flags=${list.flags} />`}
    <div class="pairs" ref=${region} tabindex="-1" onKeyDown=${onKey}>
      <div class="pairs-side">
        <section class="card" aria-labelledby="margins-title">
          <h2 id="margins-title">Margins</h2>
          ${margins.problem && html`<${ProblemNote} problem=${margins.problem} />`}
          ${margins.data
            ? html`<${Scatter} margins=${margins.data} selected=${shown} onSelect=${choose} />`
            : !margins.problem && html`<${Loading} rows=${5} />`}
        </section>
        <${PairList}
          list=${list}
          sort=${sort}
          onSort=${setSort}
          flagged=${flagged}
          onFlagged=${setFlagged}
          selected=${shown}
          onSelect=${choose}
        />
      </div>
      ${shown !== null && html`
        <${Detail}
          key=${shown}
          base=${base}
          row=${shown}
          flags=${flags}
          mark=${mark}
          onLoaded=${(pair) => (loaded.current = pair)}
        />
      `}
      ${shown === null && list.loaded && html`<section class="card"><${Empty} title="No pair is chosen" /></section>`}
    </div>
  `;
}

const Head = ({ id, job }) => html`
  <p class="back"><a href=${`/jobs/${id}`}>← ${job ? jobTitle(job) : "The job"}</a></p>
  <div class="head"><h1>What did training move?</h1></div>
`;

const BEFORE = { reference: "under the reference model", start: "under the model that training started from" };

const Summary = ({ about }) => html`
  <p class="pairs-summary">
    ${about.scored < about.trained
      ? `A sample of ${number(about.scored)} of ${number(about.trained)} training pairs, drawn with seed ${about.seed}. `
      : `All ${number(about.scored)} training pairs. `}
    <em>Before</em> is ${BEFORE[about.before]}, <em>after</em> the trained model at step ${number(about.steps)}. The chosen
    answer is likelier in <strong>${number(about.preferred_after)}</strong> ${about.preferred_after === 1 ? "pair" : "pairs"}; it was in${" "}
    <strong>${number(about.preferred_before)}</strong>.
  </p>
`;

/** The pages of a list that were asked for so far; a change of the order begins anew. */
function usePages(base, sort, flagged) {
  const empty = { pairs: null, about: null, flags: { swap: 0, drop: 0 }, cursor: null, problem: null, loaded: false };
  const [list, setList] = useState(empty);
  const asking = useRef(null);
  const ask = useCallback(
    async (cursor) => {
      asking.current?.abort();
      const abort = (asking.current = new AbortController());
      const query = new URLSearchParams({ ...SORTS.get(sort).params, ...(flagged && { flagged }), ...(cursor && { cursor }) });
      try {
        const page = await json(`${base}?${query}`, { signal: abort.signal });
        setList((before) => ({
          pairs: cursor ? [...before.pairs, ...page.data] : page.data,
          about: page.about,
          flags: page.flags,
          cursor: page.next_cursor,
          problem: null,
          loaded: true,
        }));
      } catch (problem) {
        if (problem.name === "AbortError") return;
        if (!(problem instanceof Problem)) throw problem;
        setList((before) => ({ ...before, problem, loaded: true }));
      }
    },
    [base, sort, flagged],
  );
  useEffect(() => {
    ask(null);
    const again = ({ detail }) => detail && ask(null);
    session.addEventListener("reachable", again);
    return () => (session.removeEventListener("reachable", again), asking.current?.abort());
  }, [ask]);
  /** What the API has taken, without asking for the pages again: the pair stays where it is. Counts are the API's. */
  const setFlag = useCallback(
    async (row, flag) => {
      setList((list) => ({
        ...list,
        pairs: list.pairs?.map((pair) => (pair.row === row ? { ...pair, flag } : pair)) ?? null,
      }));
      const { flags } = await json(`${base}?limit=1`);
      setList((list) => ({ ...list, flags }));
    },
    [base],
  );
  return { ...list, more: () => ask(list.cursor), setFlag };
}
