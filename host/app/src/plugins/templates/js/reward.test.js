// Under Node.js, without Wasm: `given` holds what the host would give.

import assert from "node:assert/strict";
import { test } from "node:test";

import { given } from "./nextstate/js/native.js";

const { reward } = await import("./plugin.js");

const turn = (sign) => ({
  verdict: sign ? { sign, by: "judge" } : null,
  process: null,
  tokens: 20,
  cut: false,
});

test("a tie is neutral, and nobody's word is no verdict", () => {
  assert.equal(reward.verdict([{ sign: "good" }, null, { sign: "bad" }]).sign, "neutral");
  assert.equal(reward.verdict([null]), null);
});

test("the score is the reward of the last turn only", () => {
  given.config = { "outcome-weight": { tag: "number", val: 0.5 } };
  const [first, last] = reward.turnRewards({ turns: [turn("good"), turn()], outcome: 0.25 });
  assert.deepEqual([first.reward, first.rlWeight], [1, 1]);
  assert.deepEqual([last.reward, last.rlWeight], [-0.5, 0.5]);
});
