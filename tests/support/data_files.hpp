#pragma once
// Small files for the readers of preference data, plain and gzip, and all that a reader makes of them.

#include "support/catch.hpp"

#include <plumb/data/data.hpp>

#include <zlib.h>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace plumb_test {

/// A folder of its own that goes away.
struct data_folder {
  std::filesystem::path path;
  data_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "plumb_data_XXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path = name;
    REQUIRE(!path.empty());
  }
  ~data_folder() { std::filesystem::remove_all(path); }
  data_folder(const data_folder&) = delete;

  std::string write(const std::string& name, std::string_view bytes) const {
    const auto file = path / name;
    std::ofstream(file, std::ios::binary) << bytes;
    return file.string();
  }
};

/// One gzip member.
inline std::string gzip(std::string_view text) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&z, static_cast<uLong>(text.size())), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

/// Everything that a reader hands out and says; after an error it goes on.
template <class Reader>
struct readout {
  std::vector<typename Reader::record> records;
  std::vector<std::string> sentences;
  plumb::data::read_summary summary;
};

template <class Reader>
readout<Reader> read_all(const plumb::data::input& in, plumb::data::read_options options = {}) {
  readout<Reader> r;
  Reader reader(in, options);
  for (;;) {
    try {
      auto record = reader.next();
      if (!record) break;
      r.records.push_back(std::move(*record));
    } catch (const plumb::data::data_error& e) {
      r.sentences.emplace_back(e.what());
    }
  }
  r.summary = reader.summary();
  return r;
}

template <class Reader>
readout<Reader> read_text(std::string_view text, plumb::data::read_options options = {}) {
  return read_all<Reader>(plumb::data::input::from_memory(text, "data.jsonl"), std::move(options));
}

/// What refuses to be opened says.
template <class Call>
std::string complaint(const Call& call) {
  try {
    call();
  } catch (const plumb::error& e) {
    return e.what();
  }
  return "(no complaint)";
}

}  // namespace plumb_test
