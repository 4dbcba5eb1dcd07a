#pragma once
// UltraFeedback (Cui et al. 2023, arXiv:2310.01377) and what is laid out like it: {instruction or prompt, completions:
// [{response, overall_score, annotations: {ATTRIBUTE: {Rating}}}]}.

#include <plumb/core/random.hpp>
#include <plumb/data/hh_rlhf.hpp>

PLUMB_NAMESPACE_BEGIN
namespace data::detail {

/// A number, or a string that is one. False where it is neither; `out` is `missing_rating` for null, "", "N/A".
inline bool rating_of(simdjson::dom::element e, double& out) {
  out = missing_rating;
  if (e.is_null()) return true;
  std::string_view text;
  if (e.get(text) != simdjson::SUCCESS) return e.get(out) == simdjson::SUCCESS;
  if (text.empty() || text == "N/A" || text == "n/a" || text == "NA") return true;
  if (text.find_first_not_of("0123456789.-") != std::string_view::npos) return false;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), out);
  return code == std::errc{} && end == text.data() + text.size();
}

/// The responses of one prompt that have a rating; the others are dropped in `out`.
class ultrafeedback_record {
 public:
  explicit ultrafeedback_record(const std::vector<std::string>& ratings) : names_(ratings) {}

  template <class Record>
  bool decode(json_line& line, outcome<Record>& out) {
    simdjson::dom::array list;
    const char* key = line.record.has("instruction") ? "instruction" : "prompt";
    if (!line.record.get(key, prompt) || !line.record.get("completions", list)) return false;
    responses.clear();
    dropped_ = {};
    const place all{nullptr, "completions"};
    std::int64_t i = 0;
    for (const simdjson::dom::element e : list)
      if (!decode_completion(line, e, place{&all, {}, i++})) return false;
    for (std::size_t r = 0; r < drop_reasons; ++r) out.dropped[r] += dropped_[r];
    return true;
  }

  struct response {
    std::string_view text;
    std::vector<double> ratings;
  };
  std::string_view prompt;
  std::vector<response> responses;

 private:
  bool decode_completion(json_line& line, simdjson::dom::element e, const place& here) {
    simdjson::dom::object object;
    if (e.get(object) != simdjson::SUCCESS)
      return line.fail("field " + json_object::quoted_name(here) + " must be an object, but is " + found(e));
    response r;
    if (!line.inner.load(object, here, line.problem) || !line.inner.get("response", r.text)) return false;
    bool rated = false;
    for (const std::string& name : names_) {
      double rating = missing_rating;
      if (!find_rating(line, name, here, rating)) return false;
      rated = rated || rating != missing_rating;
      r.ratings.push_back(rating);
    }
    if (!rated)
      ++dropped_[static_cast<std::size_t>(drop::no_rating)];
    else if (is_blank(r.text))
      ++dropped_[static_cast<std::size_t>(drop::empty_reply)];
    else
      responses.push_back(std::move(r));
    return true;
  }

  /// In the completion itself, or in its `annotations`.
  static bool find_rating(json_line& line, const std::string& name, const place& here, double& rating) {
    if (const auto* own = line.inner.find(name))
      return rating_of(*own, rating) || line.inner.fail_type(name, "a number or \"N/A\"", *own);
    const auto* annotations = line.inner.find("annotations");
    if (annotations == nullptr || annotations->is_null()) return true;
    simdjson::dom::object object;
    if (annotations->get(object) != simdjson::SUCCESS)
      return line.inner.fail_type("annotations", "an object", *annotations);
    const place below{&here, "annotations"};
    if (!line.deeper.load(object, below, line.problem)) return false;
    const auto* attribute = line.deeper.find(name);
    if (attribute == nullptr || attribute->is_null()) return true;
    const auto as_found = *attribute;
    if (as_found.get(object) != simdjson::SUCCESS) return line.deeper.fail_type(name, "an object", as_found);
    if (!line.deeper.load(object, place{&below, name}, line.problem)) return false;
    const auto* value = line.deeper.find("Rating");
    return value == nullptr || rating_of(*value, rating) ||
           line.deeper.fail_type("Rating", "a number or \"N/A\"", *value);
  }

  std::vector<std::string> names_;
  std::array<std::int64_t, drop_reasons> dropped_ = {};  // of one record, which may yet turn out to be wrong
};

/// Pairs: the best response, by the first rating, and the worst or a random lower one.
class ultrafeedback_pairs {
 public:
  explicit ultrafeedback_pairs(const read_options& options)
      : record_({options.ratings.empty() ? "overall_score" : options.ratings.front()}),
        pairing_(options.pairing),
        random_{options.seed, 0} {}

  bool decode(json_line& line, outcome<preference_pair>& out) {
    if (!record_.decode(line, out)) return false;
    const auto& all = record_.responses;
    if (all.size() < 2) {
      out.drop(drop::too_few_ratings);
      return true;
    }
    std::size_t best = 0, worst = 0;
    for (std::size_t i = 1; i < all.size(); ++i) {
      if (all[i].ratings[0] > all[best].ratings[0]) best = i;
      if (all[i].ratings[0] < all[worst].ratings[0]) worst = i;
    }
    if (all[best].ratings[0] == all[worst].ratings[0]) {
      out.drop(drop::tie);
      return true;
    }
    if (pairing_ == pairing::best_and_random_lower) worst = random_lower(best, line.number);
    preference_pair pair;
    pair.line = line.number;
    pair.prompt.text = record_.prompt;
    pair.chosen.text = all[best].text;
    pair.rejected.text = all[worst].text;
    pair.chosen_rating = all[best].ratings[0];
    pair.rejected_rating = all[worst].ratings[0];
    pair.margin = *pair.chosen_rating - *pair.rejected_rating;
    hand_out_pair(std::move(pair), out);
    return true;
  }

 private:
  std::size_t random_lower(std::size_t best, std::int64_t line) {
    lower_.clear();
    for (std::size_t i = 0; i < record_.responses.size(); ++i)
      if (record_.responses[i].ratings[0] < record_.responses[best].ratings[0]) lower_.push_back(i);
    return lower_[static_cast<std::size_t>(random_.below(lower_.size(), static_cast<std::uint64_t>(line)))];
  }

  ultrafeedback_record record_;
  pairing pairing_;
  random_stream random_;
  std::vector<std::size_t> lower_;
};

}  // namespace data::detail
PLUMB_NAMESPACE_END
