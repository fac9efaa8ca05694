// The metrics of a job by split and step, and what charts make of them. No markup here.

const SHORTEST_NAMES = {
  "rewards/margins": "margin",
  "rewards/chosen": "chosen",
  "rewards/rejected": "rejected",
  "rewards/accuracies": "accuracy",
  "logps/chosen": "chosen",
  "logps/rejected": "rejected",
  grad_norm: "gradient norm",
  learning_rate: "learning rate",
  tokens_per_s: "tokens/s",
};
export const nameOf = (key) => SHORTEST_NAMES[key] ?? key.replace("loss/", "");

/** The values of each step; a step that is repeated after a resume replaces what was there. */
export class Steps {
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

  /** [[step, value or null], ...] in order of step. */
  of(key) {
    return this.rows.map(([step, values]) => [step, values[key] ?? null]);
  }

  /** [[step, values], ...] in order of step. */
  get rows() {
    return [...this.#values].sort(([a], [b]) => a - b);
  }
}

/**
 * Exponential moving average with the weight `smoothing` (0 to under 1) on what was before, corrected for its start as
 * Adam's moments are; what is missing stays missing.
 */
export function smoothed(values, smoothing) {
  if (smoothing === 0) return values;
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = smoothing * sum + (1 - smoothing) * value;
    weight = smoothing * weight + (1 - smoothing);
    return sum / weight;
  });
}

/**
 * uPlot's columns for lines [{steps: [[step, value], ...]}, ...]: the union of the steps, then each line with null
 * where it has no value. A line is smoothed before it is put on the common steps.
 */
export function columns(lines, { smoothing = 0, log = false } = {}) {
  const byStep = lines.map(({ points }) => {
    const drawn = smoothed(points.map(([, value]) => value), smoothing);
    return new Map(points.map(([step], index) => [step, drawn[index]]));
  });
  const steps = [...new Set(byStep.flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
  const value = (line, step) => {
    const at = line.get(step) ?? null;
    return log && at !== null && at <= 0 ? null : at;
  };
  return [steps, ...byStep.map((line) => steps.map((step) => value(line, step)))];
}

/** The charts for what there is: [{title, keys}]; each key is drawn for both splits. */
export function chartsOf(keys) {
  const terms = [...keys].filter((key) => key.startsWith("loss/"));
  const charts = [
    ["Loss", terms.length > 1 ? ["loss", ...terms] : ["loss"]], // a loss of one term is that term: one line says it
    ["Reward margin", ["rewards/margins"]],
    ["Rewards", ["rewards/chosen", "rewards/rejected"]],
    ["Accuracy", ["rewards/accuracies"]],
    ["Log-probs", ["logps/chosen", "logps/rejected"]],
    ["KL to the reference", ["kl"]],
    ["Gradient norm", ["grad_norm"]],
    ["Throughput", ["tokens_per_s"]],
    ["Learning rate", ["learning_rate"]],
  ];
  const named = new Set(charts.flatMap(([, names]) => names));
  const others = [...keys].filter((key) => !named.has(key) && !key.startsWith("loss/")).sort();
  return {
    main: charts.map(([title, names]) => ({ title, keys: names.filter((key) => keys.has(key)) })).filter((one) => one.keys.length),
    others: others.map((key) => ({ title: key, keys: [key] })),
  };
}

/** Every value of both splits as CSV (RFC 4180). */
export function asCsv(splits) {
  const keys = [...new Set(Object.values(splits).flatMap((steps) => [...steps.keys]))].sort();
  const cell = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const rows = Object.entries(splits).flatMap(([split, steps]) =>
    steps.rows.map(([step, values]) => [split, step, ...keys.map((key) => values[key] ?? "")]),
  );
  return [["split", "step", ...keys], ...rows].map((row) => row.map((one) => cell(String(one))).join(",")).join("\r\n");
}
