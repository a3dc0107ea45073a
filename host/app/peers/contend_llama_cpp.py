"""llama.cpp as a contender of `nextstate bench`: one JSON object a line on standard input, one answer a line on standard output.

    python contend_llama_cpp.py MODEL.gguf TYPE THREADS FOLDER     TYPE: F32, BF16 or Q8_0; FOLDER keeps the model in that type

`{"work":"decode","prompts":[[…],…],"steps":n}` takes the prompts in, then times n greedy steps of all of them together;
`{"work":"prefill","prompts":[[…]]}` times one prompt. Answers: seconds, tokens, the first sequence's tokens, peak_bytes. The
library is called as its own benchmarks call it, without the sampler and the server; numpy takes the largest logit.
"""

import ctypes
import json
import os
import sys
import time

import llama_cpp as ll
import numpy as np

TYPES = {"F32": 0, "Q8_0": 7, "BF16": 32}


def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def forget_peak():
    """Loading a model takes memory that running it does not."""
    try:
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
    except OSError:
        pass


def in_type(path, name, folder):
    """The model in this type: llama.cpp converts it once."""
    os.makedirs(folder, exist_ok=True)
    stem = os.path.basename(path).removesuffix(".gguf")
    made = os.path.join(folder, f"{stem}-{os.path.getsize(path)}.{name}.gguf")
    if not os.path.exists(made):
        params = ll.llama_model_quantize_default_params()
        params.ftype = TYPES[name]
        params.allow_requantize = True
        half = made + ".part"
        if ll.llama_model_quantize(path.encode(), half.encode(), ctypes.byref(params)) != 0:
            raise RuntimeError(f"llama.cpp could not write {path} as {name}")
        os.rename(half, made)
    return made


class Model:
    def __init__(self, path, threads):
        self.threads = threads
        self.model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        self.vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        self.contexts = {}
        self.batch = ll.llama_batch_init(2048, 0, 1)

    def context(self, sequences, tokens):
        if (sequences, tokens) not in self.contexts:
            params = ll.llama_context_default_params()
            # Every sequence has a cache of its own, of this many tokens.
            params.n_ctx = sequences * max(256, (tokens + 255) // 256 * 256)
            params.n_seq_max = sequences
            params.n_batch = 2048
            params.n_ubatch = 512
            params.n_threads = self.threads
            params.n_threads_batch = self.threads
            params.no_perf = True
            context = ll.llama_init_from_model(self.model, params)
            if not context:
                raise RuntimeError("llama.cpp could not make a context")
            self.contexts[(sequences, tokens)] = context
        context = self.contexts[(sequences, tokens)]
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        return context

    def decode(self, context, rows):
        """rows: (token, position, sequence, whether its logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if ll.llama_decode(context, batch) != 0:
            raise RuntimeError("llama_decode failed")

    def best(self, context, row):
        logits = ll.llama_get_logits_ith(context, row)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def prompt(self, context, sequence, tokens):
        last = len(tokens) - 1
        self.decode(context, [(t, i, sequence, i == last) for i, t in enumerate(tokens)])
        return self.best(context, last)


def work(model, asked):
    prompts = asked["prompts"]
    longest = max(map(len, prompts)) + asked.get("steps", 0)
    context = model.context(len(prompts), longest)
    if asked["work"] == "prefill":
        start = time.perf_counter()
        first = [model.prompt(context, 0, prompts[0])]
        return time.perf_counter() - start, len(prompts[0]), first
    if asked["work"] != "decode":
        raise ValueError(f"llama.cpp does not {asked['work']}")
    tokens = [model.prompt(context, i, prompt) for i, prompt in enumerate(prompts)]
    first = [tokens[0]]
    start = time.perf_counter()
    for step in range(asked["steps"]):
        model.decode(context, [(t, len(prompts[i]) + step, i, True) for i, t in enumerate(tokens)])
        tokens = [model.best(context, i) for i in range(len(prompts))]
        first.append(tokens[0])
    return time.perf_counter() - start, asked["steps"] * len(prompts), first


def main():
    path, name, threads, folder = sys.argv[1:]
    # Standard output is for answers only.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    quiet = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(quiet, ctypes.c_void_p(0))
    ll.llama_backend_init()
    model = Model(in_type(path, name, folder), int(threads))
    mode = f"{name} weights, F16 cache, flash attention where it chooses to, {threads} threads"
    forget_peak()
    print(json.dumps({"name": f"llama.cpp {name}", "version": f"llama-cpp-python {ll.__version__}", "mode": mode}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            seconds, tokens, first = work(model, json.loads(line))
            answer = {"seconds": seconds, "tokens": tokens, "first": first, "peak_bytes": peak_bytes()}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


main()
