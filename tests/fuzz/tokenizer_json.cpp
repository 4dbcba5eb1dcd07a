// Fuzz target of libFuzzer. An input is a tokenizer.json, or, after a line break, a text for a tokenizer learned from
// the text itself. Whatever is loaded must load again from what it saves, and every text must come back.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/tokenizer_json.cpp -o fuzz &&
//   ./fuzz -max_total_time=120

#include <plumb/data/bpe_trainer.hpp>
#include <plumb/data/tokenizer_json.hpp>

#include <cstdlib>

namespace {

using namespace plumb::data;

void require(bool good) {
  if (!good) std::abort();
}

void check(const bpe_tokenizer& tokenizer, std::string_view text) {
  const bpe_tokenizer again = from_tokenizer_json(to_tokenizer_json(tokenizer));
  require(again.vocabulary().tokens == tokenizer.vocabulary().tokens);
  for (const auto match : {match_specials::no, match_specials::yes}) {
    const auto ids = encode(tokenizer, text, match);
    require(decode(tokenizer, ids) == text);
    require(encode(again, text, match) == ids);
    for (const auto id : ids) require(match == match_specials::yes || tokenizer.specials().name(id) == nullptr);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (!input.empty() && input[0] == '\n') {
    const auto text = input.substr(1);
    const auto rule = size % 2 == 0 ? pretokenizer::none : pretokenizer::words;
    check(train_bpe(std::array{text},
                    {.vocabulary_size = 300, .special_tokens = {"<|x|>", "the"}, .min_count = 1, .rule = rule}),
          text);
    return 0;
  }
  try {
    check(from_tokenizer_json(input), input);
  } catch (const plumb::precondition_error&) {
  }
  return 0;
}
