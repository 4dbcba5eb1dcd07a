#!/usr/bin/env bash
# The lab on preference files: good, damaged, absent.
# usage: preference_file.sh PROGRAM FOLDER
set -euo pipefail
program=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder"

fail() { echo "$1"; exit 1; }
# says WHAT FLAG...: the program ends with an error, and its last words hold WHAT.
says() {
  local what=$1 said
  shift
  if said=$("$program" "$@" --quick --out "$folder/out" 2>&1); then fail "no error for: $*"; fi
  grep -qF -- "$what" <<<"$said" || fail "expected \"$what\", but it said: $said"
}

# Polite replies are preferred to short ones.
awk 'BEGIN {
  split("red green blue white black brown pink gray", color, " ")
  for (i = 0; i < 60; ++i)
    printf "{\"chosen\": \"\\n\\nHuman: what color is lamp %d?\\n\\nAssistant: It is %s, I am glad to say.\", \"rejected\": \"\\n\\nHuman: what color is lamp %d?\\n\\nAssistant: %s\"}\n",
           i, color[1 + i % 8], i, color[1 + (i + 3) % 8]
}' | gzip >"$folder/pairs.jsonl.gz"

"$program" --data "$folder/pairs.jsonl.gz" --quick --backend serial --out "$folder/out" >"$folder/said.txt" || fail "it did not run: $(tail -3 "$folder/said.txt")"
grep -q '60 records, 0 dropped, 0 errors' "$folder/said.txt" || fail "the summary of what was read is missing"
grep -q '60 pairs of 60 conversations: 48 to train on, 12 held out' "$folder/said.txt" || fail "the pairs are not split as they should be"
for name in accuracy/reward_model accuracy/dpo accuracy/baseline_longer accuracy/baseline_shorter accuracy/baseline_unigram \
  accuracy/reward_model_minus_best_baseline learning_curve/pairs=24; do
  grep -q "\"$name\"" "$folder/out/summary.json" || fail "summary.json lacks $name"
done
grep -A1 '"accuracy/baseline_longer"' "$folder/out/summary.json" | grep -q '"value": 1.0' || fail "the longer reply wins in every pair of this file"
grep -q 'right, and surest' "$folder/out/report.html" || fail "the report shows no pairs"
[ -s "$folder/out/seed-1/tokenizer.json" ] || fail "there is no tokenizer.json"

says 'cannot be opened' --data "$folder/none.jsonl"
echo '{"prompt": "a"}' >"$folder/keys.jsonl"
says 'keys.jsonl' --data "$folder/keys.jsonl"
zcat "$folder/pairs.jsonl.gz" | head -5 >"$folder/few.jsonl"
says '5 pairs are too few' --data "$folder/few.jsonl"
says '--only goes with the lab' --data "$folder/pairs.jsonl.gz" --only dpo
# What cannot be read is counted, and the rest is used.
{ zcat "$folder/pairs.jsonl.gz"; echo '{"chosen": 3}'; echo 'not json'; } >"$folder/some.jsonl"
"$program" --data "$folder/some.jsonl" --quick --fresh --backend serial --out "$folder/out" >"$folder/said.txt"
grep -q '60 records, 0 dropped, 2 errors' "$folder/said.txt" || fail "errors are not counted: $(head -5 "$folder/said.txt")"
echo "preference files: read, learned from, and refused in words"
