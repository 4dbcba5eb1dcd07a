#include "file_pairs.hpp"

#include <plumb/data/bpe_trainer.hpp>
#include <plumb/data/preference.hpp>
#include <plumb/data/tokenizer_json.hpp>

#include <set>

namespace lab {
namespace {

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

std::string percent(std::size_t part, std::size_t whole) { return fixed_text(100.0 * static_cast<double>(part) / static_cast<double>(whole), 0) + " %"; }

}  // namespace

std::string opening_of(const plumb::data::passage& prompt) {
  if (prompt.is_chat()) {
    for (const auto& turn : prompt.turns)
      if (turn.role == "user" || turn.role == "human") return turn.content;
    return plumb::data::render_prompt(prompt);
  }
  const std::string reply = "\n\nAssistant:";
  const std::size_t end = prompt.text.find(reply);
  return end == std::string::npos ? prompt.text : prompt.text.substr(0, end + reply.size());
}

file_split split_by_conversation(std::vector<file_pair> pairs, std::uint64_t seed) {
  std::map<std::string, std::vector<std::size_t>> by_opening;
  for (std::size_t i = 0; i < pairs.size(); ++i) by_opening[pairs[i].opening].push_back(i);
  std::vector<std::vector<std::size_t>> conversations;
  for (auto& [opening, members] : by_opening) {
    for (const std::size_t i : members) pairs[i].conversation = conversations.size();
    conversations.push_back(std::move(members));
  }
  world_random random(seed, 1);
  const auto shuffle = [&](auto& list) {
    for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[random.below(i)]);
  };
  shuffle(conversations);
  std::vector<bool> held(pairs.size(), false);
  std::size_t count = 0;
  for (const auto& members : conversations) {
    if (5 * count >= pairs.size()) break;
    if (4 * (count + members.size()) > pairs.size()) continue;
    for (const std::size_t i : members) held[i] = true;
    count += members.size();
  }
  file_split split;
  split.conversations = conversations.size();
  for (std::size_t i = 0; i < pairs.size(); ++i) (held[i] ? split.held_out : split.train).push_back(std::move(pairs[i]));
  shuffle(split.train);
  return split;
}

file_pairs::file_pairs(const settings& s, std::uint64_t seed) : s_(s) {
  const std::string name = s.data.string();
  std::error_code ignored;
  if (std::filesystem::exists(s.data, ignored) && !std::filesystem::is_regular_file(s.data, ignored))
    throw std::runtime_error(name + ": is no regular file; it is read more than once, so it has to be one");
  plumb::data::preference_reader reader(name, {.on_error = plumb::data::on_error::skip});
  // Of a long file, a sample of which each pair is as likely (algorithm R of Vitter 1985), in the file's order.
  std::vector<file_pair> pairs;
  world_random random(seed, 3);
  std::size_t seen = 0;
  for (auto p = reader.next(); p; p = reader.next()) {
    const std::size_t at = seen < s.file_pairs ? seen : random.below(seen + 1);
    if (++seen <= s.file_pairs) pairs.emplace_back();
    if (at < pairs.size())
      pairs[at] = {plumb::data::render_prompt(p->prompt), plumb::data::render_reply(p->chosen), plumb::data::render_reply(p->rejected), p->line, opening_of(p->prompt)};
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const file_pair& a, const file_pair& b) { return a.line < b.line; });
  const auto read = reader.summary();
  if (pairs.empty()) throw std::runtime_error(read.first_errors.empty() ? name + ": holds no preference pairs" : read.first_errors.front());
  if (pairs.size() < 20) throw std::runtime_error(name + ": " + std::to_string(pairs.size()) + " pairs are too few; at least 20 are needed");
  summary_ = read.to_text();
  if (seed == s.seeds.front()) std::printf("%s", summary_.c_str());
  const std::size_t count = pairs.size();
  data_ = split_by_conversation(std::move(pairs), seed);
  std::set<std::size_t> held_conversations;
  for (const auto& p : data_.held_out) held_conversations.insert(p.conversation);
  const std::string conversations = std::to_string(data_.conversations) + (data_.conversations == 1 ? " conversation" : " conversations");
  if (data_.held_out.empty())
    throw std::runtime_error(name + ": its " + std::to_string(count) + " pairs are of " + conversations + ", too few or too unequal to hold a fifth of them out");
  if (seen > count) account_ = "A sample of " + std::to_string(count) + " pairs, drawn by the seed, is used (--pairs N for more). ";
  account_ += std::to_string(count) + " pairs of " + conversations + ": " + std::to_string(data_.train.size()) + " to train on, " +
              std::to_string(data_.held_out.size()) + " held out (" + std::to_string(held_conversations.size()) + " conversations; none is on both sides).";
  if (10 * read.errors > read.lines) account_ += " Beware: " + std::to_string(read.errors) + " of " + std::to_string(read.lines) + " lines could not be read.";
  if (6 * data_.held_out.size() < count) account_ += " That is only " + percent(data_.held_out.size(), count) + ": the conversations are of very unequal size.";
  if (held_conversations.size() < 100) account_ += " So few held-out conversations tell little: look at the intervals, not at the numbers.";
  std::printf("%s\n", account_.c_str());
}

void file_pairs::tokenize(run_folder& folder) {
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
  std::size_t tokens_seen = 0, replies_cut = 0, prompts_cut = 0;
  for (auto* side : {&data_.train, &data_.held_out})
    for (auto& p : *side) {
      encode(p, replies_cut, prompts_cut);
      tokens_seen += p.tokens_chosen.text.size() + p.tokens_rejected.text.size();
    }
  const std::size_t count = data_.train.size() + data_.held_out.size();
  const std::string lost = "The models see " + std::to_string(s_.positions) + " tokens: " + percent(replies_cut, count) + " of the pairs lose the end of a reply, " +
                           percent(prompts_cut, count) + " the beginning of the prompt.";
  std::printf("%-22s %d tokens in the vocabulary; %zu in the texts, as far as the models see them\n%s\n", "byte-pair encoding", tokenizer_.vocabulary_size(), tokens_seen, lost.c_str());
  account_ += " " + lost;
}

void file_pairs::encode(file_pair& p, std::size_t& replies_cut, std::size_t& prompts_cut) const {
  const auto positions = static_cast<std::size_t>(s_.positions);
  auto asked = plumb::data::encode(tokenizer_, p.prompt);
  tokens said[2] = {plumb::data::encode(tokenizer_, p.chosen), plumb::data::encode(tokenizer_, p.rejected)};
  bool cut = false;
  for (tokens& reply : said) {
    reply.push_back(end_);
    if (reply.size() <= positions / 2) continue;
    reply.resize(positions / 2);
    cut = true;
  }
  replies_cut += cut;
  const std::size_t room = positions - 1 - std::max(said[0].size(), said[1].size());
  prompts_cut += asked.size() > room;
  if (asked.size() > room) asked.erase(asked.begin(), asked.end() - static_cast<std::ptrdiff_t>(room));
  asked.insert(asked.begin(), bos_);
  p.tokens_chosen = joined(asked, said[0]);
  p.tokens_rejected = joined(asked, said[1]);
}

std::vector<baseline> file_pairs::baselines() const {
  const unigram_model unigram(data_.train, tokenizer_.vocabulary_size());
  std::vector<baseline> all{{"longer", "the longer reply wins"}, {"shorter", "the shorter reply wins"}, {"unigram", "weights of single tokens"}};
  for (const auto& p : data_.held_out) {
    all[0].margins.push_back(length_margin(p));
    all[1].margins.push_back(-length_margin(p));
    all[2].margins.push_back(unigram.score(p.tokens_chosen) - unigram.score(p.tokens_rejected));
  }
  return all;
}

}  // namespace lab
