# Sourced by drpo.sh and steerlm.sh. `begin CLAIM PROGRAM FOLDER` runs `plumb_claims CLAIM --quick` on two threads; `killed_and_resumed DAMAGED DELAY...` kills
# it on one thread after each delay: it ends with the same figures, no finished run is done twice, and a damaged file costs its own run.

fail() { echo "$1"; exit 1; }
figures() { grep -v -e '"seconds"' -e '"threads"' "$1/summary.json"; }
has() { local figure; for figure; do grep -q "\"$figure\"" "$folder/whole/summary.json" || fail "summary.json lacks $figure"; done; }
run() { "$program" "$claim" --quick --threads "$1" --out "$folder/$2"; }
same() {
  run 1 cut >"$folder/again.txt"
  diff <(figures "$folder/whole") <(figures "$folder/cut") || fail "the summaries differ"
}

begin() {
  claim=$1 program=$2 folder=$3
  rm -rf "$folder"
  mkdir -p "$folder"
  run 2 whole >"$folder/whole.txt"
  grep -q '</html>' "$folder/whole/report.html" || fail "the report is not whole"
}

killed_and_resumed() {
  local damaged=$1 killed=0 delay runs
  shift
  for delay; do
    timeout --signal=KILL "$delay" "$program" "$claim" --quick --threads 1 --out "$folder/cut" >"$folder/cut_$delay.txt" 2>&1 ||
      { [ $? -ne 137 ] || killed=$((killed + 1)); }
  done
  [ "$killed" -ge 1 ] || fail "no kill came before the end"
  same
  same
  runs=$(sed -n 's/^\([0-9]*\) of \([0-9]*\) runs were done before$/\1 \2/p' "$folder/again.txt")
  [ -n "$runs" ] && [ "${runs% *}" = "${runs#* }" ] || fail "a finished run was done again: $runs"
  [ -s "$folder/cut/runs/$damaged" ] || fail "there is no runs/$damaged"
  echo '{' >"$folder/cut/runs/$damaged"
  same
  grep -q "^$((${runs% *} - 1)) of ${runs#* } runs were done before$" "$folder/again.txt" || fail "$(grep 'done before' "$folder/again.txt")"
  echo "killed $killed times: the same summary; $runs runs read back"
}
