// Live curves: the metrics stream into a store, the store into uPlot.

import { number } from "./format.js";
import { follow } from "./sse.js";
import { Component, createRef, html, ProblemNote } from "./ui.js";
import uPlot from "./vendor/uplot-1.6.32/uPlot.esm.js";

const REDRAW_EVERY_MS = 250;
const WHOLE_STEPS = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].flatMap((ten) => [ten, 2 * ten, 5 * ten]);
const NUM_COLOURS = 5; // --curve-0 and on in style.css
const REWARDS = ["rewards/margins", "rewards/chosen", "rewards/rejected"];
const LATEST = ["loss", "rewards/margins", "rewards/accuracies", "grad_norm", "learning_rate", "tokens_per_s"];
const NAMES = {
  "rewards/margins": "margin",
  "rewards/chosen": "chosen",
  "rewards/rejected": "rejected",
  "rewards/accuracies": "accuracy",
  grad_norm: "gradient norm",
  learning_rate: "learning rate",
  tokens_per_s: "tokens/s",
};
const nameOf = (key) => NAMES[key] ?? key.replace("loss/", "");

/** The values of each step; a step that is repeated after a resume replaces what was there. */
class Steps {
  /** The names that any step has a value for. */
  keys = new Set();
  #values = new Map();
  #last = -Infinity;

  set(step, values) {
    this.#values.set(step, values);
    this.#last = Math.max(this.#last, step);
    for (const key in values) if (values[key] !== null) this.keys.add(key);
  }

  get size() {
    return this.#values.size;
  }

  get latest() {
    return { step: this.#last, values: this.#values.get(this.#last) };
  }

  /** uPlot's columns: steps, then each key; null where a step has no (finite) value. */
  columns(keys) {
    const rows = [...this.#values].sort(([a], [b]) => a - b);
    return [rows.map(([step]) => step), ...keys.map((key) => rows.map(([, values]) => values[key] ?? null))];
  }
}

/** Curves and latest values of one job, live until the job ends. */
export class Curves extends Component {
  state = { problem: null };
  splits = { train: new Steps(), held_out: new Steps() };
  abort = new AbortController();

  componentDidMount() {
    const { signal } = this.abort;
    const following = follow(`v1/jobs/${this.props.id}/metrics`, { signal, onFrame: this.take });
    following.catch((problem) => this.setState({ problem }));
  }

  /** The page around is drawn far more often than a metric comes. */
  shouldComponentUpdate(_, state) {
    return state !== this.state;
  }

  componentWillUnmount() {
    this.abort.abort();
    clearTimeout(this.timer);
  }

  take = ({ event, data }) => {
    if (event !== "metric") return;
    this.splits[data.split].set(data.step, data.values);
    // the replay of a long job is thousands of frames: draw now and then, not for each
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.setState({});
    }, REDRAW_EVERY_MS);
  };

  render(_, { problem }) {
    const { train, held_out } = this.splits;
    if (problem) return html`<${ProblemNote} problem=${problem} />`;
    if (train.size === 0) return html`<p class="muted">The curves start with the first optimizer step.</p>`;
    const { step, values } = train.latest;
    const terms = [...train.keys].filter((key) => key.startsWith("loss/"));
    const curves = [
      ["Loss", terms.length > 1 ? ["loss", ...terms] : ["loss"]], // a loss of one term is that term: one line says it
      ["Reward margin", REWARDS.filter((key) => train.keys.has(key))],
    ];
    return html`
      <dl class="tiles">
        <div><dt>step</dt><dd>${number(step)}</dd></div>
        ${LATEST.filter((key) => values[key] != null).map(
          (key) => html`<div key=${key}><dt>${nameOf(key)}</dt><dd>${number(values[key])}</dd></div>`,
        )}
      </dl>
      <div class="curves">
        ${curves
          .filter(([, keys]) => keys.length > 0)
          .map(([title, keys]) => {
            const data = train.columns(keys);
            return html`<${Chart} key=${title + keys} title=${title} keys=${keys} data=${data} />`;
          })}
      </div>
      ${held_out.size > 0 && html`<${HeldOut} values=${held_out.latest.values} />`}
    `;
  }
}

const HeldOut = ({ values }) => html`
  <p class="held-out">
    <strong>Held-out pairs:</strong>${" "}
    ${["loss", "rewards/margins", "rewards/accuracies"]
      .filter((key) => values[key] != null)
      .map((key) => `${nameOf(key)} ${number(values[key])}`)
      .join(", ")}
  </p>
`;

/** One uPlot chart, made anew when the colour scheme changes: a canvas knows no CSS variables. */
class Chart extends Component {
  box = createRef();
  abort = new AbortController();

  componentDidMount() {
    const { signal } = this.abort;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(), { signal });
    this.resizing = new ResizeObserver(([{ contentRect }]) => this.plot.setSize(size(contentRect.width)));
    this.draw();
    this.resizing.observe(this.box.current);
  }

  componentDidUpdate() {
    // a zoomed view stays where it is while values arrive; a double click leaves it
    this.plot.setData(this.props.data, !this.zoomed);
    if (this.zoomed) this.plot.redraw();
  }

  componentWillUnmount() {
    this.abort.abort();
    this.resizing.disconnect();
    this.plot.destroy();
  }

  draw() {
    const { keys, data } = this.props;
    const style = getComputedStyle(this.box.current);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    // the legend tells the value under the cursor, and without a cursor the latest
    const value = (plot, at, series, index) => number(index === null ? plot.data[series].at(-1) : at);
    this.plot?.destroy();
    this.zoomed = false;
    this.plot = new uPlot(
      {
        ...size(this.box.current.clientWidth),
        scales: { x: { time: false } },
        cursor: { sync: { key: "steps" }, y: false },
        axes: [{ ...axis, size: 30, incrs: WHOLE_STEPS }, { ...axis, size: 56 }],
        series: [
          { label: "step", value },
          ...keys.map((key, index) => ({
            label: nameOf(key),
            stroke: colour(`--curve-${index % NUM_COLOURS}`),
            width: index === 0 ? 2 : 1.5,
            value,
          })),
        ],
        hooks: { setSelect: [(plot) => (this.zoomed = plot.select.width > 0)] },
      },
      data,
      this.box.current,
    );
    this.plot.over.addEventListener("dblclick", () => (this.zoomed = false));
  }

  render({ title, keys, data }) {
    const latest = keys.map((key, index) => `${nameOf(key)} ${number(data[index + 1].at(-1))}`).join(", ");
    return html`
      <figure aria-label="${title} by optimizer step; latest: ${latest}">
        <figcaption>${title}</figcaption>
        <div class="chart" ref=${this.box}></div>
      </figure>
    `;
  }
}

const size = (width) => ({ width: Math.max(200, Math.floor(width)), height: 220 });
