#pragma once
// plumb: the catalogue. One line each; no third party.

#include <plumb/version.hpp>
#include <plumb/config.hpp>

#include <plumb/core/arena.hpp>    // scratch memory of the caller's
#include <plumb/core/as_view.hpp>  // spans, mdspans, xtensors, DLPack tensors as views
#include <plumb/core/layout.hpp>   // sequences and pairs in flat arrays
#include <plumb/core/random.hpp>   // counter-based random numbers
#include <plumb/core/scored.hpp>   // scored tokens from a mask

#include <plumb/compute/backend.hpp>  // what a backend provides
#include <plumb/backends/serial.hpp>  // the default backend

#include <plumb/ops/token_logp.hpp>         // log-probs, log-sum-exp, entropy from logits, and back
#include <plumb/ops/linear_token_logp.hpp>  // the same from hidden states, logits never stored

#include <plumb/objectives/attribute_regression.hpp>  // HelpSteer2 reward models, goal weights
#include <plumb/objectives/bradley_terry.hpp>         // reward models from pairs: plain, margin, scaled, centred
#include <plumb/objectives/dpo.hpp>                   // DPO, conservative DPO, reference-free
#include <plumb/objectives/supervised.hpp>            // supervised fine-tuning with completion masks
