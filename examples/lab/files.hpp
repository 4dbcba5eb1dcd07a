#pragma once
// Files of the lab: checkpoints in safetensors, figures in summary.json. Each is written beside its place and then renamed, so that a
// file is whole or not there.

#include "figures.hpp"
#include "transformer.hpp"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace lab {

/// Makes a folder and those above it; a sentence where that cannot be done.
inline void make_folder(const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw std::runtime_error("cannot make the folder " + folder.string() + ": " + failed.message());
}

inline void write_atomically(const std::filesystem::path& path, const std::string& bytes) {
  make_folder(path.parent_path().empty() ? "." : path.parent_path());
  auto part = path;
  part += ".part";
  errno = 0;
  std::ofstream out(part, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + part.string() + (errno != 0 ? std::string(": ") + std::strerror(errno) : ""));
  std::error_code failed;
  std::filesystem::rename(part, path, failed);
  if (failed) throw std::runtime_error("cannot rename " + part.string() + " to " + path.string() + ": " + failed.message());
}

/// A checkpoint in safetensors: eight bytes of header length, a JSON header, the weights as little-endian float. Names and shapes are those of
/// LLaMA checkpoints; the configuration stands in the header's metadata.
template <class B>
void save_checkpoint(const std::filesystem::path& path, const transformer<B>& model) {
  const auto& c = model.config();
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"architecture", "llama"},
                            {"vocab_size", std::to_string(c.vocabulary)},
                            {"hidden_size", std::to_string(c.width)},
                            {"num_hidden_layers", std::to_string(c.layers)},
                            {"num_attention_heads", std::to_string(c.heads)},
                            {"intermediate_size", std::to_string(c.feed_forward)},
                            {"max_position_embeddings", std::to_string(c.positions)},
                            {"rms_norm_eps", nlohmann::json(c.rms_epsilon).dump()},
                            {"rope_theta", nlohmann::json(c.rope_base).dump()}};
  for (const auto& p : model.layout().list()) {
    const auto shape = p.name.find("norm") != std::string::npos ? nlohmann::json{p.columns} : nlohmann::json{p.rows, p.columns};
    header[p.name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {4 * p.offset, 4 * (p.offset + p.size())}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(text.size() >> (8 * i) & 0xff);
  bytes += text;
  for (const auto w : model.weights()) {
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(w));
    for (unsigned i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(bits >> (8 * i) & 0xff));
  }
  write_atomically(path, bytes);
}

/// Reads the weights of a checkpoint with the model's own names and shapes; a sentence and no change where they do not fit.
template <class B>
void load_checkpoint(const std::filesystem::path& path, transformer<B>& model) {
  const auto refuse = [&](const std::string& why) { throw std::runtime_error(path.string() + ": " + why); };
  std::ifstream in(path, std::ios::binary);
  if (!in) refuse("cannot be opened");
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (bytes.size() < 8) refuse("is too short for a safetensors file");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  if (length > bytes.size() - 8) refuse("its header is longer than the file");
  const auto header = nlohmann::json::parse(bytes.substr(8, length), nullptr, false);
  if (!header.is_object()) refuse("its header is no JSON object");
  const std::size_t start = 8 + length, data = bytes.size() - start;
  auto weights = model.weights();
  for (const auto& p : model.layout().list()) {
    const auto found = header.find(p.name);
    if (found == header.end()) refuse("has no tensor \"" + p.name + "\"");
    const auto shape = p.name.find("norm") != std::string::npos ? nlohmann::json{p.columns} : nlohmann::json{p.rows, p.columns};
    if (found->value("dtype", "") != "F32" || found->value("shape", nlohmann::json()) != shape)
      refuse("tensor \"" + p.name + "\" is not F32 of shape " + shape.dump());
    const auto offsets = found->value("data_offsets", nlohmann::json());
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
      refuse("tensor \"" + p.name + "\" has no data_offsets");
    const auto from = offsets[0].template get<std::uint64_t>(), to = offsets[1].template get<std::uint64_t>();
    if (from > to || to > data || to - from != 4 * static_cast<std::uint64_t>(p.size()))
      refuse("tensor \"" + p.name + "\" lies outside the file");
    for (index_t j = 0; j < p.size(); ++j) {
      std::uint32_t bits = 0;
      for (unsigned i = 0; i < 4; ++i)
        bits |= std::uint32_t{static_cast<unsigned char>(bytes[start + from + 4 * static_cast<std::size_t>(j) + i])} << (8 * i);
      weights[static_cast<std::size_t>(p.offset + j)] = static_cast<plumb::real_of<B>>(std::bit_cast<float>(bits));
    }
  }
  model.weights() = std::move(weights);
}

/// Null stands for what is not there, and for what is not finite.
inline nlohmann::ordered_json or_null(std::optional<double> x) {
  return x && std::isfinite(*x) ? nlohmann::ordered_json(*x) : nlohmann::ordered_json();
}
inline nlohmann::ordered_json to_json(const figure& f) {
  return {{"name", f.name}, {"value", or_null(f.value)}, {"low", or_null(f.low)}, {"high", or_null(f.high)}, {"n", f.n}, {"unit", f.unit}};
}

struct summary {
  std::string demo, backend;
  std::vector<std::uint64_t> seeds;
  int threads = 1;
  double seconds = 0;
  std::vector<figure> figures{};

  void write(const std::filesystem::path& path) const {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const auto& f : figures) list.push_back(to_json(f));
    const nlohmann::ordered_json all{{"demo", demo}, {"seeds", seeds}, {"backend", backend}, {"threads", threads}, {"seconds", seconds}, {"figures", list}};
    write_atomically(path, all.dump(2) + "\n");
  }
};

}  // namespace lab
