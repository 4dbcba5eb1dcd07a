// Places in texts: boundaries, stops, and the part that a judge is shown.
#include "support/gradients.hpp"

#include <plumb/data/byte_tokenizer.hpp>
#include <plumb/search/boundaries.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

// A host's tokenizer whose tokens are pieces of text, one of them empty.
struct pieces {
  std::vector<std::string> all{"", "Human:", " hi", "\n\n", "Assist", "ant:", " Yes.", " No, no", ".", " \n\nHum", "an: a", "x. y"};
  std::vector<std::int32_t> encode(const std::string&) const { return {}; }
  std::string decode(std::span<const std::int32_t> tokens) const {
    std::string text;
    for (const std::int32_t t : tokens) text += all[static_cast<std::size_t>(t)];
    return text;
  }
};
using ids = std::vector<std::int32_t>;
ids copy(std::span<const std::int32_t> s) { return {s.begin(), s.end()}; }

}  // namespace

static_assert(any_tokenizer<pieces> && any_tokenizer<data::byte_tokenizer> && !any_tokenizer<int>);
static_assert(boundary<ends_with_text<pieces>> && boundary<contains_text<data::byte_tokenizer>>);

TEST_CASE("boundaries: behind punctuation, and where a text is contained") {
  const pieces t;
  const auto punctuation = at_punctuation(t);
  CHECK(!punctuation({}));
  CHECK(punctuation(ids{6}));
  CHECK(punctuation(ids{7, 8}));
  CHECK(punctuation(ids{1}));
  CHECK(punctuation(ids{6, 0, 0}));  // tokens that write nothing
  CHECK(punctuation(ids{3}));
  CHECK(!punctuation(ids{7}));
  CHECK(!punctuation(ids{6, 4}));
  CHECK(!punctuation(ids{0}));

  const contains_text stop(t, {"\n\nHuman:", "!!"}, 2);
  CHECK(!stop({}));
  CHECK(stop(ids{6, 3, 1}));
  CHECK(stop(ids{6, 3, 1, 2}));
  CHECK(stop(ids{2, 9, 10}));
  CHECK(stop(ids{2, 9, 0, 10}));
  CHECK(!stop(ids{2, 9}));
  CHECK(!stop(ids{1, 2, 6}));
  ids later{3, 1};
  later.resize(40, 2);
  CHECK(!stop(later));  // asked too late
  const data::byte_tokenizer bytes;
  CHECK(contains_text(bytes, {"ab"})(data::encode(bytes, "xxabyy")));
  CHECK(!contains_text(bytes, {"ab"})(data::encode(bytes, "xxbayy")));
}

TEST_CASE("parts of texts: whole tokens only") {
  const pieces t;
  const until_text reply(t, {"\n\nHuman:"});
  CHECK(copy(reply(ids{6, 2, 3, 1, 2})) == ids{6, 2});
  CHECK(copy(reply(ids{6, 9, 10})) == ids{6});  // the blank before goes with the token in which the turn begins
  CHECK(copy(reply(ids{6, 7})) == ids{6, 7});
  CHECK(reply({}).empty());
  const until_last_text sentences(t, {"."});
  CHECK(copy(sentences(ids{6, 7, 8, 2, 4})) == ids{6, 7, 8});
  CHECK(copy(sentences(ids{6, 11, 2})) == ids{6, 11});  // the dot is in the middle of a token
  CHECK(copy(sentences(ids{2, 4})) == ids{2, 4});
  const last_turn turn(t, "Human:", "\n\nAssistant:");
  CHECK(copy(turn(ids{1, 2, 3, 4, 5, 6, 3, 1, 7, 3, 4, 5})) == ids{7});
  CHECK(copy(turn(ids{1, 2, 3, 4, 5, 6, 9, 10, 2, 3, 4, 5})) == ids{2});
  CHECK(copy(turn(ids{1, 7, 2})) == ids{7, 2});
  CHECK(copy(turn(ids{2, 7})) == ids{2, 7});
  CHECK(turn(ids{1, 3, 4, 5}).empty());
  CHECK(copy(shown_from{2}(ids{1, 2, 3})) == ids{3});
  CHECK(shown_from{7}(ids{1, 2, 3}).empty());

  CHECK(refusal([&] { contains_text(t, {}); }) == "plumb: contains_text: there is no text to look for.");
  CHECK(refusal([&] { ends_with_text(t, {".", ""}); }) == "plumb: ends_with_text: a text to look for is empty.");
  CHECK(refusal([&] { last_turn(t, "", "x"); }) == "plumb: last_turn: the text that begins a turn is empty.");
}
