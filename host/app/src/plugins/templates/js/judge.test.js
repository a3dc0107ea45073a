// Under Node.js, without Wasm.

import assert from "node:assert/strict";
import { test } from "node:test";

import "./nextstate/js/native.js";

const { judge } = await import("./plugin.js");

const next = { messages: [{ role: "user", content: "That is wrong." }], evidence: [] };

test("the likelier answer is the vote", () => {
  const answers = [{ text: "Yes", logProb: -2 }, { text: "No", logProb: -0.5 }];
  const vote = judge.readVote({}, next, { text: "No", answers, finish: "stop" });
  assert.deepEqual(vote, { sign: "bad", score: -1.5 });
});

test("what the user says is data, and silence is no vote", () => {
  const { val: prompt } = judge.evaluate({}, next);
  assert.deepEqual(prompt.messages[0].parts[1], { tag: "data", val: "That is wrong." });
  assert.equal(judge.evaluate({}, { messages: [], evidence: [] }).tag, "skip");
});
