#!/usr/bin/env bash
# Compiles and runs every complete C++ block of the documentation, and compares what it prints with the block after it.
# usage: [LIBRARIES="-lNAME ..."] run_snippets.sh COMPILER INCLUDE_DIR FILE.md...
set -u
compiler=$1 include=$2
shift 2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
count=0 failed=0
for page in "$@"; do
  rm -f "$scratch"/*
  # Blocks are numbered; a block without a language right after a program is what the program prints.
  awk -v dir="$scratch" '
    /^```/ && !inside { inside = 1; kind = substr($0, 4); n++; file = sprintf("%s/%03d.%s", dir, n, kind == "cpp" ? "cpp" : kind == "" ? "out" : "other"); printf "" > file; next }
    /^```/ && inside { inside = 0; close(file); next }
    inside { print > file }' "$page"
  for program in "$scratch"/*.cpp; do
    [ -e "$program" ] || continue
    grep -q 'int main' "$program" || continue
    count=$((count + 1))
    number=$(basename "$program" .cpp)
    expected=$scratch/$(printf '%03d' $((10#$number + 1))).out
    if ! "$compiler" -std=c++20 -Wall -Wextra -Werror -I "$include" "$program" -o "$scratch/program" ${LIBRARIES:-} 2>"$scratch/errors"; then
      echo "$page: block $number does not compile:"
      head -20 "$scratch/errors"
      failed=$((failed + 1))
    elif ! "$scratch/program" >"$scratch/printed"; then
      echo "$page: block $number ends with an error"
      failed=$((failed + 1))
    elif [ -e "$expected" ] && ! diff "$expected" "$scratch/printed"; then
      echo "$page: block $number prints something else (< documented, > printed)"
      failed=$((failed + 1))
    fi
  done
done
echo "$count documented programs, $failed failed"
[ "$count" -gt 0 ] && [ "$failed" -eq 0 ]
