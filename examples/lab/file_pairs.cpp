#include "file_pairs.hpp"

#include <plumb/data/bpe_trainer.hpp>
#include <plumb/data/preference.hpp>
#include <plumb/data/tokenizer_json.hpp>

namespace lab {
namespace {

/// A conversation up to its first reply: the same person, asked the same, goes on in several ways, and a pair of one of them tells much of the others.
std::string opening_of(const plumb::data::passage& prompt, plumb::data::format format) {
  if (prompt.is_chat()) {
    plumb::data::passage opening;
    for (const auto& turn : prompt.turns) {
      opening.turns.push_back(turn);
      if (turn.role == "user" || turn.role == "human") break;
    }
    return plumb::data::render_prompt(opening);
  }
  const std::string reply = "\n\nAssistant:";
  const std::size_t end = format == plumb::data::format::hh_rlhf ? prompt.text.find(reply) : std::string::npos;
  return end == std::string::npos ? prompt.text : prompt.text.substr(0, end + reply.size());
}

/// Conversations, not pairs, are dealt out, in an order drawn by the seed, until the held-out side has a fifth. Openings of which one begins the
/// other are one conversation: the longer may hold a reply to the shorter, which must not be seen in training where the shorter is held out.
/// The pairs to train on come in an order drawn by the seed, those held out in the file's.
file_split split_by_conversation(std::vector<file_pair> pairs, std::uint64_t seed) {
  std::map<std::string, std::vector<std::size_t>> by_opening;  // sorted: what an opening begins follows it
  for (std::size_t i = 0; i < pairs.size(); ++i) by_opening[pairs[i].opening].push_back(i);
  std::vector<std::vector<std::size_t>> conversations;
  const std::string* root = nullptr;
  for (const auto& [opening, members] : by_opening) {
    if (root == nullptr || root->empty() || opening.rfind(*root, 0) != 0) {
      root = &opening;
      conversations.emplace_back();
    }
    conversations.back().insert(conversations.back().end(), members.begin(), members.end());
  }
  for (std::size_t c = 0; c < conversations.size(); ++c)
    for (const std::size_t i : conversations[c]) pairs[i].conversation = c;
  world_random random(seed, 1);
  const auto shuffle = [&](auto& list) {
    for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[random.below(i)]);
  };
  shuffle(conversations);
  std::vector<bool> held(pairs.size(), false);
  std::size_t count = 0;
  for (const auto& members : conversations) {
    if (5 * count >= pairs.size()) break;
    for (const std::size_t i : members) held[i] = true;
    count += members.size();
  }
  file_split split;
  split.conversations = conversations.size();
  for (std::size_t i = 0; i < pairs.size(); ++i) (held[i] ? split.held_out : split.train).push_back(std::move(pairs[i]));
  shuffle(split.train);
  return split;
}

/// Why a file gave no pair.
std::string no_pairs(const plumb::data::read_summary& summary, const std::filesystem::path& file) {
  return summary.first_errors.empty() ? file.string() + ": holds no preference pairs" : summary.first_errors.front();
}

/// The bag-of-tokens baseline: a reply's score is the sum of one weight per token of it, trained by `plumb::bradley_terry` with weight decay.
class unigram_model {
 public:
  unigram_model(const std::vector<file_pair>& pairs, index_t vocabulary) : weights_(static_cast<std::size_t>(vocabulary)) {
    std::vector<double> squares(weights_.size(), 1e-8);
    for (int epoch = 0; epoch < 20; ++epoch) {
      std::vector<double> chosen, rejected, slope(weights_.size());
      for (const auto& p : pairs) {
        chosen.push_back(score(p.tokens_chosen));
        rejected.push_back(score(p.tokens_rejected));
      }
      const auto done = plumb::bradley_terry(chosen, rejected);
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        add(slope, pairs[i].tokens_chosen, done.d_chosen[i]);
        add(slope, pairs[i].tokens_rejected, done.d_rejected[i]);
      }
      for (std::size_t w = 0; w < weights_.size(); ++w) {  // AdaGrad: rare tokens take part
        slope[w] += 1e-4 * weights_[w];
        squares[w] += slope[w] * slope[w];
        weights_[w] -= 0.05 * slope[w] / std::sqrt(squares[w]);
      }
    }
  }
  double score(const sample& s) const {
    double sum = 0;
    for (std::size_t t = s.prompt_length; t < s.text.size(); ++t) sum += weights_[static_cast<std::size_t>(s.text[t])];
    return sum;
  }

 private:
  static void add(std::vector<double>& slope, const sample& s, double by) {
    for (std::size_t t = s.prompt_length; t < s.text.size(); ++t) slope[static_cast<std::size_t>(s.text[t])] += by;
  }
  std::vector<double> weights_;
};

double length_margin(const file_pair& p) { return static_cast<double>(p.chosen.size()) - static_cast<double>(p.rejected.size()); }
double token_margin(const unigram_model& m, const file_pair& p) { return m.score(p.tokens_chosen) - m.score(p.tokens_rejected); }

}  // namespace

void require_pairs(const std::filesystem::path& file) {
  plumb::data::preference_reader reader(file.string(), {.on_error = plumb::data::on_error::skip});
  if (!reader.next()) throw std::runtime_error(no_pairs(reader.summary(), file));
}

file_pairs::file_pairs(const settings& s, std::uint64_t seed, run_folder& folder) : s_(s), seed_(seed) {
  read();
  learn_tokenizer(folder);
}

void file_pairs::read() {
  plumb::data::preference_reader reader(s_.data.string(), {.on_error = plumb::data::on_error::skip});
  // Of a long file, a sample of which each pair is as likely (algorithm R of Vitter 1985), in the file's order.
  std::vector<file_pair> pairs;
  world_random random(seed_, 3);
  std::size_t seen = 0;
  for (auto p = reader.next(); p; p = reader.next()) {
    const std::size_t at = seen < s_.file_pairs ? seen : random.below(seen + 1);
    if (++seen <= s_.file_pairs) pairs.emplace_back();
    if (at < pairs.size())
      pairs[at] = {plumb::data::render_prompt(p->prompt), plumb::data::render_reply(p->chosen), plumb::data::render_reply(p->rejected), p->line,
                   opening_of(p->prompt, reader.format())};
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const file_pair& a, const file_pair& b) { return a.line < b.line; });
  const auto summary = reader.summary();
  if (pairs.empty()) throw std::runtime_error(no_pairs(summary, s_.data));
  if (pairs.size() < 20) throw std::runtime_error(s_.data.string() + ": " + std::to_string(pairs.size()) + " pairs are too few; at least 20 are needed");
  summary_ = summary.to_text();
  if (seed_ == s_.seeds.front()) std::printf("%s", summary_.c_str());
  data_ = split_by_conversation(std::move(pairs), seed_);
  if (data_.train.empty()) throw std::runtime_error(s_.data.string() + ": all its pairs are of one conversation; none is left to train on");
  if (seen > s_.file_pairs) account_ = "A sample of " + std::to_string(s_.file_pairs) + " pairs, drawn by the seed, is used (--pairs N for more). ";
  account_ += std::to_string(data_.train.size() + data_.held_out.size()) + " pairs of " + std::to_string(data_.conversations) + " conversations: " +
           std::to_string(data_.train.size()) + " to train on, " + std::to_string(data_.held_out.size()) + " held out (no conversation is on both sides).";
  if (data_.held_out.size() < 100) account_ += " So few held-out pairs tell little: look at the intervals, not at the numbers.";
  std::printf("%s\n", account_.c_str());
}

void file_pairs::learn_tokenizer(run_folder& folder) {
  using path = std::filesystem::path;
  folder.once("tokenizer", ".json", [&](const path& file) { tokenizer_ = plumb::data::load_tokenizer(file.string()); }, [&](const path& file) {
    plumb::data::bpe_trainer trainer({.vocabulary_size = s_.file_vocabulary, .special_tokens = {"<bos>", "<end>"}});
    for (const auto& p : data_.train)
      for (const auto* text : {&p.prompt, &p.chosen, &p.rejected}) trainer.add(*text);
    tokenizer_ = trainer.train();
    plumb::data::save_tokenizer(tokenizer_, file.string());
  });
  bos_ = tokenizer_.specials().id("<bos>").value();
  end_ = tokenizer_.specials().id("<end>").value();
  std::size_t tokens_seen = 0, shortened = 0;
  for (auto* side : {&data_.train, &data_.held_out})
    for (auto& p : *side) {
      bool cut = false;
      p.tokens_chosen = encoded(p.prompt, p.chosen, cut);
      p.tokens_rejected = encoded(p.prompt, p.rejected, cut);
      shortened += cut;
      tokens_seen += p.tokens_chosen.text.size() + p.tokens_rejected.text.size();
    }
  const std::string lost = std::to_string(shortened) + " pairs have a reply of more than " + std::to_string(s_.positions / 2) +
                           " tokens, whose rest the models do not see";
  std::printf("%-22s %d tokens; %zu in all texts; %s\n", "byte-pair encoding", tokenizer_.vocabulary_size(), tokens_seen, lost.c_str());
  account_ += " " + lost + ".";
}
/// `<bos>`, the end of the prompt, the beginning of the reply, `<end>`.
sample file_pairs::encoded(const std::string& prompt, const std::string& reply, bool& cut) const {
  auto asked = plumb::data::encode(tokenizer_, prompt), said = plumb::data::encode(tokenizer_, reply);
  const auto positions = static_cast<std::size_t>(s_.positions);
  if (said.size() + 1 > positions / 2) {
    said.resize(positions / 2);
    cut = true;
  } else {
    said.push_back(end_);
  }
  const std::size_t room = positions - said.size() - 1;
  if (asked.size() > room) asked.erase(asked.begin(), asked.end() - static_cast<std::ptrdiff_t>(room));
  asked.insert(asked.begin(), bos_);
  return joined(asked, said);
}

std::vector<baseline> file_pairs::baselines() const {
  std::vector<file_pair> rest, fifth;
  for (const auto& p : data_.train) (p.conversation % 5 == 0 ? fifth : rest).push_back(p);
  const unigram_model part(rest, tokenizer_.vocabulary_size()), unigram(data_.train, tokenizer_.vocabulary_size());
  double longer = 0, by_tokens = 0;
  for (const auto& p : fifth) {
    longer += right(length_margin(p));
    by_tokens += right(token_margin(part, p));
  }
  std::vector<std::pair<double, baseline>> all{{longer, {"longer", "the longer reply wins"}},
                                               {static_cast<double>(fifth.size()) - longer, {"shorter", "the shorter reply wins"}},
                                               {by_tokens, {"unigram", "weights of single tokens"}}};
  std::vector<baseline> sorted;
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  for (auto& [correct, b] : all) {
    for (const auto& p : data_.held_out)
      b.margins.push_back(b.name == "longer" ? length_margin(p) : b.name == "shorter" ? -length_margin(p) : token_margin(unigram, p));
    sorted.push_back(std::move(b));
  }
  return sorted;
}

}  // namespace lab
