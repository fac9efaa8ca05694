// What the job was asked to do: the main choices, and the whole request as JSON.

import { count, lossText } from "../../format.js";
import { html } from "../../ui.js";

export function SpecSummary({ spec }) {
  const { training } = spec;
  const { method } = training;
  const rows = [
    ["Model", html`<${Source} model=${spec.model} />`],
    spec.reference && ["Reference", html`<${Source} model=${spec.reference} />`],
    ["Data", html`<code>${spec.data.train}</code>`],
    ["Loss", lossText(spec.losses)],
    ["Method", method.type === "lora" ? `LoRA, rank ${method.rank}` : "full fine-tuning"],
    ["Learning rate", `${training.learning_rate ?? "default"}, ${training.schedule}`],
    ["Batch size", `${training.batch_size} pairs`],
    ["Length", training.max_steps ? `at most ${training.max_steps} steps` : count(training.epochs, "epochs")],
  ].filter(Boolean);
  return html`
    <dl class="facts">
      ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
    <details><summary>The whole request</summary><pre>${JSON.stringify(spec, null, 2)}</pre></details>
  `;
}

function Source({ model }) {
  const job = model.source.match(/^job:([\w-]+)$/)?.[1];
  const name = html`<code>${model.source}</code>`;
  const fresh = model.weights === "random" ? " (from scratch)" : "";
  return job ? html`<a href="/jobs/${job}">${name}</a>${fresh}` : html`${name}${fresh}`;
}
