#pragma once
// What the readers have in common: lines in, records out, errors and drops counted. A decoder knows its formats.

#include <plumb/data/format.hpp>
#include <plumb/data/line_reader.hpp>

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

PLUMB_NAMESPACE_BEGIN
namespace data {

/// A loop over what `reader.next()` hands out; goes through the file once.
template <class Reader>
class record_iterator {
 public:
  using value_type = typename Reader::record;
  using difference_type = std::ptrdiff_t;
  using iterator_category = std::input_iterator_tag;
  using reference = const value_type&;
  using pointer = const value_type*;

  record_iterator() = default;
  explicit record_iterator(Reader& reader) : reader_(&reader), current_(reader.next()) {}
  reference operator*() const { return *current_; }
  pointer operator->() const { return &*current_; }
  record_iterator& operator++() {
    current_ = reader_->next();
    return *this;
  }
  void operator++(int) { ++*this; }
  friend bool operator==(const record_iterator& i, std::default_sentinel_t) { return !i.current_; }

 private:
  Reader* reader_ = nullptr;
  std::optional<value_type> current_;
};

namespace detail {

/// Whether a line is the first of records that are written as one JSON array over several lines: a bracket, and behind
/// it nothing, or an object and no end.
inline bool begins_array(std::string_view line) {
  constexpr std::string_view blank = " \t\r";
  const std::size_t open = line.find_first_not_of(blank);
  if (open == std::string_view::npos || line[open] != '[') return false;
  const std::size_t next = line.find_first_not_of(blank, open + 1);
  return next == std::string_view::npos || (line[next] == '{' && line[line.find_last_not_of(blank)] != ']');
}

/// What a decoder makes of a line.
template <class Record>
struct outcome {
  std::vector<Record> ready;
  std::array<std::int64_t, drop_reasons> dropped = {};

  void hand_out(Record&& r) { ready.push_back(std::move(r)); }
  void drop(data::drop reason) { ++dropped[static_cast<std::size_t>(reason)]; }
};

}  // namespace detail

/// A decoder has
///   using record = ...;  static constexpr const char* name;
///   static bool reads(format);
///   bool decode(format, detail::json_line&, detail::outcome<record>&);   // false: line.problem says why
///   void finish(detail::outcome<record>&);                               // after the last line
template <class Decoder>
class record_reader {
 public:
  using record = typename Decoder::record;

  /// `data_error` where the file cannot be opened; `precondition_error` for a format that this reader does not read.
  explicit record_reader(input in, read_options options = {})
      : options_(std::move(options)),
        name_(in.name()),
        lines_(in, options_.max_line_bytes),
        line_(std::make_unique<detail::json_line>()),
        decoder_(options_),
        format_(options_.format) {
    if (format_ != format::detect && !Decoder::reads(format_))
      fail(message(Decoder::name) << "option `format` is " << format_name(format_)
                                  << ", which this reader does not read (" << detail::who_reads(format_)
                                  << " does). Nothing was read.");
  }

  /// The next record; nothing at the end. With `on_error::stop` throws `data_error` at what cannot be read; called
  /// again, it goes on behind that.
  std::optional<record> next() {
    for (;;) {
      if (taken_ < outcome_.ready.size()) {
        ++records_;
        return std::move(outcome_.ready[taken_++]);
      }
      outcome_.ready.clear();
      taken_ = 0;
      switch (array_ ? line_status::end : lines_.next()) {
        case line_status::line:
          // Every line of it would be an error of its own, none of which says what is wrong.
          array_ = std::exchange(first_, false) && detail::begins_array(lines_.text());
          if (array_)
            report("the file is one list, over many lines; one record a line is wanted (jq -c '.[]' makes lines of a list)");
          else if (!decode())
            report(line_->problem);
          break;
        case line_status::problem:
          first_ = false;
          report(lines_.problem());
          break;
        case line_status::end:
          decoder_.finish(outcome_);
          return std::nullopt;
      }
    }
  }

  record_iterator<record_reader> begin() { return record_iterator<record_reader>(*this); }
  std::default_sentinel_t end() const { return {}; }

  /// Of what was read so far.
  read_summary summary() const {
    read_summary s;
    s.name = name_;
    s.format = format_;
    s.records = records_;
    s.errors = errors_;
    s.dropped_by_reason = outcome_.dropped;
    s.first_errors = first_errors_;
    lines_.count(s);
    return s;
  }

  /// `detect` as long as no record was recognised.
  data::format format() const { return format_; }
  const read_options& options() const { return options_; }
  /// Bytes that the buffer of lines holds.
  std::size_t buffer_bytes() const { return lines_.capacity(); }

 private:
  bool decode() {
    if (!line_->parse(lines_.text(), lines_.line())) return false;
    data::format f = format_;
    if (f == format::detect) {
      const auto recognised = detail::recognise(*line_);
      if (!recognised) return false;
      if (!Decoder::reads(*recognised))
        return line_->fail(std::string("the record is of format ") + format_name(*recognised) + ", which " +
                           Decoder::name + " does not read (" + detail::who_reads(*recognised) + " does)");
      f = *recognised;
    }
    if (!decoder_.decode(f, *line_, outcome_)) {
      outcome_.ready.clear();  // half a record is none
      return false;
    }
    format_ = f;
    return true;
  }

  void report(const std::string& problem) {
    ++errors_;
    const message m = detail::sentence(name_, lines_.line(), problem, records_);
    if (options_.on_error == on_error::stop) detail::fail_reading(m, lines_.line());
    if (first_errors_.size() < options_.remembered_errors) first_errors_.emplace_back(m.c_str());
  }

  read_options options_;
  std::string name_;
  line_reader lines_;
  std::unique_ptr<detail::json_line> line_;
  Decoder decoder_;
  data::format format_;
  detail::outcome<record> outcome_;
  std::size_t taken_ = 0;
  std::int64_t records_ = 0, errors_ = 0;
  std::vector<std::string> first_errors_;
  bool first_ = true;   ///< no line was seen yet
  bool array_ = false;  ///< the file is one: nothing more is read
};

}  // namespace data
PLUMB_NAMESPACE_END
