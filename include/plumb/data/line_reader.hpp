#pragma once
// The lines of a text file, plain or gzip (found out by content, not by name), in bounded memory.

#include <plumb/data/reading.hpp>

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN
namespace data {

/// Where the bytes come from: a file (a path is enough), or memory that outlives the reading.
class input {
 public:
  input(const char* path) : name_(path) {}
  input(std::string path) : name_(std::move(path)) {}
  static input from_memory(std::string_view bytes, std::string name = "(memory)") {
    input in(std::move(name));
    in.memory_ = bytes;
    return in;
  }
  const std::string& name() const { return name_; }
  const std::optional<std::string_view>& memory() const { return memory_; }

 private:
  std::string name_;
  std::optional<std::string_view> memory_;
};

/// The bytes of an input, unpacked where they are gzip, several members in a row included.
class byte_source {
 public:
  /// `data_error` where the file cannot be opened or is of a kind that is not read.
  explicit byte_source(const input& in) : stored_(stored_capacity) {
    if (in.memory()) {
      memory_ = *in.memory();
    } else {
      file_.reset(std::fopen(in.name().c_str(), "rb"));
      if (!file_) refuse(in, "cannot be opened: " + last_error());
    }
    fill();
    if (!problem_.empty()) refuse(in, problem_);
    const std::string_view head(stored_.data(), end_);
    for (const kind& other : other_kinds)
      if (head.starts_with(other.magic))
        refuse(in, std::string("is a ") + other.name + " file; plain text and gzip are read");
    if (head.starts_with("\x1f\x8b")) begin_gzip();
  }

  /// Up to `n` bytes; 0 at the end, which `problem()` tells from a failure.
  std::size_t read(char* to, std::size_t n) {
    if (!problem_.empty()) return 0;
    if (inflater_) return unpack(to, n);
    if (begin_ == end_) return stored(to, n);
    n = std::min(n, end_ - begin_);
    std::memcpy(to, stored_.data() + begin_, n);
    begin_ += n;
    return n;
  }

  const std::string& problem() const { return problem_; }
  bool gzip() const { return inflater_ != nullptr; }
  std::int64_t bytes_stored() const { return bytes_stored_; }

 private:
  struct close_file {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  struct end_inflate {
    void operator()(z_stream* z) const {
      inflateEnd(z);
      delete z;
    }
  };
  struct kind {
    std::string_view magic;
    const char* name;
  };
  static constexpr kind other_kinds[] = {{"\x28\xb5\x2f\xfd", "zstd"},
                                         {"\xfd"
                                          "7zXZ",
                                          "xz"},
                                         {"BZh", "bzip2"},
                                         {"PK\x03\x04", "zip"},
                                         {"PAR1", "Parquet"},
                                         {"ARROW1", "Arrow"}};
  static constexpr std::size_t stored_capacity = std::size_t{1} << 16;

  [[noreturn]] static void refuse(const input& in, const std::string& detail) {
    detail::fail_reading(detail::sentence(in.name(), 0, detail, 0), 0);
  }
  static std::string last_error() { return std::generic_category().message(errno); }

  /// From the file or the memory, as it is there.
  std::size_t stored(char* to, std::size_t n) {
    if (file_) {
      errno = 0;
      n = std::fread(to, 1, n, file_.get());
      if (std::ferror(file_.get()) != 0 && n == 0) problem_ = "cannot be read: " + last_error();
    } else {
      n = std::min(n, memory_.size());
      if (n > 0) std::memcpy(to, memory_.data(), n);
      memory_.remove_prefix(n);
    }
    bytes_stored_ += static_cast<std::int64_t>(n);
    return n;
  }
  bool fill() {
    begin_ = 0;
    end_ = stored(stored_.data(), stored_.size());
    return end_ > 0;
  }

  void begin_gzip() {
    inflater_.reset(new z_stream{});  // does not move afterwards: zlib keeps its address
    if (inflateInit2(inflater_.get(), 15 + 16) != Z_OK) problem_ = "zlib has no memory to unpack it";
  }

  std::size_t unpack(char* to, std::size_t n) {
    z_stream& z = *inflater_;
    n = std::min(n, std::size_t{1} << 30);  // zlib counts in 32 bits
    for (;;) {
      if (begin_ == end_ && !fill()) {
        if (problem_.empty() && inside_member_) problem_ = "the gzip data end too early: the file is cut off";
        return 0;
      }
      if (!inside_member_) {
        if (stored_[begin_] == '\0') {  // padding after the last member
          ++begin_;
          continue;
        }
        if (stored_[begin_] != '\x1f') {
          problem_ = "after the end of the gzip data come bytes that are not gzip";
          return 0;
        }
        inflateReset(&z);
        inside_member_ = true;
      }
      z.next_in = reinterpret_cast<Bytef*>(stored_.data() + begin_);
      z.avail_in = static_cast<uInt>(end_ - begin_);
      z.next_out = reinterpret_cast<Bytef*>(to);
      z.avail_out = static_cast<uInt>(n);
      const int code = inflate(&z, Z_NO_FLUSH);
      begin_ = end_ - z.avail_in;
      if (code == Z_STREAM_END)
        inside_member_ = false;
      else if (code != Z_OK && code != Z_BUF_ERROR)
        problem_ = std::string("the gzip data are damaged: ") + (z.msg != nullptr ? z.msg : "zlib gives no reason");
      const std::size_t unpacked = n - z.avail_out;
      if (unpacked > 0 || !problem_.empty()) return unpacked;
    }
  }

  std::unique_ptr<std::FILE, close_file> file_;
  std::string_view memory_;
  std::vector<char> stored_;  // what was taken from the file and not used yet: [begin_, end_)
  std::size_t begin_ = 0, end_ = 0;
  std::unique_ptr<z_stream, end_inflate> inflater_;
  bool inside_member_ = false;
  std::int64_t bytes_stored_ = 0;
  std::string problem_;
};

/// What the next step of a `line_reader` gave.
enum class line_status { line, end, problem };

/// Line after line, blank ones left out, without their ends ("\n" or "\r\n"; the last line needs none) and without the
/// byte order mark of the first. Its buffer grows to twice the longest line at most, and never beyond `max_line_bytes`
/// and a little.
class line_reader {
 public:
  explicit line_reader(const input& in, std::size_t max_line_bytes = read_options{}.max_line_bytes)
      : source_(in), longest_(max_line_bytes) {
    constexpr std::size_t ceiling = 4'000'000'000;  // of the JSON library
    require_option("line_reader", "max_line_bytes", static_cast<double>(longest_), longest_ > 0 && longest_ <= ceiling,
                   "from 1 to 4000000000");
    reserve(std::min(first_capacity, longest_ + 2));
  }

  /// After `line`, `text()` is it. After `problem`, `problem()` says what is wrong with line `line()`, and the next
  /// call goes on behind it. After the end comes the end.
  line_status next() {
    for (;;) {
      if (const auto status = cut_line(); status != line_status::line) return status;
      if (!text_.empty() && text_.back() == '\r') {
        text_.remove_suffix(1);
        ++crlf_lines_;
      }
      if (text_.size() > longest_) return too_long(text_.size());
      if (line_ == 1 && text_.starts_with("\xef\xbb\xbf")) {
        text_.remove_prefix(3);
        byte_order_mark_ = true;
      }
      if (!is_blank_line(text_)) return line_status::line;
      ++blank_lines_;
    }
  }

  /// Valid until the next call; `padding` more bytes after it may be read, whatever they are.
  std::string_view text() const { return text_; }
  const std::string& problem() const { return problem_; }
  /// Number of the line that the last call was about, from 1.
  std::int64_t line() const { return line_; }

  /// Fills in what it counts: lines, bytes, and what they looked like.
  void count(read_summary& s) const {
    s.gzip = source_.gzip();
    s.byte_order_mark = byte_order_mark_;
    s.lines = line_;
    s.blank_lines = blank_lines_;
    s.crlf_lines = crlf_lines_;
    s.bytes = bytes_;
    s.bytes_stored = source_.bytes_stored();
  }
  /// Bytes of its buffer.
  std::size_t capacity() const { return capacity_ + padding; }

  static constexpr std::size_t padding = 64;

 private:
  static constexpr std::size_t first_capacity = std::size_t{1} << 18;

  static bool is_blank_line(std::string_view text) { return text.find_first_not_of(" \t\r") == std::string_view::npos; }

  line_status too_long(std::size_t bytes) {
    problem_ = "the line has " + std::to_string(bytes) + " bytes, more than option `max_line_bytes` allows (" +
               std::to_string(longest_) + ")";
    return line_status::problem;
  }

  /// The next line with its "\r", or what comes instead of it.
  line_status cut_line() {
    for (;;) {
      if (const char* newline = find_newline()) {
        text_ = {buffer_.get() + first_, newline};
        first_ = searched_ = static_cast<std::size_t>(newline - buffer_.get()) + 1;
        ++line_;
        return line_status::line;
      }
      if (last_ - first_ > longest_ + 1) return pass_over();
      if (read_more()) continue;
      if (!source_.problem().empty()) {
        first_ = searched_ = last_;  // the line that it broke off in is not all there
        if (failed_) return line_status::end;
        failed_ = true;
        ++line_;
        problem_ = source_.problem();
        return line_status::problem;
      }
      if (first_ == last_) return line_status::end;
      text_ = {buffer_.get() + first_, last_ - first_};
      first_ = searched_ = last_;
      ++line_;
      return line_status::line;
    }
  }

  const char* find_newline() {
    const void* at = std::memchr(buffer_.get() + searched_, '\n', last_ - searched_);
    if (at == nullptr) searched_ = last_;
    return static_cast<const char*>(at);
  }

  /// A line that is too long: read to its end, kept nowhere.
  line_status pass_over() {
    std::size_t bytes = 0;
    char latest = '\0';
    ++line_;
    for (;;) {
      const char* newline = find_newline();
      const std::size_t end = newline != nullptr ? static_cast<std::size_t>(newline - buffer_.get()) : last_;
      bytes += end - first_;
      if (end > first_) latest = buffer_[end - 1];
      first_ = searched_ = newline != nullptr ? end + 1 : last_;
      if (newline != nullptr || !read_more()) return too_long(bytes - (latest == '\r' ? 1 : 0));
    }
  }

  /// More bytes behind last_, after making room for them.
  bool read_more() {
    if (first_ == last_) first_ = searched_ = last_ = 0;
    if (last_ == capacity_) {
      if (first_ > 0) {
        std::memmove(buffer_.get(), buffer_.get() + first_, last_ - first_);
        last_ -= first_;
        searched_ -= first_;
        first_ = 0;
      } else {
        reserve(std::min(2 * capacity_, longest_ + 2));
      }
    }
    const std::size_t n = source_.read(buffer_.get() + last_, capacity_ - last_);
    last_ += n;
    bytes_ += static_cast<std::int64_t>(n);
    return n > 0;
  }

  void reserve(std::size_t capacity) {
    auto larger = std::make_unique<char[]>(capacity + padding);
    if (last_ > 0) std::memcpy(larger.get(), buffer_.get(), last_);
    buffer_ = std::move(larger);
    capacity_ = capacity;
  }

  byte_source source_;
  std::size_t longest_;
  std::unique_ptr<char[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t first_ = 0, searched_ = 0, last_ = 0;  // unread bytes: [first_, last_); no newline before searched_
  std::string_view text_;
  std::string problem_;
  bool failed_ = false, byte_order_mark_ = false;
  std::int64_t line_ = 0, blank_lines_ = 0, crlf_lines_ = 0, bytes_ = 0;
};

}  // namespace data
PLUMB_NAMESPACE_END
