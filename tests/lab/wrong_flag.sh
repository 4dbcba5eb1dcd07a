#!/usr/bin/env bash
# usage: wrong_flag.sh "COMMAND FLAG..." WHAT     it exits with 2 and says WHAT
said=$($1 2>&1)
rc=$?
[ $rc -eq 2 ] && grep -qF -- "$2" <<<"$said" || { echo "exit code $rc, and it said: $said"; exit 1; }
