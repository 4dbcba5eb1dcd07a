// A preference file dealt out by conversation.
#include "lab/settings.hpp"
#include "support/catch.hpp"

#if LAB_HAS_DATA
#include "lab/file_pairs.hpp"

using plumb::data::passage;
using plumb::data::turn;

namespace {

passage text(std::string t) {
  passage p;
  p.text = std::move(t);
  return p;
}
passage chat(std::vector<turn> turns) {
  passage p;
  p.turns = std::move(turns);
  return p;
}
std::vector<lab::file_pair> pairs_of(const std::vector<std::size_t>& sizes) {
  std::vector<lab::file_pair> pairs;
  for (std::size_t c = 0; c < sizes.size(); ++c)
    for (std::size_t i = 0; i < sizes[c]; ++i) {
      pairs.emplace_back();
      pairs.back().opening = "opening " + std::to_string(c);
      pairs.back().line = static_cast<std::int64_t>(pairs.size());
    }
  return pairs;
}

}  // namespace

TEST_CASE("lab: what a person said first tells conversations apart") {
  const std::string first = "\n\nHuman: hello\n\nAssistant:";
  CHECK(lab::opening_of(text(first)) == first);
  CHECK(lab::opening_of(text(first + " Hi.\n\nHuman: and then?\n\nAssistant:")) == first);
  CHECK(lab::opening_of(text("What is 2 + 2?")) == "What is 2 + 2?");
  CHECK(lab::opening_of(text("W")) == "W");
  CHECK(lab::opening_of(chat({{"user", "hello"}})) == "hello");
  CHECK(lab::opening_of(chat({{"system", "It is Monday."}, {"user", "hello"}, {"assistant", "Hi."}, {"user", "and then?"}})) == "hello");
  CHECK(lab::opening_of(chat({{"system", "It is Tuesday."}, {"user", "hello"}})) == "hello");
  CHECK(lab::opening_of(chat({{"system", "Speak."}})).find("Speak.") != std::string::npos);
}

TEST_CASE("lab: conversations are dealt out whole, a fifth of the pairs held out") {
  const auto sizes_of = [](const std::vector<lab::file_pair>& side) {
    std::map<std::string, std::size_t> sizes;
    for (const auto& p : side) ++sizes[p.opening];
    return sizes;
  };
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const auto split = lab::split_by_conversation(pairs_of(std::vector<std::size_t>(50, 2)), seed);
    CHECK(split.conversations == 50);
    CHECK(split.held_out.size() == 20);
    CHECK(split.train.size() == 80);
    for (const auto& [opening, size] : sizes_of(split.held_out)) CHECK(size == 2);
    CHECK(std::is_sorted(split.held_out.begin(), split.held_out.end(), [](const auto& a, const auto& b) { return a.line < b.line; }));
    CHECK(!std::is_sorted(split.train.begin(), split.train.end(), [](const auto& a, const auto& b) { return a.line < b.line; }));
    // A conversation of most pairs is always trained on.
    const auto giant = lab::split_by_conversation(pairs_of({70, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}), seed);
    CHECK(giant.held_out.size() == 20);
    CHECK(sizes_of(giant.held_out).count("opening 0") == 0);
    CHECK(lab::split_by_conversation(pairs_of({60}), seed).held_out.empty());
  }
  const auto lines = [](const lab::file_split& s) {
    std::vector<std::int64_t> all;
    for (const auto& p : s.held_out) all.push_back(p.line);
    return all;
  };
  const auto pairs = pairs_of(std::vector<std::size_t>(50, 2));
  CHECK(lines(lab::split_by_conversation(pairs, 1)) == lines(lab::split_by_conversation(pairs, 1)));
  CHECK(lines(lab::split_by_conversation(pairs, 1)) != lines(lab::split_by_conversation(pairs, 2)));
}
#endif
