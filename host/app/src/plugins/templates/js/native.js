// The capabilities under Node.js, so that a plugin's own tests run without Wasm. Import it before `plugin.js`.
//
// A test sets what they answer: `given.config["a-key"] = { tag: "number", val: 0.5 }`, `given.bits = () => 7`. Whatever has no answer here
// does nothing.

import { register } from "node:module";

/** What the host would give. */
export const given = {
  config: {},
  bits: () => 0,
  uniform: () => 0,
  nowMs: () => 0,
  stored: new Map(),
};
globalThis.given = given;

const MODULES = {
  config: "export const get = (key) => globalThis.given.config[key] ?? null;",
  random: `export const bits = () => globalThis.given.bits();
    export const uniform = () => globalThis.given.uniform();`,
  clock: "export const nowMs = () => globalThis.given.nowMs();",
  log: "export const write = () => {};",
  metric: "export const recordValue = () => {};",
  shell: "export const Machine = globalThis.given.Machine;",
  browser: "export const Page = globalThis.given.Page;",
  model: "export const complete = (request) => globalThis.given.complete(request);",
  http: "export const fetch = (request) => globalThis.given.fetch(request);",
  store: `export const get = (key) => globalThis.given.stored.get(key) ?? null;
    export const put = (key, value) => { globalThis.given.stored.set(key, value); };
    export const remove = (key) => { globalThis.given.stored.delete(key); };
    export const keys = (prefix) => [...globalThis.given.stored.keys()].filter((key) => key.startsWith(prefix)).sort();`,
};

const url = (text) => `data:text/javascript,${encodeURIComponent(text)}`;

register(
  url(`
    const MODULES = ${JSON.stringify(MODULES)};
    export async function resolve(name, context, next) {
      const text = MODULES[/^nextstate:plugin\\/([a-z]+)@/.exec(name)?.[1]];
      if (!text) return next(name, context);
      return { url: "data:text/javascript," + encodeURIComponent(text), shortCircuit: true };
    }
  `),
);
