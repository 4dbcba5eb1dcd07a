#pragma once
// Prompts of models that are steered by attributes: conversations whose replies stand behind a line of ratings. SteerLM (arXiv:2310.05344) and
// SteerLM 2.0 (arXiv:2406.08673), as NeMo-Aligner and HelpSteer2 write them, or with names, marks and separators of your own. Text in, text out.

#include <plumb/objectives/helpsteer.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

/// A template of such prompts, and what it makes. As it stands it is NeMo-Aligner's of the nine attributes:
///
///     <extra_id_0>System
///     (system)
///     <extra_id_1>User
///     (question)
///     <extra_id_1>Assistant
///     <extra_id_2>quality:4,toxicity:0,humor:0,creativity:0,helpfulness:4,correctness:4,coherence:4,complexity:4,verbosity:4
///     (reply)
///     <extra_id_1>
///
/// Ratings are whole numbers 0 .. `top`, in the order of `names`; a `missing` one is left out of the line.
struct attribute_prompt {
  std::vector<std::string> names{std::begin(helpsteer::nine), std::end(helpsteer::nine)};
  int top = 4;
  double missing = -100;
  std::string colon = ":", comma = ",";  ///< between a name and its rating, between ratings
  std::string system_mark = "<extra_id_0>", turn_mark = "<extra_id_1>", label_mark = "<extra_id_2>", newline = "\n";
  std::string system_role = "System", user_role = "User", assistant_role = "Assistant";

  /// NeMo-Aligner's text for `system`, where data sets have none of their own.
  static constexpr const char* nemo_system =
      "A chat between a curious user and an artificial intelligence assistant. "
      "The assistant gives helpful, detailed, and polite answers to the user's questions.";
  /// HelpSteer2's five attributes (arXiv:2406.08673, section 4.5).
  static attribute_prompt helpsteer2() {
    attribute_prompt p;
    p.names.assign(std::begin(helpsteer::five), std::end(helpsteer::five));
    return p;
  }

  /// A turn of a conversation: the user's, or a reply with what it was rated (no ratings: no line).
  struct turn {
    std::string text{};
    bool reply = false;
    std::vector<double> ratings{};

    friend bool operator==(const turn&, const turn&) = default;
  };
  struct conversation {
    std::string system{};
    std::vector<turn> turns{};

    friend bool operator==(const conversation&, const conversation&) = default;
  };
  /// A text, and which bytes `[begin, end)` of it a model learns to write.
  struct training_text {
    std::string text{};
    std::vector<std::pair<std::size_t, std::size_t>> learned{};
  };

  /// "quality:4,toxicity:0,...". The ratings are whole numbers; see `rounded` for those of a model.
  std::string label(std::span<const double> ratings) const {
    constexpr const char* op = "attribute_prompt::label";
    require(op);
    return label_of(op, ratings);
  }
  /// The ratings of such a text, in the order of `names`, which the text need not keep; `missing` where it has none.
  std::vector<double> parse(std::string_view label) const {
    constexpr const char* op = "attribute_prompt::parse";
    require(op);
    return parse_label(op, label);
  }
  /// What a model predicted as ratings: into 0 .. `top`, to the nearest whole number, halves to the even one (NeMo-Aligner's annotation). `missing`
  /// and NaN are `missing`.
  std::vector<double> rounded(std::span<const double> predictions) const {
    std::vector<double> ratings;
    for (const double x : predictions)
      ratings.push_back(x == missing || math::is_nan(x) ? missing : math::round_rating<double>{static_cast<double>(top)}(x));
    return ratings;
  }

  /// The prompt that asks for a reply rated `wanted`: the conversation so far, whose last turn is the user's, and the line of ratings. The reply ends
  /// where `stop()` begins.
  std::string request(const conversation& c, std::span<const double> wanted) const {
    constexpr const char* op = "attribute_prompt::request";
    require(op);
    if (c.turns.empty() || c.turns.back().reply) fail(message(op) << "the conversation must end with a turn of the user's.");
    std::string text = written(op, c, c.turns.size(), true);
    return text.append(turn_mark).append(assistant_role).append(newline).append(label_mark).append(label_of(op, wanted)).append(newline);
  }
  /// What follows a reply: the end of generation.
  std::string stop() const { return newline + turn_mark; }
  /// The whole conversation to learn from (SteerLM's attribute-conditioned fine-tuning): replies with ratings are learned, each with the mark that
  /// ends it; everything else, the ratings too, is read only.
  training_text training(const conversation& c) const {
    constexpr const char* op = "attribute_prompt::training";
    require(op);
    training_text t;
    t.text = written(op, c, c.turns.size(), true, &t.learned).append(turn_mark);
    return t;
  }
  /// The conversation up to turn `reply`, to be rated by a reward model at the text's last token (NeMo-Aligner's regression model); without ratings.
  std::string rating(const conversation& c, std::size_t reply) const {
    constexpr const char* op = "attribute_prompt::rating";
    require(op);
    if (reply >= c.turns.size() || !c.turns[reply].reply)
      fail(message(op) << "turn " << reply << " of " << c.turns.size() << " is no reply.");
    return written(op, c, reply + 1, false).append(label_mark);
  }
  /// A text of `request`, `training` or `rating`, taken apart. A request comes back with an empty last reply.
  conversation read(std::string_view text) const {
    constexpr const char* op = "attribute_prompt::read";
    require(op);
    conversation c;
    std::string_view rest = text;
    const auto eat = [&](std::string_view mark) {
      const bool found = rest.starts_with(mark);
      if (found) rest.remove_prefix(mark.size());
      return found;
    };
    const auto wrong = [&](const char* wanted) {
      fail(message(op) << "at byte " << text.size() - rest.size() << " of the text there should be " << wanted << ".");
    };
    const auto until_mark = [&] {  // the mark stays
      const std::size_t at = std::min({rest.find(turn_mark), rest.find(label_mark), rest.size()});
      std::string_view x = rest.substr(0, at);
      rest.remove_prefix(at);
      if (!x.empty() && x.ends_with(newline)) x.remove_suffix(newline.size());
      return std::string(x);
    };
    if (!eat(system_mark) || !eat(system_role) || !eat(newline)) wrong("the system's turn");
    c.system = until_mark();
    while (!rest.empty()) {
      if (rest == label_mark) break;  // of `rating`
      if (!eat(turn_mark)) wrong("a turn");
      if (rest.empty()) break;  // of `training`
      turn t;
      if (eat(assistant_role)) {
        t.reply = true;
      } else if (!eat(user_role)) {
        wrong("a role");
      }
      if (!eat(newline)) wrong("the end of a line");
      if (t.reply && rest != label_mark && eat(label_mark)) {
        const std::size_t end = rest.find(newline);
        if (end == std::string_view::npos) wrong("ratings and the end of their line");
        t.ratings = parse_label(op, rest.substr(0, end));
        rest.remove_prefix(end + newline.size());
      }
      t.text = until_mark();
      c.turns.push_back(std::move(t));
    }
    return c;
  }

  /// Names and marks that cannot be told apart are refused.
  void require(const char* op) const {
    if (names.empty()) fail(message(op) << "there are no attributes.");
    require_option(op, "top", top, top >= 1 && top <= 1000, "from 1 to 1000");
    for (const auto& [name, x] : {std::pair{"colon", &colon}, {"comma", &comma}, {"system_mark", &system_mark}, {"turn_mark", &turn_mark},
                                  {"label_mark", &label_mark}, {"newline", &newline}, {"user_role", &user_role}, {"assistant_role", &assistant_role}})
      if (x->empty()) fail(message(op) << "option `" << name << "` is empty.");
    if (turn_mark.starts_with(label_mark) || label_mark.starts_with(turn_mark))
      fail(message(op) << "options `turn_mark` and `label_mark` begin alike.");
    if (user_role.starts_with(assistant_role) || assistant_role.starts_with(user_role))
      fail(message(op) << "options `user_role` and `assistant_role` begin alike.");
    for (std::size_t k = 0; k < names.size(); ++k) {
      for (const std::string* mark : {&colon, &comma, &newline})
        if (names[k].empty() || names[k].find(*mark) != std::string::npos)
          fail(message(op) << "attribute " << k << " is called \"" << names[k].c_str() << "\", which cannot be read back.");
      if (std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(k), names[k]) != names.begin() + static_cast<std::ptrdiff_t>(k))
        fail(message(op) << "two attributes are called \"" << names[k].c_str() << "\".");
    }
  }

 private:
  std::string label_of(const char* op, std::span<const double> ratings) const {
    if (ratings.size() != names.size()) fail(message(op) << "there are " << ratings.size() << " ratings, but " << names.size() << " attributes.");
    std::string text;
    for (std::size_t k = 0; k < names.size(); ++k) {
      const double r = ratings[k];
      if (r == missing) continue;
      if (!(r >= 0 && r <= top) || r != static_cast<double>(static_cast<int>(r)))
        fail(message(op) << "the rating of " << names[k].c_str() << " is " << r << ", which is no whole number from 0 to " << top << ".");
      text.append(text.empty() ? "" : comma).append(names[k]).append(colon).append(std::to_string(static_cast<int>(r)));
    }
    return text;
  }
  std::vector<double> parse_label(const char* op, std::string_view label) const {
    std::vector<double> ratings(names.size(), missing);
    std::vector<std::uint8_t> seen(names.size());
    for (bool more = !label.empty(); more;) {
      const std::string part(label.substr(0, label.find(comma)));
      more = part.size() < label.size();
      label.remove_prefix(part.size() + (more ? comma.size() : 0));
      const std::size_t at = part.find(colon);
      if (at == std::string::npos) fail(message(op) << "\"" << part.c_str() << "\" is no name, \"" << colon.c_str() << "\" and rating.");
      const std::string name = part.substr(0, at), number = part.substr(at + colon.size());
      const auto k = static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
      if (k == names.size()) fail(message(op) << "there is no attribute \"" << name.c_str() << "\".");
      if (seen[k]) fail(message(op) << "\"" << name.c_str() << "\" is rated twice.");
      seen[k] = 1;
      int rating = 0;
      bool good = !number.empty() && number.size() <= 4;
      for (const char digit : number) good = good && digit >= '0' && digit <= '9', rating = good ? 10 * rating + (digit - '0') : 0;
      if (!good || rating > top)
        fail(message(op) << "the rating of " << name.c_str() << " is \"" << number.c_str() << "\", which is no whole number from 0 to " << top
                         << ".");
      ratings[k] = rating;
    }
    return ratings;
  }
  // The first `turns` turns, each with the end of its line; with `learned`, which bytes of it are.
  std::string written(const char* op, const conversation& c, std::size_t turns, bool labels,
                      std::vector<std::pair<std::size_t, std::size_t>>* learned = nullptr) const {
    // What says the same as a mark would be read as one.
    const auto checked = [&](const std::string& x, const char* what, std::size_t which) -> const std::string& {
      for (const std::string* mark : {&system_mark, &turn_mark, &label_mark})
        if (x.find(*mark) != std::string::npos) fail(message(op) << what << which << " holds the mark \"" << mark->c_str() << "\".");
      return x;
    };
    std::string text = system_mark + system_role + newline + checked(c.system, "system text ", 0) + newline;
    for (std::size_t i = 0; i < turns; ++i) {
      const turn& t = c.turns[i];
      if (!t.reply && !t.ratings.empty()) fail(message(op) << "turn " << i << " is the user's, but has ratings.");
      text.append(turn_mark).append(t.reply ? assistant_role : user_role).append(newline);
      if (labels && !t.ratings.empty()) text.append(label_mark).append(label_of(op, t.ratings)).append(newline);
      const std::size_t begin = text.size();
      text.append(checked(t.text, "turn ", i)).append(newline);
      if (learned != nullptr && !t.ratings.empty()) learned->emplace_back(begin, text.size() + turn_mark.size());
    }
    return text;
  }
};

PLUMB_NAMESPACE_END
