// Evaluations: the list, and the form that makes one.

import { useLocation } from "preact-iso/router";
import { More, useList } from "../components/more.js";
import { Empty, Loading, ProblemNote } from "../components/notes.js";
import { useWho } from "../components/who.js";
import { Moment, State, count } from "../format.js";
import { useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { NewEvaluation } from "./evaluations/new.js";

await stylesheet("./evaluations.css", import.meta.url);

const REFRESH_EVERY_S = 5;

export default function Evaluations() {
  useTitle("Evaluations");
  const { query } = useLocation();
  const who = useWho();
  const filter = query.job ? `&job_id=${encodeURIComponent(query.job)}` : "";
  const { rows, problem, loading, rest } = useList(`/v1/evaluations?limit=50${filter}`, { every: REFRESH_EVERY_S });
  if ("new" in query) return html`<${NewEvaluation} job=${query.job} />`;
  return html`
    <div class="head">
      <h1>Evaluations</h1>
      ${who.may("member") && html`<div class="actions"><a class="button primary" href=${`/evaluations?new${query.job ? `&job=${query.job}` : ""}`}>New evaluation</a></div>`}
    </div>
    ${query.job && html`<p class="muted">Those about the model of <a href="/jobs/${query.job}">${query.job}</a>. <a href="/evaluations">All of them</a></p>`}
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${!rows && loading && html`<${Loading} rows=${5} />`}
    ${rows?.length === 0 && html`<${Empty} title="There is no evaluation yet"><p>An evaluation has models answer the same prompts, and people or a model judge the answers.</p><//>`}
    ${rows?.length > 0 && html`<${List} rows=${rows} />`}
    <${More} rest=${rest} />
  `;
}

const List = ({ rows }) => html`
  <section class="card flush evaluations">
    <div class="table-box" tabindex="0" role="region" aria-label="Evaluations">
      <table>
        <thead><tr><th>Evaluation</th><th>State</th><th>Models</th><th>Judges</th><th class="number">Prompts</th><th>Made</th></tr></thead>
        <tbody>
          ${rows.map(
            (one) => html`
              <tr key=${one.id}>
                <td><a href="/evaluations/${one.id}">${one.name ?? one.id}</a></td>
                <td><${State} state=${one.state} /></td>
                <td>${one.models.join(", ")}</td>
                <td>${one.judges.join(", ")}</td>
                <td class="number">${count(one.num_items, "prompts").split(" ")[0]}</td>
                <td><${Moment} at=${one.created_at} /></td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  </section>
`;
