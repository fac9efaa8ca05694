// What would become of the job if it were submitted now: checks, cost and time.

import { duration, Moment, number } from "../../format.js";
import { html } from "../../ui.js";

const NAMES = { model: "Model", data: "Data", adapter: "Adapter", pools: "Pools", memory: "Memory", quota: "Quota", serving: "Serving" };

/** report: DryRunView of the API. */
export function Admission({ report, busy }) {
  const { checks, cost, eta, waiting } = report;
  const facts = [
    ["GPUs held", number(cost.gpus)],
    ["Run time", between(cost.run_s_low, cost.run_s_high, duration)],
    ["GPU-hours", between(cost.gpu_hours_low, cost.gpu_hours_high, number)],
    ["Starts", moments(eta?.start_low, eta?.start_high)],
    ["Ends", moments(eta?.finish_low, eta?.finish_high)],
  ];
  return html`
    <div class="admission" aria-busy=${busy}>
      <p class="verdict ${report.ok ? "good" : "bad"}" role="status">
        ${report.ok ? "The job would be accepted." : "The job would be refused."}
      </p>
      <ul class="checks">
        ${checks.map(
          (check) => html`
            <li key=${check.name} class=${check.ok ? "passed" : "failed"}>
              <span class="mark" aria-hidden="true">${check.ok ? "✓" : "✗"}</span>
              <span><strong>${NAMES[check.name] ?? check.name}</strong>
                <span class="visually-hidden">${check.ok ? "passed" : "failed"}:</span> ${check.message}</span>
            </li>
          `,
        )}
      </ul>
      <dl class="cost">
        ${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
      </dl>
      ${waiting && html`<p class="muted">${waiting.message}</p>`}
    </div>
  `;
}

const UNKNOWN = html`<span class="muted" title="No job like it has succeeded yet">not known yet</span>`;

function between(low, high, format) {
  if (low === null || low === undefined) return UNKNOWN;
  return format(low) === format(high) ? format(low) : `${format(low)} to ${format(high)}`;
}

const moments = (low, high) =>
  low ? html`<${Moment} at=${low} />${high && high !== low && html` to <${Moment} at=${high} />`}` : UNKNOWN;
