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
  if said=$("$program" "$@" --quick --out "$folder/refused" 2>&1); then fail "no error for: $*"; fi
  grep -qF -- "$what" <<<"$said" || fail "expected \"$what\", but it said: $said"
  [ ! -e "$folder/refused" ] || [ -z "$(ls "$folder/refused")" ] || rm -r "$folder/refused"
}
# learns FILE FLAG...: a quick run on it; what it said is in said.txt.
learns() {
  "$program" --data "$@" --quick --fresh --backend serial --out "$folder/out" >"$folder/said.txt" 2>&1 || fail "it did not run on $*: $(tail -3 "$folder/said.txt")"
}
said() { grep -qF -- "$1" "$folder/said.txt" || fail "expected \"$1\", but it said: $(head -8 "$folder/said.txt")"; }

bash "$(dirname "$0")/pairs.sh" | gzip >"$folder/pairs.jsonl.gz"
learns "$folder/pairs.jsonl.gz"
said '60 records, 0 dropped, 0 errors'
said '60 pairs of 60 conversations: 48 to train on, 12 held out ('
said 'So few held-out conversations tell little'
said 'All labels instead of an eighth of them change its accuracy by'
said 'a coin'
for name in accuracy/reward_model accuracy/dpo accuracy/baseline_longer accuracy/baseline_shorter accuracy/baseline_unigram \
  gain/over_longer gain/over_unigram gain/from_labels learning_curve/percent=50; do
  grep -q "\"$name\"" "$folder/out/summary.json" || fail "summary.json lacks $name"
done
grep -A1 '"accuracy/baseline_longer"' "$folder/out/summary.json" | grep -q '"value": 1.0' || fail "the longer reply wins in every pair of this file"
grep -q ', and surest: the reward model scores the chosen reply' "$folder/out/report.html" || fail "the report shows no pairs"
[ -s "$folder/out/seed-1/tokenizer.json" ] || fail "there is no tokenizer.json"

says 'cannot be opened' --data "$folder/none.jsonl"
echo '{"prompt": "a"}' >"$folder/keys.jsonl"
says 'keys.jsonl:1: the keys fit no format' --data "$folder/keys.jsonl"
{ echo '['; zcat "$folder/pairs.jsonl.gz" | sed 's/$/,/'; echo ']'; } >"$folder/list.jsonl"
says 'the file is one list' --data "$folder/list.jsonl"
: >"$folder/empty.jsonl"
says 'holds no preference pairs' --data "$folder/empty.jsonl"
zcat "$folder/pairs.jsonl.gz" | head -5 >"$folder/few.jsonl"
says '5 pairs are too few' --data "$folder/few.jsonl"
cp -r "$folder/out" "$folder/kept"
if "$program" --data "$folder/few.jsonl" --quick --backend serial --out "$folder/kept" >/dev/null 2>&1; then fail "five pairs were enough"; fi
diff -r "$folder/out" "$folder/kept" || fail "a file that cannot be used cost a finished run"
says 'no regular file' --data <(zcat "$folder/pairs.jsonl.gz")
says '--only goes with the lab' --data "$folder/pairs.jsonl.gz" --only dpo
sed 's/lamp [0-9]*/lamp/g' <(zcat "$folder/pairs.jsonl.gz") >"$folder/one.jsonl"
says 'its 60 pairs are of 1 conversation, too few' --data "$folder/one.jsonl"
# What cannot be read is counted, at the beginning too, and the rest is used.
{ echo '{"chosen": 3}'; zcat "$folder/pairs.jsonl.gz"; echo 'not json'; } >"$folder/some.jsonl"
learns "$folder/some.jsonl"
said '60 records, 0 dropped, 2 errors'
{ zcat "$folder/pairs.jsonl.gz"; seq 20; } >"$folder/bad.jsonl"
learns "$folder/bad.jsonl"
said 'Beware: 20 of 80 lines could not be read'
# A sample is drawn by the seed, and from all of the file.
learns "$folder/pairs.jsonl.gz" --pairs 30 --seeds 1,2
said 'A sample of 30 pairs, drawn by the seed, is used'
[ "$(grep -c '60 records' "$folder/said.txt")" -eq 1 ] || fail "the file is summed up more than once"
said 'Seed 2: The reward model'
# Conversations that open alike are on one side: thirty openings of two pairs each, which go on in two ways.
zcat "$folder/pairs.jsonl.gz" | awk '{
  n = NR - 1; gsub(/lamp [0-9]+\?/, "lamp " int(n / 2) "?\\n\\nAssistant: Which one?\\n\\nHuman: The one on the " (n % 2 ? "left" : "right") "."); print }' >"$folder/opened.jsonl"
learns "$folder/opened.jsonl"
said '60 pairs of 30 conversations: 48 to train on, 12 held out ('
# The same of chats, whose system turn tells nothing apart.
for i in $(seq 0 29); do
  start="{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"lamp $((i / 3)) ?\"}"
  [ $((i % 3)) -eq 0 ] || start="$start, {\"role\": \"assistant\", \"content\": \"Which?\"}, {\"role\": \"user\", \"content\": \"number $((i % 3))\"}"
  echo "{\"prompt\": [$start], \"chosen\": [{\"role\": \"assistant\", \"content\": \"It is red.\"}], \"rejected\": [{\"role\": \"assistant\", \"content\": \"no\"}]}"
done >"$folder/chats.jsonl"
learns "$folder/chats.jsonl"
said '30 pairs of 10 conversations: 24 to train on, 6 held out'
# The same file by another path is the same run.
cp "$folder/chats.jsonl" "$folder/renamed.jsonl"
"$program" --data "$folder/renamed.jsonl" --quick --backend serial --out "$folder/out" >"$folder/said.txt"
said 'done before'
echo "preference files: read, learned from, and refused in words"
