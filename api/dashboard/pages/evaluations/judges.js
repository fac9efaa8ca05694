// What each judge says of each pair of models, with how sure that is.

import { html } from "../../ui.js";
import { number } from "../../format.js";

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const interval = (one) => (one ? `${percent(one.estimate)} [${percent(one.low)}, ${percent(one.high)}]` : "–");
const DECISIONS = { better: "better", worse: "worse" };

export const Judges = ({ results }) => html`
  ${results.judges.map((judge) => html`<${Judge} key=${judge.judge} judge=${judge} />`)}
  <${Beside} results=${results} />
`;

const Judge = ({ judge }) => html`
  <section class="card" aria-label=${judge.judge}>
    <h2>${judge.judge} <span class="muted">${judge.type === "human" ? "votes" : "a model, both orders"}</span></h2>
    <p class="muted">
      ${number(judge.num)} ${judge.type === "human" ? "votes" : "verdicts"}, ${number(judge.failed)} ${judge.type === "human" ? "skipped" : "that could not be had or read"}${judge.voters === null ? "" : `, ${judge.voters} voters`}.
      ${judge.position && html` First place wins ${interval(judge.position.first_rate)}${judge.position.biased ? html`: <strong>the judge goes by the place</strong>` : ""}.`}
      ${judge.position?.consistent && ` Same verdict in both orders: ${interval(judge.position.consistent)}.`}
    </p>
    <div class="table-box" tabindex="0" role="region" aria-label="Comparisons">
      <table>
        <thead><tr><th>Model</th><th>Against</th><th class="number">Won</th><th class="number">Lost</th><th class="number">Ties</th><th>Win rate, 95 %</th><th aria-label="Drawn"></th><th>Length-controlled</th><th>Enough votes?</th></tr></thead>
        <tbody>
          ${judge.pairs.map(
            (pair) => html`
              <tr key=${`${pair.model}/${pair.baseline}`}>
                <td>${pair.model}</td><td>${pair.baseline}</td>
                <td class="number">${pair.wins}</td><td class="number">${pair.losses}</td><td class="number">${pair.ties}</td>
                <td class="nowrap">${interval(pair.win_rate)}</td>
                <td>${pair.win_rate && html`<${Scale} rate=${pair.win_rate} />`}</td>
                <td class="nowrap">${interval(pair.length_controlled)}</td>
                <td class="nowrap"><${Decision} test=${pair.sequential} /></td>
              </tr>
              ${pair.categories.map(
                (one) => html`
                  <tr key=${`${pair.model}/${pair.baseline}/${one.category}`} class="category">
                    <td colspan="5">${one.category ?? "without a category"}, ${one.win_rate.num_clusters} prompts</td>
                    <td class="nowrap">${interval(one.win_rate)}</td><td><${Scale} rate=${one.win_rate} /></td><td></td><td></td>
                  </tr>
                `,
              )}
            `,
          )}
        </tbody>
      </table>
    </div>
    ${judge.ranking && html`<${Ranking} ranking=${judge.ranking} />`}
  </section>
`;

const Decision = ({ test }) =>
  test.decision
    ? html`<strong>${DECISIONS[test.decision]}</strong>, p ≤ ${test.p_bound.toPrecision(2)}, after ${test.decided_at}`
    : html`not yet, p ≤ ${test.p_bound.toPrecision(2)} after ${test.num}`;

const Scale = ({ rate }) => html`
  <div class="rate-scale" role="img" aria-label="${percent(rate.estimate)}, between ${percent(rate.low)} and ${percent(rate.high)}">
    <span class="interval" style=${{ left: `${100 * rate.low}%`, width: `${100 * (rate.high - rate.low)}%` }}></span>
    <span class="half"></span>
    <span class="point" style=${{ left: `${100 * rate.estimate}%` }}></span>
  </div>
`;

const Ranking = ({ ranking }) => html`
  <h3>Ranking</h3>
  <div class="table-box" tabindex="0" role="region" aria-label="Ranking">
    <table>
      <thead><tr><th class="number">Rank</th><th>Model</th><th class="number">Rating</th><th class="number">95 %</th><th class="number">Comparisons</th></tr></thead>
      <tbody>
        ${ranking.map(
          (one) => html`
            <tr key=${one.model}>
              <td class="number">${one.rank}</td><td>${one.model}</td><td class="number">${one.rating.toFixed(0)}</td>
              <td class="number">${one.low.toFixed(0)} to ${one.high.toFixed(0)}</td><td class="number">${one.num}</td>
            </tr>
          `,
        )}
      </tbody>
    </table>
  </div>
`;

/** What is not of one judge: agreement, implicit rewards, metrics. */
function Beside({ results }) {
  const { agreement, kappas, rewards, metrics } = results;
  if (!agreement && rewards.length === 0 && metrics.length === 0) return null;
  return html`
    <section class="card" aria-label="Agreement and measurements">
      <dl class="facts">
        ${agreement && html`<div><dt>Agreement of ${agreement.raters} raters (Krippendorff's alpha)</dt><dd>${agreement.estimate.toFixed(2)} [${agreement.low.toFixed(2)}, ${agreement.high.toFixed(2)}]</dd></div>`}
        ${kappas.map((one) => html`<div key=${`${one.first}/${one.second}`}><dt>${one.first} and ${one.second} (Cohen's kappa)</dt><dd>${one.kappa.toFixed(2)}, ${one.num} pairs</dd></div>`)}
        ${rewards.map((one) => html`<div key=${one.judge}><dt>Implicit-reward accuracy, held-out pairs</dt><dd>${interval(one.accuracy)}</dd></div>`)}
        ${metrics.map((one) => html`<div key=${`${one.judge}/${one.model}`}><dt>${one.metric} of ${one.model}</dt><dd>${number(one.mean)}${one.low === null ? "" : ` [${number(one.low)}, ${number(one.high)}]`}${one.failed ? `, ${one.failed} failed` : ""}</dd></div>`)}
      </dl>
    </section>
  `;
}
