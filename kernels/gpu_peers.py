#!/usr/bin/env python3
"""What others make of the same machine: PyTorch's products (cuBLAS) and attention (cuDNN, FlashAttention 2), and transformers + PEFT end to end.

    gpu_peers.py [LAYERS [ops|models]]      layers of the model in Qwen3-4B's shape, random weights; 36 unless told otherwise

The shapes are those of measure_gpu and measure_gpu_model, which kernels/check-gpu runs before this; times are medians of seven rounds by the
GPU's own events, of whole passes by the clock. A peer that is not installed is left out, loudly.
"""
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

GPU, BF16 = "cuda", torch.bfloat16
# (outputs, inputs): queries, keys and values; output; gate and up; down.
LAYER = [(6144, 2560), (2560, 4096), (19456, 2560), (2560, 9728)]
VOCABULARY, HIDDEN, KEYS = 151_936, 2560, 1024


def microseconds(work):
    """Of one call: rounds of some 20 ms of calls, after one that does not count."""
    work()

    def a_round(calls):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(calls):
            work()
        after.record()
        after.synchronize()
        return 1e3 * before.elapsed_time(after) / calls

    calls = int(min(2000, max(1, 20_000 / max(a_round(1), 1))))
    return statistics.median(a_round(calls) for _ in range(7))


def line(op, shape, us, flops):
    print(f"| {op} | {shape} | {us:.1f} | {flops / us / 1e6:.1f} |", flush=True)


def products():
    for outputs, inputs in LAYER:
        w = torch.randn(outputs, inputs, device=GPU, dtype=BF16)
        for rows in (1, 8, 64, 512, 8192):
            x = torch.randn(rows, inputs, device=GPU, dtype=BF16)
            line("cuBLAS", f"{rows}×{inputs} → {outputs}", microseconds(lambda: F.linear(x, w)), 2 * rows * outputs * inputs)
        dy = torch.randn(8192, outputs, device=GPU, dtype=BF16)
        line("cuBLAS backward", f"8192×{inputs} → {outputs}", microseconds(lambda: dy @ w), 2 * 8192 * outputs * inputs)
    x, w = (torch.randn(n, HIDDEN, device=GPU, dtype=BF16) for n in (4096, VOCABULARY))
    line("cuBLAS", f"4096×{HIDDEN} → {VOCABULARY}", microseconds(lambda: F.linear(x, w)), 2 * 4096 * HIDDEN * VOCABULARY)


def attention():
    sequences, length, heads, kv_heads, d = 4, 2048, 32, 8, 128
    flops = 2 * sequences * heads * d * length * length
    q, k, v = (
        torch.randn(sequences, h, length, d, device=GPU, dtype=BF16, requires_grad=True) for h in (heads, kv_heads, kv_heads)
    )
    shape = f"{sequences}×{length}, {heads}/{kv_heads} heads of {d}"
    for name, backend in (("FlashAttention 2", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
        with sdpa_kernel(backend):
            run = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            line(f"{name} attention", shape, microseconds(run), flops)
            out = run()
            dout = torch.randn_like(out)
            back = lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)
            line(f"{name} attention backward", shape, microseconds(back), 2.5 * flops)


def seconds(runs, work):
    """The median by the clock, after one run that does not count."""
    times = []
    for i in range(runs + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def model(layers):
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.cache_utils import StaticCache

    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=9728, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=4096, tie_word_embeddings=True,
        rope_theta=1e6, attn_implementation="sdpa",
    )
    torch.set_default_dtype(BF16)
    with torch.device(GPU):
        whole = Qwen3ForCausalLM(config).eval()

    def decode(batch, how, step):
        cache = StaticCache(config=config, max_cache_len=KEYS + 64)
        with torch.inference_mode():
            ids = torch.randint(0, VOCABULARY, (batch, KEYS), device=GPU)
            for first in range(0, KEYS, 256):
                at = torch.arange(first, first + 256, device=GPU)
                whole(ids[:, first : first + 256], past_key_values=cache, cache_position=at, use_cache=True, logits_to_keep=1)
            token, at = ids[:, :1].contiguous(), torch.tensor([KEYS], device=GPU)

            def one():
                logits = step(token, past_key_values=cache, cache_position=at, use_cache=True).logits[:, -1].float()
                return torch.multinomial(torch.softmax(logits, -1), 1).cpu()

            took = seconds(8, one)
        print(f"| transformers{how}, decode and sampling, batch {batch}, {KEYS} keys | {1e3 * took:.2f} | {batch / took:.0f} |", flush=True)

    for batch in (1, 64):
        decode(batch, "", whole)
    with torch.inference_mode():
        ids = torch.randint(0, VOCABULARY, (1, 2048), device=GPU)
        took = seconds(3, lambda: whole(ids, logits_to_keep=1))
    print(f"| transformers, a prompt of 2048 | {1e3 * took:.2f} | {2048 / took:.0f} |", flush=True)
    return whole


def training(whole):
    from peft import LoraConfig, get_peft_model

    maps = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    tuned = get_peft_model(whole.train(), LoraConfig(r=16, lora_alpha=32, target_modules=maps))
    optimizer = torch.optim.AdamW((p for p in tuned.parameters() if p.requires_grad), lr=1e-4, fused=True)

    def step(sequences, length, at_once):
        ids = torch.randint(0, VOCABULARY, (sequences, length), device=GPU)
        optimizer.zero_grad()
        for part in ids.split(at_once):
            logits = tuned(part).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1).float(), part[:, 1:].flatten())
            (loss * at_once / sequences).backward()
        torch.nn.utils.clip_grad_norm_(tuned.parameters(), 1.0)
        optimizer.step()

    for at_once in (1, 2, 4):
        torch.cuda.reset_peak_memory_stats()
        try:
            took = seconds(3, lambda: step(8, 1024, at_once))
        except torch.OutOfMemoryError:
            print(f"| transformers + PEFT, training 8 × 1024, {at_once} at once | out of memory | – |")
            continue
        peak = torch.cuda.max_memory_allocated() >> 20
        print(f"| transformers + PEFT, training 8 × 1024, rank 16, {at_once} at once, {peak} MiB | {1e3 * took:.1f} | {8192 / took:.0f} |", flush=True)


def main():
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else 36
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    if only != "models":
        print("\n| op | shape | µs | TFLOP/s |\n|---|---|---|---|")
        products()
        attention()
    if only == "ops":
        return
    print(f"\n{layers} layers\n\n| pass | ms | tokens/s |\n|---|---|---|")
    for part in ("transformers", "peft"):
        try:
            if part == "transformers":
                whole = model(layers)
            else:
                training(whole)
        except ImportError as missing:
            print(f"left out: {missing}")
            break


main()
