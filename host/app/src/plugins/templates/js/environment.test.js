// Under Node.js, without Wasm.

import assert from "node:assert/strict";
import { test } from "node:test";

import "./nextstate/js/native.js";

const { environment } = await import("./plugin.js");

test("a right answer scores, once", () => {
  const episode = environment.Episode.start("2+5", 1);
  const action = { reply: { role: "assistant", content: "It is 7." }, finish: "stop" };
  episode.act(action);
  assert.equal(episode.outcome().value, 1);
  assert.throws(() => episode.act(action), { tag: "invalid-input" });
});

test("no task is in both splits", () => {
  const heldOut = environment.tasks("held-out");
  assert.ok(!environment.tasks("train").some((task) => heldOut.includes(task)));
});
