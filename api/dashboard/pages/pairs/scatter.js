// Margins before (across) and after (up) training, a point for each pair; on the line nothing has changed.

import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import { colourOf, tickText } from "../../components/chart.js";
import { themes } from "../../components/theme.js";
import { number } from "../../format.js";
import { html } from "../../ui.js";

const REACH_PX = 24; // how near a click must be to its point
const none = () => null;

export function Scatter({ margins, selected, onSelect }) {
  const box = useRef(null);
  const plot = useRef(null);
  const chosen = useRef(selected);
  chosen.current = selected;
  const columns = useMemo(() => sorted(margins), [margins]);
  useEffect(() => {
    const element = box.current;
    const draw = () => {
      plot.current?.destroy();
      plot.current = made(element, columns, (index) => onSelect(columns.rows[index]));
      plot.current.setData(data(columns, chosen.current));
    };
    draw();
    const resizing = new ResizeObserver(([{ contentRect }]) => plot.current.setSize(size(contentRect.width)));
    resizing.observe(element);
    themes.addEventListener("change", draw);
    return () => {
      themes.removeEventListener("change", draw);
      resizing.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [margins]);
  useEffect(() => plot.current.setData(data(columns, selected)), [selected]);
  const above = columns.after.filter((value) => value > 0).length;
  const rose = columns.after.filter((value, index) => value > columns.before[index]).length;
  const told = `${number(rose)} of ${number(columns.rows.length)} rose, ${number(above)} above zero after training`;
  return html`
    <figure aria-label="Margin before and after training: ${told}">
      <div class="scatter" ref=${box}></div>
      <figcaption>
        log-prob of chosen less rejected, before (across) and after (up): ${told}. The list below has the same pairs.
      </figcaption>
    </figure>
  `;
}

/** uPlot wants its first column to rise. */
function sorted({ row, before, after }) {
  const order = row.map((_, index) => index).sort((a, b) => before[a] - before[b]);
  const by = (column) => order.map((index) => column[index]);
  return { rows: by(row), before: by(before), after: by(after) };
}

const data = ({ rows, before, after }, selected) => [
  before,
  after.map((value) => (value > 0 ? value : null)),
  after.map((value) => (value > 0 ? null : value)),
  after.map((value, index) => (rows[index] === selected ? value : null)),
];

function made(box, { before, after }, onPick) {
  const colour = (token) => colourOf(box, token);
  const ticks = (_, at) => at.map((tick) => tickText(tick));
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const points = (name, width, more) => ({
    paths: none,
    stroke: colour(name),
    points: { show: true, size: width, stroke: colour(name), fill: colour(name), ...more },
  });
  const plot = new uPlot(
    {
      ...size(box.clientWidth),
      scales: { x: { time: false, range: padded } },
      legend: { show: false },
      cursor: { x: false, y: false, points: { show: false }, drag: { x: false, y: false } },
      axes: [
        { ...axis, size: 30, values: ticks },
        { ...axis, size: 48, values: ticks },
      ],
      series: [
        {},
        points("--curve-0", 5),
        points("--curve-2", 5),
        points("--ink", 11, { fill: "transparent", width: 2 }),
      ],
      hooks: { drawAxes: [(plot) => drawLines(plot, colour("--line-strong"))] },
    },
    [before, after, after, after],
    box,
  );
  plot.over.addEventListener("click", ({ offsetX, offsetY }) => {
    const distance = (index) =>
      Math.hypot(plot.valToPos(before[index], "x") - offsetX, plot.valToPos(after[index], "y") - offsetY);
    const nearest = before.reduce((best, _, index) => (best < 0 || distance(index) < distance(best) ? index : best), -1);
    if (nearest >= 0 && distance(nearest) <= REACH_PX) onPick(nearest);
  });
  return plot;
}

const padded = (_, low, high) => {
  const room = (high - low) * 0.05 || 1;
  return [low - room, high + room];
};

/** after = before, and after = 0. */
function drawLines(plot, colour) {
  const { ctx, bbox, scales } = plot;
  const at = (x, y) => [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.strokeStyle = colour;
  ctx.setLineDash([4, 4]);
  ctx.beginPath();
  ctx.moveTo(...at(scales.x.min, scales.x.min));
  ctx.lineTo(...at(scales.x.max, scales.x.max));
  ctx.moveTo(...at(scales.x.min, 0));
  ctx.lineTo(...at(scales.x.max, 0));
  ctx.stroke();
  ctx.restore();
}

const size = (width) => ({ width: Math.max(200, Math.floor(width)), height: 240 });
