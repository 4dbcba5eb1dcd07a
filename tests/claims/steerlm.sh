#!/usr/bin/env bash
# `plumb_claims steerlm --quick`: what it says, and that it may be killed; see killed.sh.
# usage: steerlm.sh PROGRAM FOLDER
set -euo pipefail
. "$(dirname "$0")/killed.sh"
begin steerlm "$1" "$2"
has steerlm2/kl_drop steerlm2/kl_drop_min steerlm2/entropy_gap control/more_labels/kl_drop control/bootstrap/kl_drop \
  ablation/paper_sampling/kl_drop steerlm1/kl steerlm2/iteration_2/kl target/entropy \
  reward/40/regression_minus_bt reward/40/strength_minus_bt reward/strength_minus_bt reward/80/correlation_gap
# Two seeds decide nothing.
grep -q "SteerLM 2.0's claim is not decided over 2 seeds: intervals need three" "$folder/whole.txt" || fail "there is no verdict"
grep -q "The table of reward models is not decided over 2 seeds" "$folder/whole.txt" || fail "there is no verdict on reward models"

killed_and_resumed seed-1000-chain.json 0.2 0.4 0.8 1.2 1.6
