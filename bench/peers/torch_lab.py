#!/usr/bin/env python3
"""The lab's transformer on the oneDNN backend beside the same model in PyTorch: same weights, same batches, same threads, one process, in turn.

torch_lab.py LIBRARY [OUTPUT.json]      LIBRARY: libplumb_peer_calls.so of the build; threads: OMP_NUM_THREADS

Prints tokens per second of both and the ratio (above 1: plumb is faster) for a training step (forward, backward, clipping, AdamW) and for generation
with a KV cache; first of all it checks that both compute the same losses over several steps, and the same log-probabilities of the same replies.
"""
import ctypes
import json
import math
import sys

import torch
import torch.nn.functional as F

from timing import blas, median_ms

library = ctypes.CDLL(sys.argv[1])
library.plumb_lab_parameter.restype = ctypes.c_char_p
library.plumb_lab_weights.restype = ctypes.POINTER(ctypes.c_float)
library.plumb_lab_train.restype = ctypes.c_double
for name in ["parameters", "prompts", "written", "prompt"]:
    getattr(library, "plumb_lab_" + name).restype = ctypes.c_int64
HEADS, BASE, EPSILON, RATE = 4, 10000.0, 1e-5, 1e-3


def address(x):
    return ctypes.c_void_p(x.data_ptr())


def ints(*shape):
    return torch.zeros(*shape, dtype=torch.int32)


def our_weights():
    all_of_them = {}
    for i in range(library.plumb_lab_parameters()):
        place = (ctypes.c_int64 * 3)()
        name = library.plumb_lab_parameter(ctypes.c_int64(i), place).decode()
        rows, columns, offset = place
        flat = ctypes.cast(ctypes.addressof(library.plumb_lab_weights().contents) + 4 * offset, ctypes.POINTER(ctypes.c_float))
        x = torch.tensor(flat[:rows * columns])
        all_of_them[name] = x if rows == 1 else x.view(rows, columns)
    return all_of_them


class Layer(torch.nn.Module):
    def __init__(self, weights, prefix):
        super().__init__()
        take = lambda name: torch.nn.Parameter(weights[prefix + name + ".weight"].clone())
        self.norm1, self.norm2 = take("input_layernorm"), take("post_attention_layernorm")
        self.q, self.k, self.v, self.o = (take("self_attn." + p + "_proj") for p in "qkvo")
        self.gate, self.up, self.down = (take("mlp." + p + "_proj") for p in ("gate", "up", "down"))


def rms_norm(x, gain):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * gain


def rotated(x, cosine, sine):
    """`x` [batch, heads, length, head width]; the tables [.., length, half of it]."""
    low, high = x.chunk(2, -1)
    return torch.cat((low * cosine - high * sine, high * cosine + low * sine), -1)


class Model(torch.nn.Module):
    def __init__(self, weights, positions):
        super().__init__()
        self.embedding = torch.nn.Parameter(weights["model.embed_tokens.weight"].clone())
        count = sum(name.endswith("input_layernorm.weight") for name in weights)
        self.layers = torch.nn.ModuleList(Layer(weights, f"model.layers.{i}.") for i in range(count))
        self.norm = torch.nn.Parameter(weights["model.norm.weight"].clone())
        self.head = torch.nn.Parameter(weights["lm_head.weight"].clone())
        half = self.embedding.shape[1] // HEADS // 2
        angles = torch.arange(positions)[:, None] * BASE ** (-torch.arange(half) / half)
        self.cosine, self.sine = angles.cos(), angles.sin()

    def split(self, x):
        return x.view(x.shape[0], -1, HEADS, x.shape[-1] // HEADS).transpose(1, 2)

    def block(self, layer, x, cosine, sine, mask, cached):
        """`cached(k, v)`: the keys and values to look at."""
        h = rms_norm(x, layer.norm1)
        q, k, v = (self.split(F.linear(h, w)) for w in (layer.q, layer.k, layer.v))
        q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
        k, v = cached(k, v)
        p = ((q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1]) + mask).softmax(-1)
        x = x + F.linear((p @ v).transpose(1, 2).reshape(x.shape), layer.o)
        h = rms_norm(x, layer.norm2)
        return x + F.linear(F.silu(F.linear(h, layer.gate)) * F.linear(h, layer.up), layer.down)

    def forward(self, ids, keep=None):
        """Hidden states of right-padded `ids`; `keep(layer, k, v)` may look at keys and values."""
        length = ids.shape[1]
        mask = torch.full((length, length), -math.inf).triu(1)
        x = F.embedding(ids, self.embedding)
        for i, layer in enumerate(self.layers):
            def cached(k, v):
                if keep:
                    keep(i, k, v)
                return k, v
            x = self.block(layer, x, self.cosine[:length], self.sine[:length], mask, cached)
        return rms_norm(x, self.norm)

    @torch.no_grad()
    def write(self, ids, lengths, count, temperature, given=None):
        """Replies of `count` tokens to right-padded prompts, and their log-probabilities; those of `given`, where there are any."""
        texts, longest = ids.shape
        room, every = longest + count, torch.arange(texts)
        shape = (len(self.layers), texts, HEADS, room, self.embedding.shape[1] // HEADS)
        keys, values = torch.zeros(shape), torch.zeros(shape)

        def keep(i, k, v):
            keys[i, :, :, :longest], values[i, :, :, :longest] = k, v
        hidden = self.forward(ids, keep)[every, lengths - 1]
        at, tokens, logp = lengths.clone(), [], []
        for t in range(count):
            p = F.log_softmax(F.linear(hidden, self.head) / temperature, -1)
            token = given[:, t] if given is not None else torch.multinomial(p.exp(), 1).squeeze(1)
            tokens.append(token)
            logp.append(p.gather(1, token[:, None]).squeeze(1))
            if t + 1 == count:
                break
            seen = int(at.max()) + 1
            mask = torch.where(torch.arange(seen) <= at[:, None], 0.0, -math.inf)[:, None, None]
            cosine, sine = self.cosine[at][:, None, None], self.sine[at][:, None, None]
            x = F.embedding(token, self.embedding)[:, None]
            for i, layer in enumerate(self.layers):
                def cached(k, v):
                    keys[i, every, :, at], values[i, every, :, at] = k[:, :, 0], v[:, :, 0]
                    return keys[i, :, :, :seen], values[i, :, :, :seen]
                x = self.block(layer, x, cosine, sine, mask, cached)
            hidden = rms_norm(x[:, 0], self.norm)
            at = at + 1
        return torch.stack(tokens, 1), torch.stack(logp, 1)


def batch(i):
    size = (ctypes.c_int64 * 4)()
    library.plumb_lab_batch(ctypes.c_int64(i), size, None, None, None)
    texts, length, scored, tokens = size
    ids, rows, targets = ints(texts, length), ints(scored), ints(scored)
    library.plumb_lab_batch(ctypes.c_int64(i), size, address(ids), address(rows), address(targets))
    return ids.long(), rows.long(), targets.long(), tokens


rows = []


def row(name, tokens, ours, theirs):
    mine, peer = median_ms([ours, theirs], least=15, seconds=4.0)
    rows.append({"name": name, "plumb_ms": mine, "torch_ms": peer, "ratio": peer / mine, "plumb_tokens": 1e3 * tokens / mine,
                 "torch_tokens": 1e3 * tokens / peer})
    print(f"{name:46} plumb {1e3 * tokens / mine:9.0f} tokens/s   torch {1e3 * tokens / peer:9.0f} tokens/s   x {peer / mine:.2f}", flush=True)


def agree(what, a, b):
    if not abs(a - b) <= 1e-4 * max(1.0, abs(b)):
        sys.exit(f"{what}: {a} here, {b} with PyTorch")


batches = [batch(i) for i in range(8)]
prompts, count = library.plumb_lab_prompts(), library.plumb_lab_written()
lengths = torch.tensor([library.plumb_lab_prompt(ctypes.c_int64(i), None) for i in range(prompts)])
ids = ints(prompts, int(lengths.max()))
for i in range(prompts):
    library.plumb_lab_prompt(ctypes.c_int64(i), address(ids[i]))
ids = ids.long()
model = Model(our_weights(), int(lengths.max()) + count + 80)
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)


def train_ours(i):
    return library.plumb_lab_train(ctypes.c_int64(i), ctypes.c_double(RATE))


def train_theirs(i):
    x, scored, targets, _ = batches[i]
    optimizer.zero_grad()
    hidden = model(x).reshape(-1, model.embedding.shape[1])[scored]
    loss = F.cross_entropy(F.linear(hidden, model.head), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def write_ours(seed, tokens, logp):
    library.plumb_lab_write(ctypes.c_double(1.0), ctypes.c_int64(seed), address(tokens), address(logp))


print(f"PyTorch {torch.__version__} on {blas()}, {torch.get_num_threads()} threads")
for i in range(len(batches)):  # weights, gradients and the optimiser: each loss looks at the step before
    agree(f"loss of step {i}", train_ours(i), train_theirs(i))
tokens, logp = ints(prompts, count), torch.empty(prompts, count)
write_ours(1, tokens, logp)
# Both have trained apart for a few steps: a step's rounding grows, so log-probabilities are looked at one by one with a little more room.
difference = (model.write(ids, lengths, count, 1.0, tokens.long())[1] - logp).abs().max().item()
if not difference < 1e-3:
    sys.exit(f"log-probabilities of the same replies differ from PyTorch's by {difference:.2g}")

step = [0, 0]


def in_turn(which, train):
    train(step[which] % len(batches))
    step[which] += 1


mean = sum(b[3] for b in batches) / len(batches)
row(f"training step, {batches[0][0].shape[0]} texts of {mean / batches[0][0].shape[0]:.0f} tokens", mean,
    lambda: in_turn(0, train_ours), lambda: in_turn(1, train_theirs))
row(f"replies of {count} tokens to {prompts} prompts", prompts * count, lambda: write_ours(2, tokens, logp),
    lambda: model.write(ids, lengths, count, 1.0))
if len(sys.argv) > 2:
    with open(sys.argv[2], "w") as f:
        json.dump({"torch": torch.__version__, "blas": blas(), "threads": torch.get_num_threads(), "what": "the lab's transformer", "rows": rows}, f,
                  indent=2)
