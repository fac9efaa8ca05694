// The list of pairs in the order that was chosen.

import { useEffect, useRef } from "preact/hooks";
import { Empty, Loading } from "../../components/notes.js";
import { number } from "../../format.js";
import { html } from "../../ui.js";

/** What the API is asked for each order of the list. */
export const SORTS = new Map([
  ["most_wrong", { name: "most wrong first", params: { sort: "most_wrong" } }],
  ["margin_after", { name: "lowest margin after", params: { sort: "margin_after" } }],
  ["margin_after_high", { name: "highest margin after", params: { sort: "margin_after", order: "desc" } }],
  ["margin_before", { name: "lowest margin before", params: { sort: "margin_before" } }],
  ["margin_change", { name: "fell most", params: { sort: "margin_change" } }],
  ["margin_change_high", { name: "rose most", params: { sort: "margin_change", order: "desc" } }],
  ["row", { name: "row in the file", params: { sort: "row" } }],
]);

const FLAGS = { swap: "answers swapped", drop: "to be dropped" };

export function PairList({ list, sort, onSort, flagged, onFlagged, selected, onSelect }) {
  const box = useRef(null);
  useEffect(() => {
    // the keyboard moves within the list: the focus goes along, but never from elsewhere to here
    const current = box.current?.querySelector("[aria-current]");
    if (box.current?.contains(document.activeElement)) current?.focus();
  }, [selected]);
  const onKey = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const next = by && list.pairs[list.pairs.findIndex((pair) => pair.row === selected) + by];
    if (!next) return;
    event.preventDefault();
    onSelect(next.row);
  };
  return html`
    <section class="card flush" aria-label="Pairs">
      <div class="bar pairs-bar">
        <label>Order
          <select value=${sort} onChange=${(event) => onSort(event.target.value)}>
            ${[...SORTS].map(([key, { name }]) => html`<option key=${key} value=${key}>${name}</option>`)}
          </select>
        </label>
        <label class="inline">
          <input type="checkbox" checked=${flagged} onChange=${(event) => onFlagged(event.target.checked)} />
          only flagged (${number(list.flags.swap + list.flags.drop)})
        </label>
      </div>
      ${!list.pairs && !list.problem && html`<${Loading} rows=${8} label="Loading the pairs…" />`}
      ${list.pairs?.length === 0 &&
      html`<${Empty} title=${flagged ? "No pair is flagged" : "There are no pairs"}>
        ${flagged && html`<p>Open a pair and press <kbd>s</kbd> where its answers are swapped, <kbd>d</kbd> to drop it.</p>`}
      <//>`}
      ${list.pairs?.length > 0 &&
      html`
        <ul class="pair-list" ref=${box} onKeyDown=${onKey}>
          ${list.pairs.map(
            (pair) => html`
              <li key=${pair.row}>
                <button
                  aria-current=${pair.row === selected ? "true" : undefined}
                  tabindex=${pair.row === selected ? 0 : -1}
                  onClick=${() => onSelect(pair.row)}
                >
                  <span class="pair-row">
                    row ${pair.row} ${pair.flag && html`<span class="state ${pair.flag.action}">${FLAGS[pair.flag.action]}</span>`}
                  </span>
                  <span class="pair-margin number">
                    ${number(pair.margin_before)} → ${number(pair.margin_after)}
                  </span>
                  <span class="pair-text">${pair.prompt_end}</span>
                </button>
              </li>
            `,
          )}
        </ul>
        ${list.cursor && html`<p class="pairs-more"><button onClick=${list.more}>More pairs</button></p>`}
      `}
    </section>
  `;
}
