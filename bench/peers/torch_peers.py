#!/usr/bin/env python3
"""plumb on the oneDNN backend beside PyTorch's autograd: same tensors, same threads, one process, in turn.

torch_peers.py LIBRARY [OUTPUT.json]      LIBRARY: libplumb_peer_calls.so of the build

Prints, for each row, median milliseconds of both and the ratio (above 1: plumb is faster); first of all it checks that both
computed the same loss and gradient.
"""
import ctypes
import json
import sys

import torch
import torch.nn.functional as F

from timing import blas, median_ms

library = ctypes.CDLL(sys.argv[1])
torch.manual_seed(1)


def call(name, *arguments):
    """Calls a C function with tensors (by address) and integers."""
    getattr(library, name)(*[ctypes.c_void_p(a.data_ptr()) if torch.is_tensor(a) else ctypes.c_int64(a) for a in arguments])


rows = []


def row(name, ours, theirs, pairs):
    """`pairs`: (ours, theirs) results that must agree."""
    ours()
    theirs()
    for what, (a, b) in pairs().items():
        error = (a - b).abs().max().item() / max(b.abs().max().item(), 1e-30)
        if not error < 2e-4:
            sys.exit(f"{name}: {what} differs from PyTorch's by {error:.2g}")
    mine, peer = median_ms([ours, theirs])
    rows.append({"name": name, "plumb_ms": mine, "torch_ms": peer, "ratio": peer / mine})
    print(f"{name:44} plumb {mine:9.3f} ms   torch {peer:9.3f} ms   x {peer / mine:.2f}", flush=True)


def token_logp(n, v):
    logits, targets = 3 * torch.randn(n, v), torch.randint(v, (n,))
    ids = targets.int()
    logp, lse, d_logp, d_logits = torch.empty(n), torch.empty(n), -torch.ones(n), torch.empty(n, v)
    x = logits.clone().requires_grad_()
    result = {}

    def theirs():
        x.grad = None
        result["logp"] = F.log_softmax(x, -1).gather(1, targets[:, None]).squeeze(1)
        (-result["logp"].sum()).backward()

    row(f"token_logp {n} x {v}", lambda: call("plumb_token_logp", logits, ids, n, v, logp, lse, d_logp, d_logits), theirs,
        lambda: {"logp": (logp, result["logp"].detach()), "gradient": (d_logits, x.grad)})


def linear_token_logp(n, d, v):
    hidden, head, targets = torch.randn(n, d), torch.randn(v, d) / d**0.5, torch.randint(v, (n,))
    ids = targets.int()
    logp, lse, d_logp, d_hidden, d_head = torch.empty(n), torch.empty(n), -torch.ones(n), torch.empty(n, d), torch.empty(v, d)
    h, w = hidden.clone().requires_grad_(), head.clone().requires_grad_()
    result = {}

    def theirs():
        h.grad = w.grad = None
        result["logp"] = F.log_softmax(h @ w.T, -1).gather(1, targets[:, None]).squeeze(1)
        (-result["logp"].sum()).backward()

    row(f"linear_token_logp {n} x {d} x {v}",
        lambda: call("plumb_linear_token_logp", hidden, head, ids, n, d, v, logp, lse, d_logp, d_hidden, d_head), theirs,
        lambda: {"logp": (logp, result["logp"].detach()), "d_hidden": (d_hidden, h.grad), "d_head": (d_head, w.grad)})


def dpo(pairs):
    sums = [-50 + 5 * torch.randn(pairs) for _ in range(4)]
    loss, d_chosen, d_rejected = torch.empty(1), torch.empty(pairs), torch.empty(pairs)
    c, r = sums[0].clone().requires_grad_(), sums[1].clone().requires_grad_()
    result = {}

    def theirs():
        c.grad = r.grad = None
        result["loss"] = -F.logsigmoid(0.1 * ((c - sums[2]) - (r - sums[3]))).mean()
        result["loss"].backward()

    row(f"dpo of {pairs} pairs", lambda: call("plumb_dpo", *sums, pairs, loss, d_chosen, d_rejected), theirs,
        lambda: {"loss": (loss, result["loss"].detach()), "gradient": (d_chosen, c.grad)})


def bradley_terry(pairs):
    chosen, rejected = torch.randn(pairs), torch.randn(pairs)
    loss, d_chosen, d_rejected = torch.empty(1), torch.empty(pairs), torch.empty(pairs)
    c, r = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
    result = {}

    def theirs():
        c.grad = r.grad = None
        result["loss"] = -F.logsigmoid(c - r).mean()
        result["loss"].backward()

    row(f"bradley_terry of {pairs} pairs", lambda: call("plumb_bradley_terry", chosen, rejected, pairs, loss, d_chosen, d_rejected), theirs,
        lambda: {"loss": (loss, result["loss"].detach()), "gradient": (d_chosen, c.grad)})


print(f"PyTorch {torch.__version__} on {blas()}, {torch.get_num_threads()} threads")
token_logp(512, 32000)
token_logp(2048, 1000)
linear_token_logp(512, 512, 32000)
dpo(64)
dpo(65536)
bradley_terry(64)
bradley_terry(65536)
if len(sys.argv) > 2:
    with open(sys.argv[2], "w") as f:
        json.dump({"torch": torch.__version__, "blas": blas(), "threads": torch.get_num_threads(), "rows": rows}, f, indent=2)
