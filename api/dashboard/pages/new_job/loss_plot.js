// Loss and gradient against the margin, of the terms as the form has them: the API samples them.

import { useEffect, useState } from "preact/hooks";
import { json, Problem } from "../../api.js";
import { Chart } from "../../components/chart.js";
import { html } from "../../ui.js";

const SETTLED_MS = 150;
const MARGINS = Array.from({ length: 161 }, (_, at) => (at - 80) / 2);
const SERIES = [
  { label: "loss", width: 2 },
  { label: "gradient", dash: [6, 4] },
];

/**
 * {curves, of, problem, stale}: the API's curves of the terms, once they have settled. While they are asked for, or are
 * not valid, the last ones stay: `of` are the terms that they are of, and `stale` says that these are others.
 */
export function useCurves(terms) {
  const asked = JSON.stringify(terms);
  const [found, setFound] = useState({ curves: null, problem: null, asked: "[]" });
  useEffect(() => {
    const abort = new AbortController();
    const ask = async () => {
      const body = { losses: JSON.parse(asked), margins: MARGINS };
      try {
        const curves = await json("/v1/losses/curves", { method: "POST", body, signal: abort.signal });
        setFound({ curves, problem: null, asked });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        if (!(problem instanceof Problem)) throw problem;
        setFound((before) => ({ ...before, problem }));
      }
    };
    const timer = setTimeout(ask, SETTLED_MS);
    return () => (clearTimeout(timer), abort.abort());
  }, [asked]);
  return { ...found, of: JSON.parse(found.asked), stale: found.asked !== asked };
}

/** curve: of `curves`, or undefined while there is none for this plot. */
export function LossPlot({ title, curve, margins, stale, problem }) {
  if (!curve) return html`<p class="muted plot-waits">${problem ? problem.detail : "The plot is drawn…"}</p>`;
  return html`
    <div class=${stale ? "stale" : ""} aria-busy=${stale && !problem}>
      <${Chart} title="Loss and gradient against the margin" xLabel="margin" series=${SERIES} height=${190}
        data=${dataOf(curve, margins)} description="${title}: loss and gradient against the log-ratio margin, with these options" />
      ${stale && problem && html`<p class="help">Drawn with the options before the last change, which is not valid yet.</p>`}
    </div>
  `;
}

const drawn = new WeakMap();

/** uPlot's columns; the same ones for the same curve, so that nothing is drawn anew for nothing. */
function dataOf(curve, margins) {
  if (!drawn.has(curve)) drawn.set(curve, [margins, curve.loss, curve.gradient]);
  return drawn.get(curve);
}
