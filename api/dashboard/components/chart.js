// uPlot as a component: themed, resized with its box, described for those who do not see it.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { number } from "../format.js";
import { html, stylesheet } from "../ui.js";
import { pressed } from "./chart_keys.js";
import { themes } from "./theme.js";

await Promise.all([
  stylesheet("../vendor/uplot-1.6.32/uPlot.min.css", import.meta.url),
  stylesheet("./chart.css", import.meta.url),
]);

const WHOLE = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].flatMap((ten) => [ten, 2 * ten, 5 * ten]);
export const NUM_COLOURS = 8; // --curve-0 and on in styles/tokens.css
export const curveColour = (index) => `--curve-${index % NUM_COLOURS}`;

/** What a canvas can draw with: the colour that a token stands for where `element` is. */
export function colourOf(element, token) {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  element.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/**
 * series: [{label, colour?: token, width?, dash?, show?, ...uPlot's own}], one for each column of `data` after the first.
 * data: uPlot's columns, x first; null where there is no value. wholeX: x counts something.
 * log: y is drawn on a logarithmic scale; what is not above 0 is left out. sync: charts with the same one share a cursor.
 * more: further options of uPlot, such as {hooks}; make a new object only to have the chart made anew.
 * onPlot: called with each uPlot that is made.
 */
export function Chart({ title, description, xLabel, series, data, height = 220, wholeX, log, sync, more, onPlot }) {
  const box = useRef(null);
  const plot = useRef(null);
  const zoomed = useRef(false);
  const shown = useRef(data);
  shown.current = data;
  const looks = JSON.stringify(series);

  useEffect(() => {
    const element = box.current;
    const make = () => {
      plot.current?.destroy();
      zoomed.current = false;
      const options = optionsOf(element, { series, xLabel, height, wholeX, log, sync });
      const hooks = { setSelect: [(made) => (zoomed.current = made.select.width > 0)], ...more?.hooks };
      plot.current = new uPlot({ ...options, ...more, hooks }, shown.current, element);
      plot.current.over.addEventListener("dblclick", () => (zoomed.current = false));
      onPlot?.(plot.current);
    };
    make();
    const resizing = new ResizeObserver(() => plot.current.setSize({ width: widthOf(element), height }));
    resizing.observe(element);
    themes.addEventListener("change", make);
    return () => {
      themes.removeEventListener("change", make);
      resizing.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [looks, xLabel, height, wholeX, log, sync, more]);

  useEffect(() => {
    if (plot.current.data === data) return;
    // a zoomed view stays where it is while values arrive; a double click leaves it
    plot.current.setData(data, !zoomed.current);
    if (zoomed.current) plot.current.redraw();
  }, [data]);

  const onKey = (event) => {
    const partly = pressed(plot.current, event);
    if (partly === null) return;
    zoomed.current = partly;
    event.preventDefault();
    event.stopPropagation();
  };
  return html`
    <figure class="chart-figure" tabindex="0" aria-label=${description ?? title} onKeyDown=${onKey}>
      ${title && html`<figcaption>${title}</figcaption>`}
      <div class="chart" ref=${box}></div>
    </figure>
  `;
}

const widthOf = (element) => Math.max(160, Math.floor(element.clientWidth));

function optionsOf(element, { series, xLabel, height, wholeX, log, sync }) {
  const axis = {
    stroke: colourOf(element, "--muted"),
    grid: { stroke: colourOf(element, "--line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
  };
  // the legend tells the value under the cursor, and without a cursor the latest
  const value = (plot, at, index, where) => number(where === null ? latest(plot.data[index]) : at);
  return {
    width: widthOf(element),
    height,
    scales: { x: { time: false }, y: log ? { distr: 3, log: 10 } : {} },
    cursor: { y: false, ...(sync && { sync: { key: sync } }) },
    axes: [
      { ...axis, size: 28, ...(wholeX && { incrs: WHOLE }) },
      { ...axis, size: 58, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : tickText(tick))) },
    ],
    series: [
      { label: xLabel ?? "x", value },
      ...series.map(({ colour, ...one }, index) => ({
        width: 1.5,
        value,
        points: { show: false },
        ...one,
        stroke: colourOf(element, colour ?? curveColour(index)),
      })),
    ],
  };
}

// As short as it goes: a tick is a round number, and 0.30000000000000004 is 0.3.
export function tickText(tick) {
  if (tick < 0) return `−${tickText(-tick)}`;
  if (tick !== 0 && (tick < 1e-3 || tick >= 1e6)) return tick.toExponential(1);
  return Number(tick.toPrecision(6)).toLocaleString("en", { maximumFractionDigits: 6 });
}

/** The last value that is there. */
export const latest = (column) => column.findLast((value) => value != null) ?? null;
