// A reward rule: the majority of the judge's votes rewards a turn, and the environment's score, where there is one, the last turn.
//
// Missing is not zero: a turn that nobody judged has no reward. `nextstate/wit/reward.wit` says what each function promises.

import { get } from "nextstate:plugin/config@0.1.0";

const NUMBERS = { good: 1, neutral: 0, bad: -1 };

export const reward = {
  verdict(votes) {
    const counts = new Map();
    for (const vote of votes) {
      if (vote) counts.set(vote.sign, (counts.get(vote.sign) ?? 0) + 1);
    }
    const [first, second] = [...counts].sort(([, a], [, b]) => b - a);
    if (!first) return null;
    const isTie = second && first[1] === second[1];
    return { sign: isTie ? "neutral" : first[0], by: "judge" };
  },

  turnRewards({ turns, outcome }) {
    // `plugin.toml` declares the key, its type, its range and its default; the host checks them.
    const weight = get("outcome-weight").val;
    const rewards = turns.map(({ verdict }) => ofVerdict(verdict));
    const last = rewards.at(-1);
    if (last && outcome != null) {
      // A score is from 0 to 1, a reward on both sides of 0.
      last.reward = 2 * outcome - 1;
      last.rlWeight = weight;
    }
    return rewards;
  },
};

function ofVerdict(verdict) {
  if (!verdict) return { reward: null, rlWeight: 0, opdWeight: 0 };
  const number = NUMBERS[verdict.sign];
  return { reward: number, rlWeight: Math.abs(number), opdWeight: 0 };
}
