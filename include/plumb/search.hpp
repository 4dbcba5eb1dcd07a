#pragma once
// Searches over a language model of the host's, with its weights as they are; plumb.hpp is for those who train. Includes no third party.

#include <plumb/model/language_model.hpp>        // what a search asks of an engine, a judge, an embedder
#include <plumb/search/decoding.hpp>             // greedy decoding, sampling
#include <plumb/search/best_of_n.hpp>            // the reply that a judge or a reward model likes best
#include <plumb/search/blockwise_best_of_n.hpp>  // the same, block by block
#include <plumb/search/rain.hpp>                 // RAIN: search, self-evaluation, rewind
#include <plumb/search/prompted_evaluator.hpp>   // a language model as the judge
#include <plumb/search/judge_prompts.hpp>        // what it is asked
#include <plumb/search/reward_evaluator.hpp>     // a reward model as the judge
#include <plumb/search/boundaries.hpp>           // where a rollout may stop, by text
#include <plumb/search/embedders.hpp>            // what texts are like
#include <plumb/search/rain_dump.hpp>            // a search as JSON and DOT
