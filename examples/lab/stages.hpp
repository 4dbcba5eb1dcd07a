#pragma once
// Stages that are done once: a run that was cut off, anywhere, goes on after the last stage that it finished, to the same figures.

#include "files.hpp"
#include "progress.hpp"

namespace lab {

/// Hash of a text (FNV-1a), to tell whether two are the same.
inline std::uint64_t fingerprint(const std::string& bytes, std::uint64_t h = 1469598103934665603u) {
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return h;
}

/// Says which program this is, so that stages of an older build are not taken for its own.
inline std::string this_program() {
  std::ifstream self("/proc/self/exe", std::ios::binary);  // Linux; elsewhere every build of a version counts as the same
  const std::string bytes((std::istreambuf_iterator<char>(self)), std::istreambuf_iterator<char>());
  return std::to_string(PLUMB_VERSION_MAJOR) + "." + std::to_string(PLUMB_VERSION_MINOR) + "." + std::to_string(PLUMB_VERSION_PATCH) + "-" +
         std::to_string(fingerprint(bytes));
}

/// The folder of one run. `run.json` names the program, the settings and the stages that are finished, with the seconds that each took; it is
/// written after what a stage leaves behind, so a stage that is named there is whole.
class run_folder {
 public:
  /// Goes on with what is there when it comes from the same program and settings. Otherwise, or when `fresh`, what is there is moved to
  /// `<folder>.old`, or `.old2` and so on: nothing is lost.
  run_folder(std::filesystem::path folder, const std::string& settings, bool fresh) : folder_(std::move(folder)) {
    const std::string program = this_program();
    if (std::ifstream in(folder_ / "run.json"); in) {
      const auto before = nlohmann::json::parse(in, nullptr, false);
      const auto stages = before.is_object() ? before.value("stages", nlohmann::json()) : nlohmann::json();
      const bool same = stages.is_object() && before.value("program", "") == program && before.value("settings", "") == settings;
      if (same && !fresh) {
        for (const auto& [name, seconds] : stages.items()) seconds_[name] = seconds.is_number() ? seconds.get<double>() : 0.0;
      } else {
        auto old = folder_;
        old += ".old";
        for (int n = 2; std::filesystem::exists(old); ++n) old = folder_.string() + ".old" + std::to_string(n);
        std::filesystem::rename(folder_, old);
        std::printf("%s: starting over%s; what was there is now %s\n", folder_.string().c_str(),
                    fresh ? "" : ", since the program or the settings are others", old.string().c_str());
      }
    }
    run_ = {{"program", program}, {"settings", settings}, {"stages", nlohmann::ordered_json::object()}};
    for (const auto& [name, seconds] : seconds_) run_["stages"][name] = seconds;
    write_atomically(folder_ / "run.json", run_.dump(2) + "\n");  // now, so that a folder that cannot be written is found before hours of work
  }

  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  bool done(const std::string& stage) const { return seconds_.count(stage) != 0; }
  /// Seconds that each finished stage took, in this run or an earlier one.
  const std::map<std::string, double>& seconds() const { return seconds_; }

  /// `load()` when the stage is done; otherwise `make()`, which leaves what `load` reads.
  template <class Load, class Make>
  void once(const std::string& stage, Load load, Make make) {
    if (done(stage)) {
      try {
        load();
      } catch (const std::exception& e) {
        throw std::runtime_error(std::string(e.what()) + " (left by stage \"" + stage + "\"; --fresh starts over)");
      }
      std::printf("%-22s done before, in %.0f s\n", stage.c_str(), seconds_[stage]);
      return;
    }
    const stopwatch watch;
    make();
    seconds_[stage] = watch.seconds();
    run_["stages"][stage] = watch.seconds();
    write_atomically(folder_ / "run.json", run_.dump(2) + "\n");
  }

 private:
  std::filesystem::path folder_;
  std::map<std::string, double> seconds_{};
  nlohmann::ordered_json run_{};
};

/// Trains `model` by `train(model)`, or reads back what that gave.
template <class B, class Train>
void train_once(run_folder& folder, const std::string& stage, transformer<B>& model, Train train) {
  static_assert(sizeof(plumb::real_of<B>) == 4, "a checkpoint holds floats: what is read back is what was trained");
  const auto file = folder / (stage + ".safetensors");
  folder.once(stage, [&] { load_checkpoint(file, model); }, [&] { train(model), save_checkpoint(file, model); });
}

/// What a stage of measuring leaves.
struct findings {
  std::vector<figure> figures{};
  std::vector<example> examples{};
};

inline void save(const std::filesystem::path& path, const findings& found) {
  nlohmann::ordered_json figures = nlohmann::ordered_json::array(), examples = nlohmann::ordered_json::array();
  for (const auto& f : found.figures) {
    figures.push_back(to_json(f));
    figures.back()["label"] = f.label;
  }
  for (const auto& e : found.examples) {
    nlohmann::ordered_json replies = nlohmann::ordered_json::array();
    for (const auto& r : e.replies) replies.push_back({{"by", r.by}, {"text", r.text}, {"score", or_null(r.score)}, {"reasons", r.reasons}});
    examples.push_back({{"prompt", e.prompt}, {"replies", replies}});
  }
  write_atomically(path, nlohmann::ordered_json{{"figures", figures}, {"examples", examples}}.dump(2) + "\n");
}

inline findings load_findings(const std::filesystem::path& path) {
  std::ifstream in(path);
  const auto all = nlohmann::json::parse(in, nullptr, false);
  if (all.is_discarded()) throw std::runtime_error(path.string() + ": cannot be read");
  findings found;
  const auto number = [](const nlohmann::json& x) { return x.is_number() ? std::optional<double>(x.get<double>()) : std::nullopt; };
  for (const auto& f : all.at("figures"))
    found.figures.push_back({f.at("name"), number(f.at("value")).value_or(std::numeric_limits<double>::quiet_NaN()), number(f.at("low")),
                             number(f.at("high")), f.at("n"), f.at("unit"), f.at("label")});
  for (const auto& e : all.at("examples")) {
    example one{.prompt = e.at("prompt")};
    for (const auto& r : e.at("replies")) one.replies.push_back({r.at("by"), r.at("text"), number(r.at("score")), r.at("reasons")});
    found.examples.push_back(std::move(one));
  }
  return found;
}

}  // namespace lab
