// Gates: what an evaluation must show before a model is promoted to a name. Admins make them.

import { useState } from "preact/hooks";
import { json, send } from "../../api.js";
import { Dialog } from "../../components/dialog.js";
import { ProblemNote } from "../../components/notes.js";
import { useWho } from "../../components/who.js";
import { Moment } from "../../format.js";
import { useAction, useAnswer } from "../../hooks.js";
import { html } from "../../ui.js";

const REFRESH_EVERY_S = 30;

// As service/evaluations/gate.py has them. `text`: how a rule that has one is told.
const NUMBERS = [
  { name: "min_win_rate", label: "Win rate, lower bound above", min: 0, max: 0.999, text: (value) => `win rate surely above ${value}` },
  { name: "min_votes", label: "Outcomes, at least", min: 1, max: 1_000_000, step: 1, text: (value) => `${value} outcomes` },
  { name: "min_prompts", label: "Prompts judged, at least", min: 1, max: 2000, step: 1, text: (value) => `${value} prompts` },
  { name: "min_agreement", label: "Agreement (Krippendorff's alpha), at least", min: -1, max: 1, text: (value) => `agreement of ${value}` },
  { name: "min_accuracy", label: "Implicit-reward accuracy, at least", min: 0, max: 1, text: (value) => `implicit-reward accuracy of ${value}` },
];
const CHECKS = [
  { name: "length_controlled", label: "The win rate is the length-controlled one", text: "length-controlled" },
  { name: "decided", label: "The sequential test has decided for the model", text: "decided by the sequential test" },
  { name: "no_position_bias", label: "No preference of the judge for a place", text: "no position bias" },
];
const TEXTS = [
  { name: "judge", label: "Judge that counts", placeholder: "every one", text: (value) => `by ${value}` },
  { name: "judge_prompt", label: "Version of the judge's prompt", placeholder: "any", text: (value) => `with prompt ${value}` },
  { name: "baseline", label: "Baseline", placeholder: "every model before it, or job:…:base", text: (value) => `against ${value}` },
];

/** "win rate surely above 0.5, 20 outcomes, by people" */
const told = (rule) =>
  [
    ...NUMBERS.filter(({ name }) => rule[name]).map(({ name, text }) => text(rule[name])),
    ...CHECKS.filter(({ name }) => rule[name]).map(({ text }) => text),
    ...TEXTS.filter(({ name }) => rule[name]).map(({ name, text }) => text(rule[name])),
  ].join(", ");

export function Gates() {
  const { may } = useWho();
  const { data, problem, refresh } = useAnswer("/v1/gates", { every: REFRESH_EVERY_S });
  const [open, setOpen] = useState(null); // a gate, or {} for a new one
  const [run, busy, failed] = useAction();
  const remove = async (name) => {
    await run(() => send(`/v1/gates/${encodeURIComponent(name)}`, { method: "DELETE" }));
    refresh();
  };
  const done = () => (setOpen(null), refresh());
  return html`
    <section class="card" aria-label="Gates">
      <div class="head">
        <h2>Gates</h2>
        ${may("admin") && html`<div class="actions"><button onClick=${() => setOpen({})}>New gate</button></div>`}
      </div>
      <p class="muted">A model is promoted to a name with a gate only if an evaluation shows what the gate asks for.</p>
      ${(problem ?? failed) && html`<${ProblemNote} problem=${problem ?? failed} />`}
      ${data?.data.length > 0 &&
      html`
        <div class="table-box" tabindex="0" role="region" aria-label="Table of gates"><table>
          <thead><tr><th>Promoted to</th><th>Must have</th><th class="number">Set</th><th><span class="visually-hidden">Change</span></th></tr></thead>
          <tbody>
            ${data.data.map(
              (gate) => html`
                <tr key=${gate.model_name}>
                  <td>${gate.model_name === "*" ? "any other name" : html`<code>${gate.model_name}</code>`}</td>
                  <td>${told(gate.rule)}</td>
                  <td class="number"><${Moment} at=${gate.updated_at} /></td>
                  <td class="number">
                    ${may("admin") &&
                    html`<div class="actions">
                      <button aria-label="Change the gate of ${gate.model_name}" onClick=${() => setOpen(gate)}>Change</button>
                      <button class="danger" disabled=${busy} aria-label="Remove the gate of ${gate.model_name}" onClick=${() => remove(gate.model_name)}>Remove</button>
                    </div>`}
                  </td>
                </tr>
              `,
            )}
          </tbody>
        </table></div>
      `}
      ${data?.data.length === 0 && html`<p>There is none: every model may be promoted.</p>`}
      ${open && html`<${GateDialog} gate=${open} onClose=${() => setOpen(null)} onDone=${done} />`}
    </section>
  `;
}

function GateDialog({ gate: { model_name: existing, rule = {} }, onClose, onDone }) {
  const [run, busy, problem] = useAction();
  const submit = async (form) => {
    const asked = {};
    for (const { name } of NUMBERS) if (form.get(name)) asked[name] = Number(form.get(name));
    for (const { name } of CHECKS) if (form.get(name)) asked[name] = true;
    for (const { name } of TEXTS) if (form.get(name).trim()) asked[name] = form.get(name).trim();
    const body = { model_name: existing ?? form.get("model_name").trim(), rule: asked };
    if (await run(() => json("/v1/gates", { method: "PUT", body }))) onDone();
  };
  return html`
    <${Dialog} title=${existing ? `The gate of ${existing}` : "New gate"} action="Set the gate" busy=${busy} problem=${problem} onClose=${onClose} onSubmit=${submit}>
      ${!existing && html`<label>Name that models are promoted to <input name="model_name" required maxlength="100" placeholder="* for all without their own" /></label>`}
      ${NUMBERS.map(
        ({ name, label, min, max, step = "any" }) =>
          html`<label key=${name}>${label} <input type="number" ...${{ name, min, max, step }} defaultValue=${rule[name] || ""} placeholder="not asked for" /></label>`,
      )}
      ${CHECKS.map(
        ({ name, label }) => html`<label key=${name} class="inline"><input type="checkbox" name=${name} defaultChecked=${rule[name]} />${label}</label>`,
      )}
      ${TEXTS.map(
        ({ name, label, placeholder }) =>
          html`<label key=${name}>${label} <input ...${{ name, placeholder }} maxlength="300" defaultValue=${rule[name] ?? ""} /></label>`,
      )}
    <//>
  `;
}
