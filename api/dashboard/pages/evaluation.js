// One evaluation: how far it is, and what it shows.

import { useLocation } from "preact-iso/router";
import { useEffect, useState } from "preact/hooks";
import { json, send } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { Loading, ProblemNote } from "../components/notes.js";
import { useWho } from "../components/who.js";
import { Moment, State, count } from "../format.js";
import { useAction, useAnswer, useChange, useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { Items } from "./evaluations/items.js";
import { Judges } from "./evaluations/judges.js";

await stylesheet("./evaluations.css", import.meta.url);

const REFRESH_EVERY_S = 2;
const ENDED = new Set(["completed", "failed", "cancelled"]);

export default function Evaluation({ id }) {
  const path = `/v1/evaluations/${encodeURIComponent(id)}`;
  const [ended, setEnded] = useState(false);
  const { data: evaluation, problem, refresh } = useAnswer(path, { every: ended ? 0 : REFRESH_EVERY_S });
  useEffect(() => setEnded(ENDED.has(evaluation?.state)), [evaluation?.state]);
  useTitle(evaluation?.name ?? "Evaluation");
  const back = html`<p class="back"><a href="/evaluations">← All evaluations</a></p>`;
  const heading = html`${back}<h1 class="visually-hidden">Evaluation</h1>`;
  if (problem && !evaluation) return html`${heading}<${ProblemNote} problem=${problem} />`;
  if (!evaluation) return html`${heading}<${Loading} rows=${6} />`;
  return html`
    ${back}
    <div class="evaluation">
      <div class="head">
        <h1>${evaluation.name ?? evaluation.id}</h1>
        <${State} state=${evaluation.state} />
        <${Actions} path=${path} evaluation=${evaluation} onDone=${refresh} />
      </div>
      ${evaluation.error && html`<p class="note bad" role="alert"><strong>${evaluation.error.code === "waiting" ? "The evaluation waits." : "The evaluation failed."}</strong> ${evaluation.error.message} <code>${evaluation.error.code}</code></p>`}
      <${Facts} evaluation=${evaluation} />
      <${Results} path=${path} evaluation=${evaluation} />
    </div>
  `;
}

function Facts({ evaluation }) {
  const { progress, job_id: job } = evaluation;
  const parts = [
    ["Answers", progress.answers, progress.answers_total],
    ["Verdicts", progress.verdicts, progress.verdicts_total],
    ["Scores", progress.scores, progress.scores_total],
  ].filter(([, , total]) => total > 0);
  return html`
    <dl class="facts card">
      <div><dt>Models</dt><dd>${evaluation.models.join(", ")}</dd></div>
      <div><dt>Judges</dt><dd>${evaluation.judges.join(", ")}</dd></div>
      ${parts.map(([name, done, total]) => html`<div key=${name}><dt>${name}</dt><dd>${done.toLocaleString("en")} of ${total.toLocaleString("en")}</dd></div>`)}
      <div><dt>Votes of people</dt><dd>${progress.votes.toLocaleString("en")}</dd></div>
      <div><dt>Made</dt><dd><${Moment} at=${evaluation.created_at} /></dd></div>
      ${job && html`<div><dt>About</dt><dd><a href="/jobs/${job}">${job}</a></dd></div>`}
    </dl>
  `;
}

function Actions({ path, evaluation, onDone }) {
  const who = useWho();
  const { route } = useLocation();
  const [act, busy, problem, forget] = useAction();
  const [exported, setExported] = useState(null);
  const [deleting, setDeleting] = useState(false);
  const { state, spec } = evaluation;
  const people = spec.judges.some(({ type }) => type === "human");
  const post = (what) => act(() => json(`${path}/${what}`, { method: "POST" })).then(onDone);
  const remove = () => act(() => send(path, { method: "DELETE" })).then((done) => done && route("/evaluations"));
  const pairs = () => act(() => json(`${path}/pairs`, { method: "POST", body: {} })).then((made) => made && setExported(made));
  return html`
    <div class="actions">
      ${people && !ENDED.has(state) && html`<a class="button primary" href="/side-by-side?evaluation=${evaluation.id}">Vote blind</a>`}
      <a class="button" href=${`${path}/report`} target="_blank">Report</a>
      ${who.may("member") &&
      html`
        ${state === "voting" && html`<button disabled=${busy} onClick=${() => post("close")}>Close</button>`}
        ${!ENDED.has(state) && html`<button disabled=${busy} onClick=${() => post("cancel")}>Cancel</button>`}
        <button disabled=${busy} onClick=${pairs}>Make preference pairs</button>
        ${ENDED.has(state) && html`<button class="danger" disabled=${busy} onClick=${() => setDeleting(true)}>Delete</button>`}
      `}
    </div>
    ${problem && !deleting && html`<${ProblemNote} problem=${problem} />`}
    ${deleting &&
    html`<${Dialog} title="Delete this evaluation?" action="Delete it" danger busy=${busy} problem=${problem}
        onClose=${() => (forget(), setDeleting(false))} onSubmit=${remove}>
      <p>It goes with its answers, verdicts and votes. This cannot be undone.</p>
    <//>`}
    ${exported && html`<p class="note" role="status">${count(exported.pairs, "pairs")} are in <code>${exported.file_id}</code>. <a href="/new?file=${exported.file_id}">New job on them</a></p>`}
  `;
}

function Results({ path, evaluation }) {
  const { progress, state } = evaluation;
  const { data, problem, refresh } = useAnswer(`${path}/results`);
  useChange(refresh, [progress.answers, progress.verdicts, progress.votes, progress.scores, state]);
  if (problem && !data) return html`<${ProblemNote} problem=${problem} />`;
  if (!data) return html`<${Loading} rows=${4} />`;
  return html`
    <${Judges} results=${data} />
    <${Models} results=${data} />
    <${Items} path=${path} evaluation=${evaluation} />
    <details class="card methods">
      <summary>How the numbers are computed</summary>
      <dl>${Object.entries(data.methods).map(([name, method]) => html`<dt>${name.replaceAll("_", " ")}</dt><dd>${method}</dd>`)}</dl>
      ${Object.entries(evaluation.judge_prompts).map(
        ([judge, text]) => html`<h3>What ${judge} is told (${evaluation.judge_prompt_versions[judge]})</h3><p class="prompt">${text}</p>`,
      )}
    </details>
  `;
}

const Models = ({ results }) => html`
  <section class="card flush" aria-label="Answers">
    <div class="table-box" tabindex="0" role="region" aria-label="Table of answers">
      <table>
        <thead><tr><th>Model</th><th class="number">Answers</th><th class="number">Failed</th><th class="number">Cut off</th><th class="number">Tokens each</th><th class="number">Characters each</th></tr></thead>
        <tbody>
          ${results.models.map(
            (one) => html`
              <tr key=${one.model}>
                <td>${one.model}</td><td class="number">${one.answered}</td><td class="number">${one.failed}</td><td class="number">${one.cut_off}</td>
                <td class="number">${one.mean_tokens?.toFixed(1) ?? "–"}</td><td class="number">${one.mean_characters?.toFixed(0) ?? "–"}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  </section>
`;
