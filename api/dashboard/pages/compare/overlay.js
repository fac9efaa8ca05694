// One chart a metric, one line a run.

import { useState } from "preact/hooks";
import { Chart, latest } from "../../components/chart.js";
import { number } from "../../format.js";
import { html } from "../../ui.js";
import { Controls } from "../job/curves.js";
import { columns } from "../job/series.js";

const FIRST = ["loss", "rewards/margins", "rewards/accuracies", "kl", "grad_norm", "tokens_per_s"];
const SPLITS = [
  ["train", "train"],
  ["held_out", "held out"],
];

export function Overlay({ runs, hidden }) {
  const [smoothing, setSmoothing] = useState(0);
  const [log, setLog] = useState(false);
  const [split, setSplit] = useState("train");
  const [more, setMore] = useState([]);
  const drawn = runs.filter(({ job, curves }) => !hidden.has(job.id) && curves[split].length > 0);
  const keys = [...new Set(drawn.flatMap(({ curves }) => curves[split].flatMap(({ mean }) => Object.keys(mean))))];
  const shown = [...FIRST, ...more].filter((key) => keys.includes(key));
  const others = keys.filter((key) => !shown.includes(key)).sort();
  return html`
    <${Controls} smoothing=${smoothing} log=${log} onSmoothing=${setSmoothing} onLog=${setLog}>
      <div class="chips" role="group" aria-label="Split">
        ${SPLITS.map(([name, text]) => html`<button key=${name} aria-pressed=${split === name} onClick=${() => setSplit(name)}>${text}</button>`)}
      </div>
      ${others.length > 0 &&
      html`<label class="inline">Add
        <select value="" onChange=${({ target }) => (setMore([...more, target.value]), (target.value = ""))}>
          <option value="">a metric…</option>
          ${others.map((key) => html`<option key=${key} value=${key}>${key}</option>`)}
        </select></label>`}
    <//>
    ${shown.length === 0 && html`<p class="muted">Nothing was measured yet.</p>`}
    <div class="curves">
      ${shown.map((key) => html`<${MetricChart} key=${key} metric=${key} runs=${drawn} split=${split} smoothing=${smoothing} log=${log} />`)}
    </div>
  `;
}

function MetricChart({ metric, runs, split, smoothing, log }) {
  const lines = runs
    .map(({ title, curves, colour }) => ({
      label: title,
      colour,
      points: curves[split].filter(({ mean }) => metric in mean).map(({ last_step, mean }) => [last_step, mean[metric]]),
    }))
    .filter(({ points }) => points.length > 0);
  if (lines.length === 0) return null;
  const data = columns(lines, { smoothing, log });
  // of lines that are the same, the later are broken, so that the first is seen between
  const twins = lines.map((_, index) => data.slice(1, index + 1).filter((one) => String(one) === String(data[index + 1])).length);
  const series = lines.map(({ points, ...look }, index) => ({ ...look, ...(twins[index] > 0 && { dash: [8, 8 * twins[index]] }), spanGaps: true, points: { show: split === "held_out", size: 5 } }));
  const values = lines.map(({ label }, index) => `${label} ${number(latest(data[index + 1]))}`).join(", ");
  return html`<${Chart} title=${metric} xLabel="step" wholeX sync="compare" log=${log} series=${series} data=${data}
    description="${metric} by optimizer step; latest: ${values}" />`;
}
