#!/usr/bin/env bash
# A run of the lab that is killed again and again ends with the same summary as one that was not, and does no finished stage twice.
# usage: resume.sh PROGRAM FOLDER [FLAG...]     how often: KILLS (default 10), seconds before the first: STEP (default 0.4; then more and more)
set -euo pipefail
program=$1 folder=$2
shift 2
rm -rf "$folder"
mkdir -p "$folder"

fail() { echo "$1"; exit 1; }
figures() { grep -v '"seconds"' "$1/summary.json"; }
# same WHAT: after another run in cut/, what it said goes to again.txt and its figures are those of the run that was not cut off.
same() {
  "$program" "$@" --out "$folder/cut" >"$folder/again.txt"
  diff <(figures "$folder/whole") <(figures "$folder/cut") || fail "the summaries differ"
}
done_before() { grep -c 'done before' "$folder/again.txt" || true; }

"$program" "$@" --out "$folder/whole" >"$folder/whole.txt"
killed=0
for ((i = 1; i <= ${KILLS:-10}; ++i)); do
  delay=$(awk -v i="$i" -v step="${STEP:-0.4}" -v seed="$RANDOM" 'BEGIN { srand(seed); print step * i * (0.5 + rand()) }')
  timeout --signal=KILL "$delay" "$program" "$@" --out "$folder/cut" >"$folder/cut_$i.txt" 2>&1 || { [ $? -ne 137 ] || killed=$((killed + 1)); }
done
[ "$killed" -ge 1 ] || fail "no kill came before the end"
same "$@"
grep -q '"name"' "$folder/whole/summary.json" || fail "the summary has no figures"
grep -q '</html>' "$folder/cut/report.html" || fail "the report is not whole"
same "$@"
stages=$(done_before)
[ "$stages" -gt 0 ] && ! grep -q ' step ' "$folder/again.txt" || fail "a finished stage was done again"

# Cut off between a stage's file and run.json, a file cut short, a file gone: that stage alone is done again.
seed=$folder/cut/seed-1 name=sft  # others stand on it
model=$seed/$name.safetensors
grep -q "^    \"$name\": {" "$seed/run.json" || fail "run.json does not list $name"
sed -i "s/^    \"$name\": {/    \"$name again\": {/" "$seed/run.json"  # as it was before $name was done, but for a stage that nobody asks for
same "$@"
[ "$(done_before)" -eq $((stages - 1)) ] || fail "$name alone was to be done again: $(done_before) of $stages stages were read back"
head -c 1000 "$model" >"$folder/short" && cp "$folder/short" "$model"
same "$@"
[ "$(done_before)" -eq $((stages - 1)) ] || fail "a file cut short: $(done_before) of $stages stages were read back"
grep -q "$name.safetensors: is not what was written there" "$folder/again.txt" || fail "the damaged file is not named"
rm "$model"
same "$@"
[ "$(done_before)" -eq $((stages - 1)) ] || fail "a file gone: $(done_before) of $stages stages were read back"
same "$@"
[ "$(done_before)" -eq "$stages" ] || fail "what was mended is not kept"

# Two at once: the second one says so, and harms nothing.
if [ -x "$(command -v flock)" ]; then
  if flock "$folder/cut/.lock" "$program" "$@" --out "$folder/cut" >"$folder/two.txt" 2>&1; then fail "two runs shared a folder"; fi
  grep -q 'another run is at work in' "$folder/two.txt" || fail "two runs in a folder: $(cat "$folder/two.txt")"
fi
echo "killed $killed times: the same summary; $stages stages read back; damaged ones mended"
