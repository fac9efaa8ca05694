// Preact's core with htm as its template language. Bare names such as "preact" are resolved by the import map of
// index.html, which the content security policy allows by its hash.

import htm from "htm";
import { Component, createRef, h, render } from "preact";

export { Component, createRef, h, render };

export const html = htm.bind(h);

/** Runs `tick` now, then every `seconds`, but never while the page is hidden; stops with `signal`. */
export function everyWhileVisible(seconds, tick, signal) {
  const run = () => document.hidden || tick();
  const timer = setInterval(run, seconds * 1000);
  document.addEventListener("visibilitychange", run, { signal });
  signal.addEventListener("abort", () => clearInterval(timer));
  run();
}

/**
 * Loads a stylesheet of the page module that calls it, once; resolves when it applies, so that a page is never drawn
 * without its styles: `await stylesheet("./pairs.css", import.meta.url)` at the top of the module.
 */
export function stylesheet(path, base) {
  const href = new URL(path, base).href;
  const there = [...document.styleSheets].some((sheet) => sheet.href === href);
  if (there) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
    link.addEventListener("load", resolve);
    link.addEventListener("error", () => reject(new Error(`${path} could not be loaded`)));
    document.head.append(link);
  });
}
