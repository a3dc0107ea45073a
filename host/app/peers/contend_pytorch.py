"""PyTorch + transformers + PEFT as a contender of `nextstate bench`: one JSON object a line in, one answer a line out.

    python contend_pytorch.py MODEL DTYPE THREADS     MODEL: a .gguf file or a Hugging Face folder; DTYPE: float32 or bfloat16

Works and answers are those of contend_llama_cpp.py, and `{"work":"train","prompts":[[…],…]}`: one step of LoRA of rank 16 on all seven
projections, the sequences as one batch: forward, backward, clipping, AdamW. Eager, with SDPA, as these libraries come.
"""

import json
import os
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM


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


def load(path, dtype):
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if path.endswith(".gguf"):
        folder, file = os.path.split(os.path.abspath(path))
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to(dtype).eval()


class Training:
    def __init__(self, model):
        import peft

        linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=linears)
        self.model = peft.get_peft_model(model, config).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0)
        forget_peak()

    def step(self, tokens):
        start = time.perf_counter()
        loss = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def decode(model, tokens, steps):
    with torch.inference_mode():
        seen = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
        cache, last = seen.past_key_values, seen.logits[:, -1].argmax(-1, keepdim=True)
        first = [int(last[0])]
        start = time.perf_counter()
        for _ in range(steps):
            seen = model(input_ids=last, past_key_values=cache, use_cache=True)
            last = seen.logits[:, -1].argmax(-1, keepdim=True)
            first.append(int(last[0]))
        return time.perf_counter() - start, steps * tokens.shape[0], first


def prefill(model, tokens):
    with torch.inference_mode():
        start = time.perf_counter()
        logits = model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits
        first = [int(logits[0, -1].argmax())]
        return time.perf_counter() - start, tokens.shape[1], first


def main():
    path, dtype, threads = sys.argv[1:]
    # Standard output is for answers only.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(int(threads))
    model, training = load(path, getattr(torch, dtype)), None
    mode = f"{dtype} weights and activations, eager, SDPA, {threads} threads; training without checkpointing"
    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    forget_peak()
    print(json.dumps({"name": f"PyTorch {dtype}", "version": version, "mode": mode}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            asked = json.loads(line)
            tokens = torch.tensor(asked["prompts"])
            if asked["work"] == "train":
                training = training or Training(model)
                seconds, count, first = training.step(tokens), tokens.numel(), []
            elif asked["work"] == "decode":
                seconds, count, first = decode(model, tokens, asked["steps"])
            else:
                seconds, count, first = prefill(model, tokens)
            answer = {"seconds": seconds, "tokens": count, "first": first, "peak_bytes": peak_bytes()}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


main()
