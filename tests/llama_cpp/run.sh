#!/usr/bin/env bash
# The adapter of llama.cpp against the real library, which Debian has from testing on: makes a root of its own with debootstrap, installs libllama-dev
# and a compiler there, builds main.cpp and the program of docs/interop/llama_cpp.md, and runs them. Wants root, Debian's mirror, 1 GB of disk and
# a few minutes.
# usage: run.sh [ROOT [CHECKPOINT.safetensors]]      ROOT: build/llama of this tree; the checkpoint: of the lab's own size
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
root=$(realpath -m "${1:-$tree/build/llama}") checkpoint=${2:-}
say() { printf '[%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }
[ "$(id -u)" -eq 0 ] || { say "this wants root: debootstrap and chroot do"; exit 1; }

# What a step prints is shown where it fails.
quietly() {
  local log=$root.log rc=0
  say "$1"
  "${@:2}" >"$log" 2>&1 </dev/null || rc=$?
  [ $rc -eq 0 ] || { tail -n 40 "$log"; say "failed: $1 (all of it in $log)"; exit $rc; }
}
in_root() { chroot "$root" /usr/bin/env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }

if [ ! -d "$root" ]; then
  command -v debootstrap >/dev/null || quietly "installing debootstrap" apt-get install -y --no-install-recommends debootstrap
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 '/debian/*$') ||
    mirror=http://deb.debian.org/debian
  mkdir -p "$(dirname "$root")"
  rm -rf "$root.part"
  quietly "making a root of Debian testing from $mirror" debootstrap --variant=minbase testing "$root.part" "$mirror"
  mv "$root.part" "$root"
fi
unmount_proc() { ! mountpoint -q "$root/proc" || umount "$root/proc"; }
if ! mountpoint -q "$root/proc"; then
  trap unmount_proc EXIT
  mount -t proc proc "$root/proc" || say "no /proc in the root: going on without"
fi
packages=(g++ libllama-dev libggml-dev nlohmann-json3-dev)
if ! in_root dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -c '^installed$' | grep -qx ${#packages[@]}; then
  echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/90plumb"
  quietly "reading testing's lists of packages" in_root apt-get update
  quietly "installing ${packages[*]}" in_root apt-get install -y --no-install-recommends "${packages[@]}"
fi
say "$(in_root dpkg-query -W -f '${Package} ${Version}, ' libllama-dev libggml-dev g++)built with $(in_root g++ -dumpfullversion)"

rm -rf "$root/plumb"
mkdir -p "$root/plumb/out"
cp -a "$tree/include" "$tree/examples" "$tree/tests" "$root/plumb/"
awk '/^```cpp/ { inside = 1; next } /^```/ { inside = 0 } inside' "$tree/docs/interop/llama_cpp.md" >"$root/plumb/out/documented.cpp"
[ -z "$checkpoint" ] || cp "$checkpoint" "$root/plumb/out/checkpoint.safetensors"
# Compiled about as long as it runs; no warnings, since testing's compiler is a new one every few months.
flags=(-std=c++20 -O1 -ftree-vectorize -finline-functions -I/plumb/include -I/plumb/examples -I/plumb/tests)
libraries=(-lllama -lggml -lggml-base)
quietly "building tests/llama_cpp/main.cpp" in_root g++ "${flags[@]}" /plumb/tests/llama_cpp/main.cpp -o /plumb/out/llama_cpp "${libraries[@]}"
quietly "building the program of docs/interop/llama_cpp.md" \
  in_root g++ "${flags[@]}" /plumb/out/documented.cpp -o /plumb/out/documented "${libraries[@]}"
say "running"
rc=0
in_root /plumb/out/llama_cpp /plumb/out ${checkpoint:+/plumb/out/checkpoint.safetensors} >"$root.tests" || rc=$?
cat "$root.tests"
[ $rc -eq 0 ] || exit $rc
prompt="<bos> the lamp is green . ann likes tea . what color is the lamp ? <reply>"
quietly "running the documented program" in_root /plumb/out/documented /plumb/out/lab.gguf "$prompt"
tail -n 1 "$root.log"
tail -n 1 "$root.tests"
