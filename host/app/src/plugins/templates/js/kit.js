// What stands between the host and plugin.js: the functions that plugin.js leaves out, the log, and what an exception becomes.
//
// `console` writes to the host's log. An exception that is no fault is logged, with the place it came from, and then ends the call.

import { write } from "nextstate:plugin/log@0.1.0";

let isServing = false;

function line(level) {
  const text = (said) => (typeof said === "string" ? said : JSON.stringify(said) ?? String(said));
  return (...said) => {
    // While the component is built there is no host to write to.
    if (isServing) said.map(text).join(" ").split("\n").forEach((part) => write(level, part));
  };
}

globalThis.console = {
  debug: line("debug"),
  log: line("info"),
  info: line("info"),
  warn: line("warn"),
  error: line("error"),
};

// The clock of the system would end the call without a word.
function noClock() {
  if (isServing) throw new Error("a guest has no clock but `nextstate:plugin/clock@0.1.0`");
}

const SystemDate = Date;
globalThis.Date = class Date extends SystemDate {
  constructor(...given) {
    if (given.length === 0) noClock();
    super(...given);
  }

  static now() {
    noClock();
    return SystemDate.now();
  }
};

function unsupported(name) {
  return () => {
    throw { tag: "unsupported", val: name };
  };
}

function reactions(turn, newMessages) {
  const messages = newMessages.filter(({ role }) => role === "user" || role === "tool");
  return messages.length > 0 ? { messages, evidence: [] } : null;
}

// What a plugin says that has nothing to say, as in the kit for Rust.
const DEFAULTS = {
  environment: {
    classify: () => "unknown",
    nextState: reactions,
    sessionEnds: () => false,
    tasks: () => [],
    Episode: class {},
  },
  judge: {
    askHint: () => null,
    readHint: () => null,
    placeHint: unsupported("place-hint"),
  },
  reward: {
    advantages: (rewards) => rewards,
    tokenAdvantages: () => null,
  },
};

const EPISODE = {
  statics: {
    start: (task) => {
      throw { tag: "invalid-input", val: `no task \`${task}\`` };
    },
    restore: unsupported("restore"),
  },
  methods: { outcome: () => null, snapshot: unsupported("snapshot") },
};

function isFault(thrown) {
  return typeof thrown?.tag === "string" && typeof thrown.val === "string";
}

function told(call) {
  return function (...given) {
    isServing = true;
    try {
      return call.apply(this, given);
    } catch (thrown) {
      if (!isFault(thrown)) console.error(`${thrown}\n${thrown?.stack ?? ""}`.trim());
      throw thrown;
    }
  };
}

function complete(holder, defaults) {
  for (const [name, call] of Object.entries(defaults)) {
    holder[name] ??= call;
  }
  for (const name of Object.getOwnPropertyNames(holder)) {
    const call = holder[name];
    if (typeof call === "function" && name !== "constructor" && name !== "Episode") {
      holder[name] = told(call);
    }
  }
}

/** What `plugin.js` exports for an interface, with the rest of it. */
export function exported(name, plugin) {
  if (!plugin[name]) {
    throw new Error(`plugin.js does not export \`${name}\`, which the world in plugin.toml demands`);
  }
  const own = { ...plugin[name] };
  complete(own, DEFAULTS[name]);
  if (own.Episode) {
    complete(own.Episode, EPISODE.statics);
    complete(own.Episode.prototype, EPISODE.methods);
  }
  return own;
}
