// A data report as a person reads it, and rows as the model will see them.

import { count, number } from "../format.js";
import { html, stylesheet } from "../ui.js";
import { Prose } from "./prose.js";

await stylesheet("./data_report.css", import.meta.url);

/** report: a DataReport of the API. complete: false where it is of the start of the file alone. */
export function DataReport({ report, complete = true }) {
  const facts = [
    ["Rows used", number(report.used)],
    ["Left out", number(report.bad)],
    ["Truncated", `${number(report.truncated)} (${percent(report.truncated_share)})`],
    [`Longest, in ${report.unit}`, number(report.longest)],
    ["Exact duplicates", number(report.duplicates.count)],
    ["Contradicted", number(report.contradictions.count)],
  ];
  return html`
    <div class="data-report">
      ${!complete &&
      html`<p class="note">The first ${count(report.rows, "rows")} of the file; the job reads all of it.</p>`}
      <dl class="facts">
        ${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
      </dl>
      ${report.read_as && html`<p class="muted">Read as: ${report.read_as}.</p>`}
      ${report.cut_off && html`<p class="note bad"><strong>The file cannot be read to its end.</strong> ${report.cut_off}</p>`}
      ${report.warnings.length > 0 &&
      html`
        <ul class="warnings">
          ${report.warnings.map(
            ({ code, message }) => html`<li key=${code} class="note warn"><strong>${TITLES[code] ?? code}.</strong> <${Prose} text=${message} /></li>`,
          )}
        </ul>
      `}
      <${LeftOut} report=${report} />
      <div class="histograms">
        <${Histogram} title="Prompts" lengths=${report.prompt_lengths} unit=${report.unit} />
        <${Histogram} title="Answers" lengths=${report.answer_lengths} unit=${report.unit} />
      </div>
    </div>
  `;
}

const TITLES = {
  rows_left_out: "Rows are left out",
  contradictions: "Rows contradict each other",
  special_tokens_in_content: "Special tokens in texts",
  held_out_overlap: "Held-out prompts are trained on",
  duplicates: "Duplicates",
  rows_truncated: "Rows are truncated",
  length_predicts_label: "Length predicts the preference",
  columns_ignored: "Columns are ignored",
  continuation_inexact: "Inexact boundary",
};

const percent = (share) => `${(100 * share).toLocaleString("en", { maximumFractionDigits: 1 })} %`;

const LeftOut = ({ report }) =>
  report.reasons.length > 0 &&
  html`
    <div class="table-box" tabindex="0" role="region" aria-label="Rows left out">
      <table>
        <caption>Rows left out</caption>
        <thead><tr><th>Reason</th><th class="number">Rows</th><th>Which</th></tr></thead>
        <tbody>
          ${report.reasons.map(
            ({ code, message, count: rows, rows: first }) => html`
              <tr key=${code}>
                <td>${message} <code>${code}</code></td>
                <td class="number">${number(rows)}</td>
                <td>${first.slice(0, 8).join(", ")}${rows > 8 ? ", …" : ""}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;

/** Bars of a list, not of a canvas: they are read aloud, and there are few of them. */
function Histogram({ title, lengths, unit }) {
  if (lengths === null) return null;
  const most = Math.max(...lengths.bins.map((bin) => bin.count));
  return html`
    <figure class="histogram">
      <figcaption>${title} <span class="muted">in ${unit}: median ${number(lengths.median)}, 95 % up to ${number(lengths.p95)}, longest ${number(lengths.max)}</span></figcaption>
      <ol>
        ${lengths.bins.map(
          (bin) => html`
            <li key=${bin.up_to} title="up to ${number(bin.up_to)}: ${count(bin.count, "rows")}">
              <span class="up-to">≤ ${number(bin.up_to)}</span>
              <span class="track"><span class="fill" style=${{ width: `${(100 * bin.count) / most}%` }}></span></span>
              <span class="number">${number(bin.count)}</span>
            </li>
          `,
        )}
      </ol>
    </figure>
  `;
}

/** samples: SampleRows of the API. unit: of the report they come with. */
export const Samples = ({ samples, unit }) => html`
  <div class="samples">
    <p class="legend" aria-hidden="true">
      <span class="tokens"><span class="token prompt">prompt</span></span>
      <span class="tokens"><span class="token completion">completion, counts in the loss</span></span>
      <span class="tokens"><span class="token masked">masked, does not count</span></span>
    </p>
    ${samples.map(
      (sample, index) => html`
        <details key=${sample.row} class="sample" open=${index === 0}>
          <summary>Row ${sample.row}${sample.label === null ? "" : sample.label ? ", desirable" : ", undesirable"}${sample.weight === 1 ? "" : `, weight ${number(sample.weight)}`}${sample.margin === 0 ? "" : `, margin ${number(sample.margin)}`}</summary>
          <${Sequence} name="prompt" sequence=${sample.prompt} unit=${unit} fromEnd />
          ${sample.answers.map((answer) => html`<${Sequence} key=${answer.name} name=${answer.name} sequence=${answer} unit=${unit} />`)}
        </details>
      `,
    )}
  </div>
`;

function Sequence({ name, sequence, unit, fromEnd = false }) {
  const { tokens, length, cut } = sequence;
  const hidden = tokens[0]?.id === null ? 0 : length - tokens.length;
  return html`
    <section class="sequence">
      <h4>${name} <span class="muted">${number(length)} ${unit}${cut > 0 ? `, ${number(cut)} more were cut` : ""}</span></h4>
      <p class="tokens" dir="auto">
        ${fromEnd && hidden > 0 && html`<span class="muted">… ${number(hidden)} before </span>`}
        ${tokens.map(
          (token, index) => html`<span key=${index} class="token ${token.role}" title=${token.id === null ? null : `${token.id}, ${token.role}`}>${token.text}</span>`,
        )}
        ${!fromEnd && hidden > 0 && html`<span class="muted"> ${number(hidden)} more …</span>`}
      </p>
    </section>
  `;
}
