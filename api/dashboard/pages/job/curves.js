// The curves of one job, live until it ends: what there is already as a few points, then every metric that comes.

import { useEffect, useRef, useState } from "preact/hooks";
import { json, Problem } from "../../api.js";
import { Chart, curveColour, latest } from "../../components/chart.js";
import { chartAsPng, download } from "../../components/download.js";
import { ProblemNote } from "../../components/notes.js";
import { number } from "../../format.js";
import { follow, patiently } from "../../sse.js";
import { html } from "../../ui.js";
import { asCsv, chartsOf, columns, nameOf, Steps } from "./series.js";

const REDRAW_EVERY_MS = 250;
const POINTS = 1000; // of what there is when the page is opened; a longer job's steps are put together by the API
const LATEST = ["loss", "rewards/margins", "rewards/accuracies", "kl", "grad_norm", "learning_rate", "tokens_per_s"];

/**
 * {splits, problem} of the job's metrics, drawn anew as they come. The curve's `through` and the stream's
 * Last-Event-ID meet, so that no point is lost between them; one that comes twice replaces itself.
 * attempt: how many there were. The stream of a job that failed has ended; a retry is a new attempt, followed anew.
 */
function useMetrics(id, attempt) {
  const splits = useRef(noSteps());
  const [, redraw] = useState(0);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    setProblem(null);
    let timer;
    // the replay of a long job is thousands of frames: draw now and then, not for each
    const soon = () => {
      timer ??= setTimeout(() => ((timer = undefined), redraw((count) => count + 1)), REDRAW_EVERY_MS);
    };
    const run = async () => {
      const curves = await Promise.all(
        Object.keys(splits.current).map(async (split) => {
          const path = `/v1/jobs/${id}/metrics/curve?split=${split}&points=${POINTS}`;
          return [split, await patiently(() => json(path, { signal }), signal)];
        }),
      );
      splits.current = noSteps(); // what a curve puts together is not mixed with the steps that an earlier one had
      for (const [split, { data }] of curves) {
        for (const point of data) splits.current[split].set(point.last_step, point.mean);
      }
      redraw((count) => count + 1);
      const onFrame = ({ event, data }) => {
        if (event !== "metric") return;
        splits.current[data.split].set(data.step, data.values);
        soon();
      };
      const through = Math.min(...curves.map(([, curve]) => curve.through));
      await follow(`/v1/jobs/${id}/metrics`, { lastId: through || undefined, signal, onFrame });
    };
    run().catch((error) => {
      if (error instanceof Problem) setProblem(error);
      else if (error.name !== "AbortError") throw error;
    });
    return () => (abort.abort(), clearTimeout(timer));
  }, [id, attempt]);
  return { splits: splits.current, problem };
}

const noSteps = () => ({ train: new Steps(), held_out: new Steps() });

export function Curves({ id, attempt }) {
  const { splits, problem } = useMetrics(id, attempt);
  const [smoothing, setSmoothing] = useState(0);
  const [log, setLog] = useState(false);
  const { train } = splits;
  if (problem) return html`<${ProblemNote} problem=${problem} />`;
  if (train.size === 0) return html`<p class="muted">The curves start with the first optimizer step.</p>`;
  const { step, values } = train.latest;
  const { main, others } = chartsOf(train.keys);
  const look = { splits, smoothing, log };
  return html`
    <dl class="tiles">
      <div><dt>step</dt><dd>${number(step)}</dd></div>
      ${LATEST.filter((key) => values[key] != null).map(
        (key) => html`<div key=${key}><dt>${nameOf(key)}</dt><dd>${number(values[key])}</dd></div>`,
      )}
    </dl>
    <${Controls} smoothing=${smoothing} log=${log} onSmoothing=${setSmoothing} onLog=${setLog}>
      <button onClick=${() => download(`${id}.csv`, asCsv(splits), "text/csv")}>CSV</button>
    <//>
    <div class="curves">
      ${main.map(({ title, keys }) => html`<${MetricChart} key=${title} title=${title} keys=${keys} ...${look} />`)}
    </div>
    ${others.length > 0 && html`<${More} charts=${others} look=${look} />`}
  `;
}

export const Controls = ({ smoothing, log, onSmoothing, onLog, children }) => html`
  <div class="bar curve-controls">
    <label class="inline">Smoothing
      <input type="range" min="0" max="0.99" step="0.01" value=${smoothing} aria-valuetext=${smoothing}
        onInput=${(event) => onSmoothing(Number(event.target.value))} />
      <output class="number">${smoothing.toFixed(2)}</output>
    </label>
    <label class="inline"><input type="checkbox" checked=${log} onChange=${(event) => onLog(event.target.checked)} /> log scale</label>
    <small class="hint">Drag over a chart to zoom, double-click to leave it; by keyboard: arrows, +, −, Escape.</small>
    <div class="push actions">${children}</div>
  </div>
`;

/** Drawn when it is opened: there may be dozens. */
function More({ charts, look }) {
  const [open, setOpen] = useState(false);
  return html`
    <details class="more" onToggle=${(event) => setOpen(event.target.open)}>
      <summary>${charts.length} further metrics</summary>
      ${open &&
      html`<div class="curves">
        ${charts.map(({ title, keys }) => html`<${MetricChart} key=${title} title=${title} keys=${keys} ...${look} />`)}
      </div>`}
    </details>
  `;
}

function MetricChart({ title, keys, splits, smoothing, log }) {
  const plot = useRef(null);
  const lines = keys.flatMap((key, index) => {
    const colour = curveColour(index);
    const name = nameOf(key);
    const train = { label: name, colour, width: index === 0 ? 2 : 1.5, points: splits.train.of(key) };
    if (!splits.held_out.keys.has(key)) return [train];
    // Held-out values are few and far between: dots, joined by a broken line
    const look = { dash: [5, 4], spanGaps: true, dots: true };
    return [train, { label: `${name}, held out`, colour, ...look, points: splits.held_out.of(key) }];
  });
  const data = columns(lines, { smoothing, log });
  const series = lines.map(({ points, dots, ...look }) => ({ ...look, points: { show: dots ?? false, size: 5 } }));
  const values = lines.map(({ label }, index) => `${label} ${number(latest(data[index + 1]))}`).join(", ");
  return html`
    <div class="curve">
      <${Chart} title=${title} xLabel="step" wholeX sync="steps" log=${log} series=${series} data=${data}
        onPlot=${(made) => (plot.current = made)} description="${title} by optimizer step; latest: ${values}" />
      <button class="quiet png" aria-label="${title} as PNG"
        onClick=${async () => download(`${title}.png`, await chartAsPng(plot.current, title))}>PNG</button>
    </div>
  `;
}
