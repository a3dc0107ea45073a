// A judge: asks a model whether the user was content with a reply, and reads its Yes or No as a vote.
//
// What comes from outside goes into a prompt as data, never as an instruction. `nextstate/wit/judge.wit` says what each function
// promises.

const QUESTION = "A user wrote to an assistant after its reply:\n";
const DEMAND = "\nIs the user content with the reply? Answer Yes or No.";

export const judge = {
  evaluate(turn, next) {
    const said = next.messages.filter(({ role }) => role === "user").map(({ content }) => content);
    if (said.length === 0) return { tag: "skip" }; // Nobody reacted: no vote, which is not a neutral one.
    const parts = [
      { tag: "instruction", val: QUESTION },
      { tag: "data", val: said.join("\n") },
      { tag: "instruction", val: DEMAND },
    ];
    const prompt = {
      messages: [{ role: "user", parts }],
      format: "chat",
      answer: { tag: "choice", val: ["Yes", "No"] },
    };
    return { tag: "ask", val: prompt };
  },

  readVote(turn, next, { answers }) {
    if (answers.length !== 2) return null;
    const score = answers[0].logProb - answers[1].logProb;
    return { sign: score > 0 ? "good" : "bad", score: Math.max(-100, Math.min(100, score)) };
  },
};
