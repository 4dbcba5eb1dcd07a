// Byte-pair encoding: learning 4096 tokens, encoding and decoding, in bytes of text a second on one core, beside a bare
// read of the text. The text is made here, with words as unequal in frequency as words are; PLUMB_BENCH_TEXT names a
// file to take instead.

#include "support/peer.hpp"

#include <plumb/core/random.hpp>
#include <plumb/data/bpe_trainer.hpp>
#include <plumb/data/byte_tokenizer.hpp>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace {

using namespace plumb_bench;
using namespace plumb::data;

/// Words of one to four syllables; word k is about as frequent as 1 / k (Zipf).
std::string made_text(std::size_t bytes) {
  const plumb::random_stream letters{1, 1}, draws{1, 2};
  std::vector<std::string> words(20000);
  std::uint64_t counter = 0;
  for (auto& word : words)
    for (std::uint64_t syllables = 1 + letters.below(4, counter++); syllables > 0; --syllables) {
      word += "bcdfghklmnprstvw"[letters.below(16, counter++)];
      word += "aeiou"[letters.below(5, counter++)];
    }
  std::string text;
  for (std::uint64_t i = 0; text.size() < bytes; ++i) {
    const double rank = std::pow(static_cast<double>(words.size()), draws.uniform(i));
    text += words[static_cast<std::size_t>(rank) - 1];
    text += i % 12 == 11 ? ".\n" : i % 7 == 6 ? ", " : " ";
  }
  return text;
}

const std::string& text() {
  static const std::string bytes = [] {
    const char* path = std::getenv("PLUMB_BENCH_TEXT");
    if (path == nullptr) return made_text(2500000);
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }();
  return bytes;
}

template <class F>
void run(benchmark::State& state, F f) {
  for (auto _ : state) f();
  count(state, "bytes/s", static_cast<double>(text().size()));
  compare(state, "bare read", seconds([] { bare_read(text().data(), text().size()); }));
}

template <class T>
void encode_row(benchmark::State& state, const T& tokenizer) {
  std::vector<std::int32_t> ids;
  run(state, [&] {
    ids.clear();
    tokenizer.encode(text(), ids);
    benchmark::DoNotOptimize(ids.data());
  });
  state.counters["bytes/token"] = static_cast<double>(text().size()) / static_cast<double>(ids.size());
}

template <class T>
void decode_row(benchmark::State& state, const T& tokenizer) {
  const auto ids = encode(tokenizer, text());
  std::string out;
  run(state, [&] {
    out.clear();
    tokenizer.decode(ids, out);
    benchmark::DoNotOptimize(out.data());
  });
}

bpe_tokenizer learned() { return train_bpe(std::array{std::string_view(text())}, {.vocabulary_size = 4096 + 256}); }

const int registered = [] {
  const auto add = [](const char* name, auto f) {
    benchmark::RegisterBenchmark(name, f)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  add("tokenizer/train_4096_merges",
      [](benchmark::State& s) { run(s, [] { benchmark::DoNotOptimize(learned().vocabulary_size()); }); });
  add("tokenizer/encode/bpe", [](benchmark::State& s) { encode_row(s, learned()); });
  add("tokenizer/encode/byte", [](benchmark::State& s) { encode_row(s, byte_tokenizer()); });
  add("tokenizer/decode/bpe", [](benchmark::State& s) { decode_row(s, learned()); });
  add("tokenizer/decode/byte", [](benchmark::State& s) { decode_row(s, byte_tokenizer()); });
  return 0;
}();

}  // namespace
