// Health alarms of a job with the figures they rest on.

import { Moment, number } from "../../format.js";
import { html } from "../../ui.js";

export function Alarms({ events }) {
  const alarms = events.filter(({ type }) => type === "health.alarm");
  return alarms.map(({ number: key, message, data, created_at }) => {
    const evidence = Object.entries(data.evidence ?? {});
    return html`
      <section key=${key} class="note warn alarm" aria-label="Health alarm">
        <p><strong>${data.name ?? "Alarm"}</strong>${data.step != null && ` at step ${data.step}`}, <${Moment} at=${created_at} /></p>
        <p>${message}</p>
        ${evidence.length > 0 &&
        html`<dl class="evidence">
          ${evidence.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="number">${typeof value === "number" ? number(value) : String(value)}</dd></div>`)}
        </dl>`}
        ${data.advice && html`<p><strong>What to do:</strong> ${data.advice}</p>`}
      </section>
    `;
  });
}
