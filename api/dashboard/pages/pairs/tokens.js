// An answer's tokens, each on the colour of how training changed its log-prob.

import { useRef, useState } from "preact/hooks";
import { html } from "../../ui.js";

const STEPS = 4; // shades on each side of no change: heat-u1 ... heat-u4, heat-d1 ... heat-d4 of pairs.css
const LEAST_SCALE = 0.05; // what is less than this everywhere is not blown up to look like much

/** The change that gets the deepest shade: the 98th percentile of a pair's, in both directions. */
export function scaleOf(...answers) {
  const changes = answers.flat().flatMap(({ change }) => (change === null ? [] : [Math.abs(change)]));
  changes.sort((a, b) => a - b);
  return Math.max(LEAST_SCALE, changes[Math.floor(0.98 * (changes.length - 1))] ?? 0);
}

export const signed = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`);
const logp = (value) => (value === null ? "–" : value.toFixed(2).replace("-", "−"));

const shade = (change, scale) => {
  if (change === null) return "heat-none";
  const depth = Math.min(STEPS, Math.round((STEPS * Math.abs(change)) / scale));
  return depth === 0 ? "heat-0" : `heat-${change > 0 ? "u" : "d"}${depth}`;
};

/** As it is shown: a line break is seen, and a token without text of its own can be pointed at. */
const visible = (text) => (text === "" ? "▯" : text.replaceAll("\n", "⏎\n"));
const spoken = (text) => (text === "" ? "(goes on in the next token)" : JSON.stringify(text));
const told = ({ text, before, after, change }) =>
  change === null
    ? `${spoken(text)}: does not count in the loss`
    : `${spoken(text)}: log-prob ${logp(before)} before, ${logp(after)} after, ${signed(change)}`;

export function Tokens({ name, tokens, scale }) {
  const [at, setAt] = useState(null);
  const box = useRef(null);
  const last = tokens.length - 1;
  const onKey = (event) => {
    const to = { ArrowRight: (at ?? -1) + 1, ArrowLeft: (at ?? 1) - 1, Home: 0, End: last }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(last, to));
    setAt(next);
    box.current.children[next].scrollIntoView({ block: "nearest" });
  };
  const point = ({ target }) => {
    const index = [...box.current.children].indexOf(target);
    if (index >= 0) setAt(index);
  };
  return html`
    <p
      class="tokens"
      ref=${box}
      tabindex="0"
      role="group"
      aria-label="Tokens of the ${name} answer; arrow keys go from one to the next"
      onKeyDown=${onKey}
      onPointerOver=${point}
      onClick=${point}
      onFocus=${() => at === null && setAt(0)}
    >
      ${tokens.map(
        (token, index) =>
          html`<span key=${index} class="${shade(token.change, scale)} ${index === at ? "at" : ""}">${visible(token.text)}</span>`,
      )}
    </p>
    <p class="token-told number" aria-live="polite">
      ${at === null ? "Point at a token, or use the arrow keys." : `Token ${at + 1} of ${tokens.length}, ${told(tokens[at])}`}
    </p>
    <details>
      <summary>All values as a table</summary>
      <div class="table-box token-table" tabindex="0" role="region" aria-label="Values of the ${name} answer's tokens">
        <table>
          <thead>
            <tr><th>token</th><th class="number">before</th><th class="number">after</th><th class="number">change</th></tr>
          </thead>
          <tbody>
            ${tokens.map(
              ({ text, before, after, change }, index) => html`
                <tr key=${index}>
                  <td><code>${visible(text)}</code></td>
                  <td class="number">${logp(before)}</td>
                  <td class="number">${logp(after)}</td>
                  <td class="number">${signed(change)}</td>
                </tr>
              `,
            )}
          </tbody>
        </table>
      </div>
    </details>
  `;
}

export const Legend = ({ scale }) => html`
  <p class="heat-legend">
    <span>less likely ${signed(-scale)}</span>
    <span class="heat-bar" aria-hidden="true">
      ${["d4", "d3", "d2", "d1", "0", "u1", "u2", "u3", "u4"].map((one) => html`<span key=${one} class="heat-${one}"></span>`)}
    </span>
    <span>${signed(scale)} likelier</span>
  </p>
`;
