#!/usr/bin/env python3
"""What ./dev bench measured, as a page: tables.py FOLDER TITLE > bench/results/NAME.md      FOLDER: out/bench"""
import json
import pathlib
import sys

folder, title = pathlib.Path(sys.argv[1]), sys.argv[2]
OWN = {"name", "run_name", "run_type", "repetitions", "repetition_index", "threads", "iterations", "real_time", "cpu_time", "time_unit",
       "family_index", "per_family_instance_index"}


def short(x):
    return f"{x:.3g}" if x < 1000 else f"{x:,.0f}"


def table(heading, columns, rows):
    print(f"\n## {heading}\n\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")


print(f"# {title}\n\nMade with `./dev bench`. Counters that begin with \"x\" are ratios against the peer that they name, measured in the same run on the same\n"
      "inputs: above 1, plumb is faster.")
for path in sorted(folder.glob("*.json")):
    measured = json.loads(path.read_text())
    if "benchmarks" in measured:
        counters = list(dict.fromkeys(k for b in measured["benchmarks"] for k in b if k not in OWN))
        rows = [[b["name"].replace("/real_time", "").split("/min_time")[0], f"{short(b['real_time'])} {b['time_unit']}"] +
                [short(b[k]) if k in b else "" for k in counters] for b in measured["benchmarks"]]
        table(path.stem, ["row", "time", *counters], rows)
    elif "torch" in measured:
        more = [c for c in ("plumb_tokens", "torch_tokens") if c in measured["rows"][0]]
        table(f"PyTorch {measured['torch']}, {measured['threads']} thread(s)" + (f", {measured['what']}" if "what" in measured else ""),
              ["row", "plumb, ms", "PyTorch, ms", "x PyTorch", *(c.replace("_tokens", ", tokens/s") for c in more)],
              [[r["name"], *(short(r[c]) for c in ("plumb_ms", "torch_ms", "ratio", *more))] for r in measured["rows"]])
    else:
        table(f"compile time, {measured['compiler']}", ["header", "seconds", "ratio", "MiB", "ratio"],
              [[f"`{r['name']}`", *(short(r[k]) for k in ("seconds", "seconds_ratio", "mebibytes", "mebibytes_ratio"))] for r in measured["rows"]])
