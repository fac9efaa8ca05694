// A chart by keyboard: arrows move the cursor from point to point, + and − zoom about it, Escape shows all again.

const FACTOR = 2;

/** What a key does to a uPlot: null if nothing, else whether only a part of x is shown then. */
export function pressed(plot, { key, altKey, ctrlKey, metaKey }) {
  if (altKey || ctrlKey || metaKey || !plot.data[0]?.length) return null;
  const { min, max } = plot.scales.x;
  const [first, last] = [plot.data[0][0], plot.data[0].at(-1)];
  const partly = min > first || max < last;
  switch (key) {
    case "ArrowLeft":
      return step(plot, -1), partly;
    case "ArrowRight":
      return step(plot, 1), partly;
    case "+":
    case "=":
      return zoom(plot, 1 / FACTOR);
    case "-":
      return zoom(plot, FACTOR);
    case "Escape":
      if (!partly) return null; // it may be meant for what is around the chart
      return show(plot, first, last), false;
    default:
      return null;
  }
}

/** To the next point in view; into the view at the end that the arrow comes from. */
function step(plot, by) {
  const xs = plot.data[0];
  const { min, max } = plot.scales.x;
  const seen = xs.flatMap((x, at) => (x >= min && x <= max ? [at] : []));
  const place = seen.indexOf(plot.cursor.idx);
  const next = place < 0 ? (by > 0 ? 0 : seen.length - 1) : Math.min(Math.max(place + by, 0), seen.length - 1);
  if (seen.length > 0) plot.setCursor({ left: plot.valToPos(xs[seen[next]], "x"), top: plot.bbox.height / 4 });
}

function zoom(plot, factor) {
  const xs = plot.data[0];
  const [first, last] = [xs[0], xs.at(-1)];
  const { min, max } = plot.scales.x;
  const width = Math.min((max - min) * factor, last - first);
  if (!(width > 0)) return false;
  const under = plot.cursor.idx == null ? null : xs[plot.cursor.idx];
  const from = Math.max(first, Math.min((under ?? (min + max) / 2) - width / 2, last - width));
  show(plot, from, from + width);
  // uPlot keeps the cursor's pixel, which another point lies under now
  if (under !== null) plot.setCursor({ left: (plot.over.clientWidth * (under - from)) / width, top: plot.cursor.top });
  return width < last - first;
}

const show = (plot, min, max) => plot.setScale("x", { min, max });
