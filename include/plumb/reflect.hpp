#pragma once
// Opt-in: the options of every objective by name, through Boost.Hana: print, read back, check, compare two configurations. No other header
// of plumb includes this one or Hana. Which options there are: reflect/catalogue.hpp.

#include <plumb/plumb.hpp>
#include <plumb/presets.hpp>
#include <plumb/search.hpp>

#include <boost/hana/accessors.hpp>
#include <boost/hana/adapt_struct.hpp>
#include <boost/hana/ext/std/integral_constant.hpp>
#include <boost/hana/first.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/second.hpp>
#include <boost/hana/string.hpp>
#include <boost/hana/unpack.hpp>

#include <charconv>
#include <string>
#include <string_view>
#include <variant>

PLUMB_NAMESPACE_BEGIN

namespace reflect {

/// An enumerator and its name.
template <class E>
struct enumerator {
  E value;
  const char* name;
};
/// The enumerators of `E`: a static array `all` of `enumerator<E>`; specialised in reflect/catalogue.hpp.
template <class E>
struct enumerators;

/// What an option type is called in configurations and errors.
template <class O>
inline constexpr const char* name_of = nullptr;

/// Options whose names are known here.
template <class T>
concept options = boost::hana::Struct<T>::value;

/// Calls `f(name, value)` for each option, in order; nested options are one value.
template <options O, class F>
void for_each(O& o, F f) {
  boost::hana::for_each(boost::hana::accessors<std::remove_const_t<O>>(), [&](auto accessor) {
    f(boost::hana::to<const char*>(boost::hana::first(accessor)), boost::hana::second(accessor)(o));
  });
}

/// The shortest decimal number that reads back the same.
inline std::string to_text(double x) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
}
/// In decimal.
template <class I>
  requires std::is_integral_v<I>
std::string to_text(I n) {
  if constexpr (std::is_same_v<I, bool>) {
    return n ? "true" : "false";
  } else {
    return std::to_string(n);
  }
}
/// The enumerator's name.
template <class E>
  requires std::is_enum_v<E>
std::string to_text(E e) {
  for (const auto& known : enumerators<E>::all)
    if (known.value == e) return known.name;
  return std::to_string(static_cast<long long>(e));
}
/// "{beta: 0.1, label_smoothing: 0, reference_free: false, denominator: 8}".
template <options O>
std::string to_text(const O& o) {
  std::string text = "{";
  for_each(o, [&](const char* name, const auto& value) {
    text.append(text.size() > 1 ? ", " : "").append(name).append(": ").append(to_text(value));
  });
  return text + "}";
}

/// "beta: 0.1 -> 0.2, denominator: 0 -> 8": what differs between two configurations; empty when nothing does.
template <options O>
std::string difference(const O& from, const O& to) {
  std::string text;
  boost::hana::for_each(boost::hana::accessors<O>(), [&](auto accessor) {
    const std::string a = to_text(boost::hana::second(accessor)(from)), b = to_text(boost::hana::second(accessor)(to));
    if (a == b) return;
    text.append(text.empty() ? "" : ", ").append(boost::hana::to<const char*>(boost::hana::first(accessor)));
    text.append(": ").append(a).append(" -> ").append(b);
  });
  return text;
}

namespace detail {

// Text of a configuration, read from the left; whatever is wrong is one sentence.
class reader {
 public:
  explicit reader(std::string_view text) : text_(text) {}

  void read(double& x) { number(x, "a number"); }
  template <class I>
    requires std::is_integral_v<I>
  void read(I& n) {
    if constexpr (std::is_same_v<I, bool>) {
      const std::string_view w = word();
      if (w != "true" && w != "false") refuse("true or false", w);
      n = w == "true";
    } else {
      number(n, "a whole number");
    }
  }
  template <class E>
    requires std::is_enum_v<E>
  void read(E& e) {
    const std::string_view w = word();
    std::string choices;
    for (const auto& known : enumerators<E>::all) {
      if (w == known.name) {
        e = known.value;
        return;
      }
      choices.append(choices.empty() ? "" : ", ").append(known.name);
    }
    refuse(choices.c_str(), w);
  }
  template <options O>
  void read(O& o) {
    expect('{');
    std::string before = ", ";
    for (bool first = true; !take('}'); first = false) {
      if (!first) expect(',');
      const std::string key(word());
      if (before.find(", " + key + ", ") != std::string::npos)
        fail(message("reflect") << "option `" << key.c_str() << "` stands there twice. Nothing was changed.");
      before.append(key).append(", ");
      expect(':');
      read_member(o, key);
    }
  }
  /// The option called `key` of `o`.
  template <options O>
  void read_member(O& o, std::string_view key) {
    const std::string outer = key_;
    key_ = key;
    bool found = false;
    std::string names;
    for_each(o, [&](const char* name, auto& value) {
      names.append(names.empty() ? "" : ", ").append(name);
      if (found || key != name) return;
      found = true;
      read(value);
    });
    if (!found) {
      fail(message("reflect") << (name_of<O> != nullptr ? name_of<O> : "these options") << " has no option `" << key_.c_str()
                              << "`; it has " << names.c_str() << ". Nothing was changed.");
    }
    key_ = outer;
  }
  void end() {
    space();
    if (!text_.empty()) refuse("nothing more", text_);
  }

 private:
  void space() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n' || text_[0] == '\t' || text_[0] == '\r')) text_.remove_prefix(1);
  }
  bool take(char c) {
    space();
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    const char wanted[] = {'`', c, '`', '\0'};
    if (!take(c)) refuse(wanted, text_);
  }
  // Letters, digits and underscores, in quotes or bare.
  std::string_view word() {
    const bool quoted = take('"');
    std::size_t n = 0;
    while (n < text_.size() && (text_[n] == '_' || (text_[n] >= '0' && text_[n] <= '9') || (text_[n] >= 'a' && text_[n] <= 'z') ||
                                (text_[n] >= 'A' && text_[n] <= 'Z')))
      ++n;
    const std::string_view w = text_.substr(0, n);
    if (n == 0) refuse("a name", text_);
    text_.remove_prefix(n);
    if (quoted) expect('"');
    return w;
  }
  template <class N>
  void number(N& x, const char* wanted) {
    space();
    N read{};
    const auto [end, problem] = std::from_chars(text_.data(), text_.data() + text_.size(), read);
    if (problem != std::errc()) refuse(wanted, text_);
    x = read;
    text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
  }
  [[noreturn]] void refuse(const char* wanted, std::string_view found) const {
    const std::string what(found.empty() ? std::string_view("the end") : found.substr(0, 24));
    message m("reflect");
    if (!key_.empty()) m << "option `" << key_.c_str() << "`: ";
    fail(m << "expected " << wanted << ", but found `" << what.c_str() << "`. Nothing was changed.");
  }

  std::string_view text_;
  std::string key_;  // the option that is being read
};

}  // namespace detail

/// Checks every range that does not depend on the data, as the objective itself will: an error names the option. Denominators are not looked
/// at: they belong to a batch.
template <options O>
void validate(const O& o) {
  if constexpr (requires { o.require("reflect"); }) o.require(name_of<O> != nullptr ? name_of<O> : "options");
  for_each(o, [](const char*, const auto& value) {
    if constexpr (options<std::remove_cvref_t<decltype(value)>>) validate(value);
  });
}

/// What stands in a variant: its name, and its options. "link::hinge{beta: 0.1, margin: 1}".
template <options... O>
std::string to_text(const std::variant<O...>& choice) {
  return std::visit([]<class T>(const T& o) { return std::string(name_of<T>).append(to_text(o)); }, choice);
}
/// What differs between two choices: of one type, their options; else one and the other.
template <options... O>
std::string difference(const std::variant<O...>& from, const std::variant<O...>& to) {
  if (from.index() != to.index()) return to_text(from).append(" -> ").append(to_text(to));
  return std::visit([&]<class T>(const T& o) { return difference(o, std::get<T>(to)); }, from);
}
/// Checks the choice that is made.
template <options... O>
void validate(const std::variant<O...>& choice) {
  std::visit([](const auto& o) { validate(o); }, choice);
}

/// Reads what `to_text` prints, or JSON: `{beta: 0.2}`, `{"beta": 0.2, "aggregate": "token_mean"}`. Options that are not named keep the values of
/// `defaults`. An unknown name, a wrong value or one out of range is an error, and nothing is changed.
template <options O>
O parse(std::string_view text, O defaults = {}) {
  detail::reader r(text);
  r.read(defaults);
  r.end();
  validate(defaults);
  return defaults;
}

/// One option from text: `set(options, "beta", "0.2")`, for the flags of a program.
template <options O>
void set(O& o, std::string_view name, std::string_view value) {
  O changed = o;
  detail::reader r(value);
  r.read_member(changed, name);
  r.end();
  validate(changed);
  o = changed;
}

}  // namespace reflect

PLUMB_NAMESPACE_END

#include <plumb/reflect/catalogue.hpp>
