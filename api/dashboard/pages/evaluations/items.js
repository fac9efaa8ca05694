// The prompts with answers and verdicts, a page at a time. Opened by hand: it tells whose answer is whose.

import { useState } from "preact/hooks";
import { json } from "../../api.js";
import { ProblemNote } from "../../components/notes.js";
import { useAction } from "../../hooks.js";
import { html } from "../../ui.js";

const PAGE = 10;

export function Items({ path, evaluation }) {
  const [items, setItems] = useState({ rows: [], after: -1 });
  const [act, busy, problem] = useAction();
  const more = () =>
    act(() => json(`${path}/items?limit=${PAGE}&after=${items.after}`)).then(
      (page) => page && setItems(({ rows }) => ({ rows: rows.concat(page.data), after: page.next_after })),
    );
  const opened = (event) => event.target.open && items.rows.length === 0 && more();
  return html`
    <details class="card" onToggle=${opened}>
      <summary>Prompts and answers${["running", "voting"].includes(evaluation.state) && evaluation.spec.judges.some(({ type }) => type === "human") ? ", which tells whose answer is whose" : ""}</summary>
      ${items.rows.map((item) => html`<${Item} key=${item.position} ...${{ item, evaluation, path }} />`)}
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      ${items.after !== null && items.rows.length > 0 && html`<button disabled=${busy} onClick=${more}>More</button>`}
    </details>
  `;
}

const shown = (prompt) => (typeof prompt === "string" ? prompt : prompt.map(({ role, content }) => `[${role}]\n${content}`).join("\n\n"));

const Item = ({ item, evaluation, path }) => html`
  <article aria-label="Prompt ${item.position}">
    <h3>${item.position}${item.category ? ` (${item.category})` : ""}</h3>
    <p class="prompt" dir="auto">${shown(item.prompt)}</p>
    <div class="answers">
      ${item.answers.map(
        (answer) => html`
          <div key=${answer.model} class="note">
            <strong>${evaluation.models[answer.model]}</strong>
            <p dir="auto">${answer.text ?? `No answer: ${answer.error}`}</p>
            ${answer.text !== null && html`<${Replay} ...${{ path, item, answer }} />`}
          </div>
        `,
      )}
    </div>
    ${item.verdicts.map(
      (verdict) => html`
        <details key=${`${verdict.judge}/${verdict.model}/${verdict.baseline}/${verdict.model_first}`}>
          <summary>${evaluation.judges[verdict.judge]}: ${said(verdict, evaluation)} (${evaluation.models[verdict.model_first ? verdict.model : verdict.baseline]} shown first)</summary>
          <p class="prompt">${verdict.reply ?? verdict.failure}</p>
        </details>
      `,
    )}
  </article>
`;

function said({ outcome, model, baseline, failure }, { models }) {
  if (outcome === null) return failure;
  if (outcome === 0.5) return "tie";
  return `${models[outcome === 1 ? model : baseline]} is better`;
}

function Replay({ path, item, answer }) {
  const [found, setFound] = useState(null);
  const [act, busy, problem] = useAction();
  const ask = () =>
    act(() => json(`${path}/replay`, { method: "POST", body: { position: item.position, model: answer.model } })).then(
      (again) => again && setFound(again),
    );
  return html`
    <button class="quiet" disabled=${busy} onClick=${ask}>Replay</button>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${found && html`<p role="status">${found.same ? "The same text again." : `Another text from character ${found.first_difference} on: ${found.now}`} ${found.changed.join("; ")}</p>`}
  `;
}
