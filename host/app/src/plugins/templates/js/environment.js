// An environment: hosts a quiz of sums, and leaves live traffic to the defaults of the kit.
//
// The same task, seed and actions give the same episode, byte for byte. `nextstate/wit/environment.wit` says what each
// function promises.

const says = (content) => ({
  messages: [{ role: "user", content, reasoning: null, toolCalls: [], toolCallId: null, name: null }],
  evidence: [],
});

const no = (why) => ({ tag: "invalid-input", val: why });

/** One sum; whether it was answered, and rightly. */
class Episode {
  constructor(a, b) {
    this.sum = [a, b];
    this.right = null;
  }

  static start(task, seed) {
    const numbers = /^(\d{1,4})\+(\d{1,4})$/.exec(task);
    if (!numbers) throw no(`no task \`${task}\``);
    return new Episode(Number(numbers[1]), Number(numbers[2]));
  }

  observe() {
    return says(`What is ${this.sum[0]} + ${this.sum[1]}?`);
  }

  act({ reply }) {
    if (this.right !== null) throw no("the episode is over");
    const answer = String(this.sum[0] + this.sum[1]);
    this.right = reply.content.split(/\W+/).includes(answer);
    return { next: says(this.right ? "Right." : "Wrong."), done: "finished" };
  }

  outcome() {
    return this.right === null ? null : { value: this.right ? 1 : 0, metrics: [] };
  }
}

export const environment = {
  Episode,

  describe: () => ({
    name: "plugin-name",
    version: "0.1.0",
    action: "text",
    observation: "text",
    tools: [],
    capabilities: {},
  }),

  tasks(split) {
    // No task is in both splits.
    const numbers = split === "train" ? [2, 3, 4, 5, 6, 7, 8, 9] : [10, 11, 12];
    return numbers.map((a) => `${a}+${2 * a + 1}`);
  },
};
