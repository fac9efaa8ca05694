// What the votes say so far, with how sure that is.

import { ProblemNote } from "../../components/notes.js";
import { count } from "../../format.js";
import { useAnswer, useChange } from "../../hooks.js";
import { html } from "../../ui.js";

const DECISIONS = { better: "better", worse: "worse" };

/** path: of the evaluation. votes, state: computed anew when they change. */
export function WinRates({ path, votes, state }) {
  const { data, problem, refresh } = useAnswer(`${path}/results`);
  useChange(refresh, [votes, state]);
  if (problem && !data) return html`<${ProblemNote} problem=${problem} />`;
  const people = data?.judges.find(({ type }) => type === "human");
  const voted = (people?.pairs ?? []).filter(({ win_rate }) => win_rate !== null);
  if (voted.length === 0) return null;
  return html`
    <section class="card win-rates" aria-label="Win rates">
      <h2>So far: ${count(people.num, "votes")}</h2>
      ${voted.map((pair) => html`<${WinRate} key=${`${pair.model} ${pair.baseline}`} pair=${pair} />`)}
      <p class="help">${data.methods.sequential}. You may look as often as you like: interval and test hold at every vote.</p>
    </section>
  `;
}

const percent = (share) => `${(100 * share).toFixed(0)} %`;

function WinRate({ pair }) {
  const { model, baseline, win_rate: rate, wins, losses, ties, sequential } = pair;
  const { low, high } = sequential;
  const decided = sequential.decision && `${model} is ${DECISIONS[sequential.decision]} (p at most ${sequential.p_bound.toPrecision(2)})`;
  return html`
    <div class="win-rate">
      <p><strong>${model}</strong> against <strong>${baseline}</strong>: <span class="rate">${percent(rate.estimate)}</span>${" "}
        <span class="muted">(95 % interval ${percent(low)} to ${percent(high)})</span></p>
      <div class="scale" role="img" aria-label="Win rate ${percent(rate.estimate)}, between ${percent(low)} and ${percent(high)}">
        <span class="interval" style=${{ left: `${100 * low}%`, width: `${100 * (high - low)}%` }}></span>
        <span class="half"></span>
        <span class="point" style=${{ left: `${100 * rate.estimate}%` }}></span>
      </div>
      <p class="muted">${count(wins, "wins")}, ${losses} lost, ${count(ties, "ties")}. ${decided ? html`<strong class="decided">${decided}.</strong>` : "Not enough votes to tell yet."}</p>
    </div>
  `;
}
