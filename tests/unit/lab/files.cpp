// The lab's files: checkpoints that come back bit by bit, sentences for those that cannot be read, figures as JSON, nothing half written.
#include "lab/report.hpp"
#include "support/catch.hpp"

#include <plumb/backends/serial.hpp>

#include <fstream>

namespace {

using B = plumb::serial::backend<float>;
namespace fs = std::filesystem;

const lab::transformer_config config{.vocabulary = 7, .width = 8, .layers = 1, .heads = 2, .feed_forward = 12, .positions = 9};

/// A folder that goes away.
struct folder {
  fs::path path = fs::temp_directory_path() / ("plumb_lab_test_" + std::to_string(getpid()));
  folder() { fs::create_directories(path); }
  ~folder() { fs::remove_all(path); }
};
std::string bytes_of(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}
void write(const fs::path& p, const std::string& bytes) { std::ofstream(p, std::ios::binary) << bytes; }
std::string complaint(const fs::path& p) {
  lab::transformer<B> model(config, 2);
  const auto before = model.weights();
  try {
    lab::load_checkpoint(p, model);
  } catch (const std::exception& e) {
    CHECK(model.weights() == before);
    return e.what();
  }
  return "(read)";
}

}  // namespace

TEST_CASE("lab: a checkpoint comes back bit by bit") {
  const folder f;
  const auto file = f.path / "deep" / "model.safetensors";
  const lab::transformer<B> saved(config, 1);
  lab::save_checkpoint(file, saved);
  lab::transformer<B> loaded(config, 2);
  CHECK(loaded.weights() != saved.weights());
  lab::load_checkpoint(file, loaded);
  CHECK(loaded.weights() == saved.weights());
  CHECK(!fs::exists(file.string() + ".part"));
}

TEST_CASE("lab: a checkpoint is laid out as the safetensors format says") {
  const folder f;
  const auto file = f.path / "model.safetensors";
  const lab::transformer<B> model(config, 1);
  lab::save_checkpoint(file, model);
  const std::string bytes = bytes_of(file);
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  CHECK(length % 8 == 0);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  std::uint64_t end = 0;
  for (const auto& [name, tensor] : header.items()) {
    if (name == "__metadata__") continue;
    CHECK(tensor["dtype"] == "F32");
    std::uint64_t count = 4;
    for (const std::uint64_t e : tensor["shape"]) count *= e;
    CHECK(tensor["data_offsets"][1].get<std::uint64_t>() - tensor["data_offsets"][0].get<std::uint64_t>() == count);
    end = std::max(end, tensor["data_offsets"][1].get<std::uint64_t>());
  }
  CHECK(8 + length + end == bytes.size());
  CHECK(header["model.layers.0.self_attn.q_proj.weight"]["shape"] == nlohmann::json{8, 8});
  CHECK(header["model.norm.weight"]["shape"] == nlohmann::json{8});
  CHECK(header["__metadata__"]["architecture"] == "llama");
}

TEST_CASE("lab: a checkpoint that cannot be read changes nothing and says why") {
  const folder f;
  const auto file = f.path / "model.safetensors", bad = f.path / "bad.safetensors";
  lab::save_checkpoint(file, lab::transformer<B>(config, 1));
  const std::string good = bytes_of(file);
  CHECK(complaint(f.path / "none") == (f.path / "none").string() + ": cannot be opened");
  write(bad, "abc");
  CHECK(complaint(bad) == bad.string() + ": is too short for a safetensors file");
  write(bad, good.substr(0, 100));
  CHECK(complaint(bad) == bad.string() + ": its header is longer than the file");
  write(bad, good.substr(0, good.size() - 4));
  CHECK(complaint(bad) == bad.string() + ": tensor \"lm_head.weight\" lies outside the file");
  auto broken = good;
  broken[8] = 'x';
  write(bad, broken);
  CHECK(complaint(bad) == bad.string() + ": its header is no JSON object");
  broken = good;
  broken.replace(broken.find("lm_head"), 7, "lm_tail");
  write(bad, broken);
  CHECK(complaint(bad) == bad.string() + ": has no tensor \"lm_head.weight\"");
  broken = good;
  broken.replace(broken.find("[7,8]"), 5, "[8,7]");
  write(bad, broken);
  CHECK(complaint(bad) == bad.string() + ": tensor \"model.embed_tokens.weight\" is not F32 of shape [7,8]");
}

TEST_CASE("lab: a summary holds every figure, null where there is no interval") {
  const folder f;
  lab::summary s{.demo = "lab", .backend = "serial", .seeds = {3}, .threads = 2, .seconds = 1.5};
  s.figures.push_back(lab::rate_figure("win_rate", 60, 100));
  s.figures.push_back({"ceiling", 0.8, {}, {}, 100, "share"});
  s.write(f.path / "summary.json");
  const auto j = nlohmann::json::parse(bytes_of(f.path / "summary.json"));
  CHECK(j["demo"] == "lab");
  CHECK(j["seeds"] == nlohmann::json{3});
  CHECK(j["figures"][0]["name"] == "win_rate");
  CHECK(j["figures"][1]["low"].is_null());
  CHECK(j["figures"][1]["n"] == 100);
}

TEST_CASE("lab: intervals") {
  // Wilson's interval of 60 in 100 (e.g. Newcombe 1998): 0.502 to 0.691.
  const auto w = lab::rate_figure("x", 60, 100);
  CHECK(w.value == 0.6);
  CHECK(*w.low == Catch::Approx(0.5020).margin(5e-5));
  CHECK(*w.high == Catch::Approx(0.6906).margin(5e-5));
  const auto m = lab::mean_figure("x", {1, 2, 3, 4}, "points");
  CHECK(m.value == 2.5);
  CHECK(*m.high - m.value == Catch::Approx(1.959964 * std::sqrt(5.0 / 3 / 4)).epsilon(1e-12));
}
