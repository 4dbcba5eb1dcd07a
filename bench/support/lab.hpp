#pragma once
// The lab's transformer at work, as `./dev demo` has it: training steps on batches of its world, and replies written with a KV cache.

#include "support/backends.hpp"

#include "lab/models.hpp"

namespace plumb_bench {

template <class Row>
struct lab_at_work {
  using backend = decltype(Row::backend);
  static constexpr std::size_t texts = 32, prompts = 128;
  static constexpr plumb::index_t written = 24;  ///< tokens of each reply

  Row row;
  lab::workspace memory{std::size_t{1} << 30};
  lab::transformer<backend> model{{.vocabulary = static_cast<plumb::index_t>(lab::words().size())}, 1};
  lab::trainer<backend> learner{row.backend, memory, model};
  std::vector<lab::batch> batches{};
  std::vector<plumb::start> starts{};

  lab_at_work() {
    lab::world_random random(1, 1);
    for (int i = 0; i < 8; ++i) {
      std::vector<lab::sample> samples;
      for (std::size_t t = 0; t < texts; ++t) {
        const lab::prompt p = lab::draw_prompt(random, false);
        samples.push_back(lab::joined(p.text, lab::write_reply(p, lab::demonstration_writer, random)));
        samples.back().prompt_length = 1;  // everything but the first token is scored, as in pretraining
      }
      batches.emplace_back(samples);
    }
    for (std::size_t i = 0; i < prompts; ++i) {
      const lab::prompt p = lab::draw_prompt(random, false);
      starts.push_back({.tokens = p.text, .prompt_tokens = static_cast<plumb::index_t>(p.text.size())});
    }
  }

  /// Forward, backward, AdamW; the loss before it.
  double train(std::size_t which, double rate) { return learner.supervised(batches[which % batches.size()], rate).loss; }
  /// Replies of one length: an untrained model's would end anywhere.
  plumb::rollouts<plumb::real_of<backend>> write(double temperature, std::uint64_t seed) {
    return lab::write(row.backend, memory, model, std::span<const plumb::start>(starts),
                      {.temperature = temperature, .max_new_tokens = written, .seed = seed});
  }
};

}  // namespace plumb_bench
