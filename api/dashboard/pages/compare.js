// Runs beside each other: curves on common axes, what their requests differ in, and what came of them.

import { useEffect, useState } from "preact/hooks";
import { json, Problem } from "../api.js";
import { More, useList } from "../components/more.js";
import { Empty, Loading, ProblemNote } from "../components/notes.js";
import { useQuery } from "../components/query.js";
import { Moment, State } from "../format.js";
import { useTitle } from "../hooks.js";
import { everyWhileVisible, html, stylesheet } from "../ui.js";
import { Differences, differences, titled } from "./compare/differences.js";
import { Overlay } from "./compare/overlay.js";
import { Parallel } from "./compare/parallel.js";
import { Outcomes } from "./compare/outcomes.js";

await stylesheet("./compare.css", import.meta.url);

const REFRESH_EVERY_S = 5;
const SPLITS = ["train", "held_out"];
const POINTS = 400;
const MAX_RUNS = 100;

export default function Compare() {
  useTitle("Compare");
  const [query, change] = useQuery();
  const ids = query.getAll("job");
  const sweep = query.get("sweep");
  const { runs: found, problem } = useRuns(ids.join(" "), sweep);
  const [hidden, setHidden] = useState(new Set());
  if (ids.length === 0 && !sweep) return html`<div class="head"><h1>Compare</h1></div><${Choice} />`;
  const toggle = (id) => {
    const next = new Set(hidden);
    if (!next.delete(id)) next.add(id);
    setHidden(next);
  };
  const drop = sweep ? null : (id) => change({ job: ids.filter((one) => one !== id) });
  const rows = found && differences(found.map(({ job }) => job.spec));
  const runs = found && titled(found, rows);
  return html`
    <div class="head"><h1>${sweep ? "Sweep" : "Compare"}</h1>${sweep && html`<code>${sweep}</code>`}</div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${!runs && !problem && html`<${Loading} rows=${6} label="Loading the runs…" />`}
    ${runs?.length === 0 && html`<div class="card"><${Empty} title="None of these jobs is left." /></div>`}
    ${runs?.length > 0 &&
    html`
      <${Runs} runs=${runs} hidden=${hidden} onToggle=${toggle} onDrop=${drop} />
      <section class="card"><h2>Curves</h2><${Overlay} runs=${runs} hidden=${hidden} /></section>
      <section class="card"><h2>Parallel coordinates</h2><${Parallel} runs=${runs} rows=${rows} hidden=${hidden} /></section>
      <section class="card"><h2>Outcomes</h2><${Outcomes} runs=${runs} rows=${rows} /></section>
      <section class="card"><h2>Differences of the requests</h2><${Differences} runs=${runs} rows=${rows} /></section>
    `}
  `;
}

/** {runs: [{job, curves: {train, held_out}, colour}], problem}; runs that go on are read again. */
function useRuns(ids, sweep) {
  const [state, setState] = useState({ runs: null, problem: null });
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    const known = new Map(); // of jobs that have ended, whose curves stay as they are
    let busy = false;
    const read = async () => {
      const jobs = sweep
        ? (await json(`/v1/jobs?limit=${MAX_RUNS}&sweep_id=${encodeURIComponent(sweep)}`, { signal })).data.reverse()
        : await Promise.all(ids.split(" ").map((id) => json(`/v1/jobs/${encodeURIComponent(id)}`, { signal })));
      return Promise.all(
        jobs.map(async (job, index) => {
          const read = known.get(job.id) ?? (await Promise.all(SPLITS.map((split) => curve(job.id, split, signal))));
          if (job.finished_at) known.set(job.id, read);
          return { job, curves: { train: read[0], held_out: read[1] }, colour: `--curve-${index % 8}` };
        }),
      );
    };
    const refresh = async () => {
      if (busy) return;
      busy = true;
      try {
        setState({ runs: await read(), problem: null });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        if (!(problem instanceof Problem)) throw problem;
        setState((before) => ({ ...before, problem }));
      } finally {
        busy = false;
      }
    };
    setState({ runs: null, problem: null });
    if (ids || sweep) everyWhileVisible(REFRESH_EVERY_S, refresh, signal);
    return () => abort.abort();
  }, [ids, sweep]);
  return state;
}

const curve = async (id, split, signal) =>
  (await json(`/v1/jobs/${id}/metrics/curve?split=${split}&points=${POINTS}`, { signal })).data;

const Runs = ({ runs, hidden, onToggle, onDrop }) => html`
  <ul class="runs card">
    ${runs.map(
      ({ job, colour, title }) => html`
        <li key=${job.id}>
          <label class="inline">
            <input type="checkbox" checked=${!hidden.has(job.id)} onChange=${() => onToggle(job.id)}
              aria-label="Draw ${title}" />
            <span class="swatch" style=${{ background: `var(${colour})` }}></span>
          </label>
          <a href="/jobs/${job.id}">${title}</a>
          <${State} state=${job.state} />
          ${onDrop && html`<button class="quiet" aria-label="Leave out ${title}" onClick=${() => onDrop(job.id)}>✕</button>`}
        </li>
      `,
    )}
  </ul>
`;

function Choice() {
  const { rows, problem, loading, rest } = useList("/v1/sweeps?limit=50");
  return html`
    <p>Choose two to twelve runs in <a href="/jobs">Jobs</a>, or one of the sweeps.</p>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${!rows && loading && html`<${Loading} />`}
    ${rows?.length === 0 && html`<div class="card"><${Empty} title="No sweeps yet."><pre>plumbline sweep sweep.yaml</pre><//></div>`}
    ${rows?.length > 0 &&
    html`<div class="card flush table-box"><table>
      <thead><tr><th>Sweep</th><th class="number">Created</th></tr></thead>
      <tbody>
        ${rows.map(
          (sweep) => html`<tr key=${sweep.id}>
            <td><a href="/compare?sweep=${sweep.id}">${sweep.name ?? sweep.id}</a></td>
            <td class="number"><${Moment} at=${sweep.created_at} /></td>
          </tr>`,
        )}
      </tbody>
    </table></div>`}
    <${More} rest=${rest} />
  `;
}
