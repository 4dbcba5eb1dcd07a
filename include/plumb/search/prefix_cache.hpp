#pragma once
// Sequences that an engine holds, by their texts: who wants to know what follows a text gets it with as few forward tokens as the live sequences
// allow, many texts in one call of the model.

#include <plumb/model/language_model.hpp>
#include <plumb/search/limits.hpp>

#include <algorithm>
#include <cstring>
#include <optional>

PLUMB_NAMESPACE_BEGIN

/// Options of `prefix_cache`.
struct prefix_cache_options {
  index_t sequences = 32;  ///< alive at a time; the model's own limit, if it is less
  /// Off: a text is read from its first token each time, but where it continues the one that it came from (RAIN's released code).
  bool share = true;

  void require(const char* op) const { require_option(op, "sequences", static_cast<double>(sequences), sequences >= 1, "1 or more"); }
};

/// A text, and the sequence that it was when it was shorter.
struct text_request {
  std::span<const std::int32_t> text{};  ///< at least one token
  index_t from = -1;   ///< place in the cache of a sequence that it continues and that nobody else needs; -1: not known. `next` writes the new place
};

/// Live sequences of one model. Evicts those that were used longest ago and rebuilds them from the longest prefix that is alive. A model that can
/// rewind gives the prefixes of its sequences away as well. Owns every sequence that it opens: what throws leaks nothing.
template <language_model M>
class prefix_cache {
 public:
  explicit prefix_cache(M& model, const prefix_cache_options& options = {}) : model_(&model), options_(options) {
    options.require("prefix_cache");
    budget_ = options.sequences;
    if constexpr (batched_model<M>) budget_ = std::max<index_t>(1, std::min<index_t>(budget_, model.max_sequences()));
  }

  M& model() { return *model_; }
  /// Sequences alive.
  index_t live() const { return live_; }
  index_t budget() const { return budget_; }
  void clear() {
    slots_.clear();
    live_ = 0;
  }

  /// `use(i, logits)` of the token that follows text `i`, in no particular order; it does not call the model. Texts of the call are read side by
  /// side, as many as there may be sequences; equal texts once. Throws what the model throws, and `detail::limit_reached` before a call that the meter
  /// does not allow; the texts whose `use` was not called are then not known.
  template <class F>
  void next(std::span<text_request> requests, detail::meter& meter, const F& use) {
    pending_.clear();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].text.empty()) fail(message("prefix_cache") << "text " << i << " has no tokens: a first token is needed.");
      pending_.push_back(i);
    }
    std::size_t most = static_cast<std::size_t>(budget_);  // texts side by side; fewer where the model has no memory for so many
    while (!pending_.empty()) {
      const planning guard(*this);
      std::size_t count = 0;  // of those that are pending
      while (count < pending_.size() && planned(requests, pending_[count], most, meter)) ++count;
      if (plan_.empty()) throw sequence_memory_full("plumb: prefix_cache: the model has no memory for one sequence");
      try {
        read(requests, meter, use);
        pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(count));
      } catch (const sequence_memory_full&) {
        if (plan_.size() == 1) throw;
        most = plan_.size() / 2;
        for (const planned_text& p : plan_)
          if (p.told) std::erase_if(pending_, [&](std::size_t r) { return r == p.request || std::ranges::find(p.same, r) != p.same.end(); });
      }
    }
  }
  /// Of one text.
  template <class F>
  void next(const text_request& request, detail::meter& meter, const F& use) {
    text_request one[1] = {request};
    next(std::span<text_request>(one), meter, [&](std::size_t, std::span<const float> logits) { use(logits); });
  }

  /// Reads `text` and keeps a sequence of it for good: what many texts begin with.
  void pin(std::span<const std::int32_t> text, detail::meter& meter) {
    if (text.empty()) return;
    text_request one[1] = {{.text = text}};
    next(std::span<text_request>(one), meter, [](std::size_t, std::span<const float>) {});
    slots_[static_cast<std::size_t>(one[0].from)]->pinned = true;
  }

 private:
  struct slot {
    sequence_of<M> sequence;
    std::vector<std::int32_t> tokens{};
    std::uint64_t used = 0;
    bool pinned = false;
    bool taken = false;  ///< in the plan
  };
  /// A sequence of the plan and the requests that it answers.
  struct planned_text {
    std::size_t place;
    std::size_t request;  ///< whose text it will have
    bool fresh = false;   ///< the sequence was made for it
    bool told = false;
    std::vector<std::size_t> same{};
  };

  static bool begins_with(std::span<const std::int32_t> text, std::span<const std::int32_t> prefix) {
    return prefix.size() <= text.size() && (prefix.empty() || std::memcmp(text.data(), prefix.data(), prefix.size_bytes()) == 0);
  }
  bool rewinds() const { return rewindable_model<M> && !refuses_; }

  /// How many tokens of `text` sequence `s` can give; the last one is always read, since its logits are wanted.
  std::size_t usable(const slot& s, std::span<const std::int32_t> text, std::size_t at_least) const {
    const std::span<const std::int32_t> has(s.tokens);
    const std::size_t most = std::min(has.size(), text.size() - 1);
    if (most < at_least || !begins_with(text, has.first(at_least))) return 0;
    if (begins_with(text, has.first(most))) return has.size() <= most || rewinds() ? most : 0;
    if (!rewinds()) return 0;
    std::size_t n = at_least;
    while (has[n] == text[n]) ++n;  // they differ before `most`
    return n;
  }

  /// Whatever happens while a plan is made and carried out, afterwards no sequence is in it.
  struct planning {
    prefix_cache& cache;
    explicit planning(prefix_cache& c) : cache(c) { cache.plan_.clear(); }
    ~planning() {
      for (const planned_text& p : cache.plan_)
        if (p.fresh && !p.told) cache.drop(p.place);
      for (auto& s : cache.slots_)
        if (s) s->taken = false;
    }
    planning(const planning&) = delete;
    planning& operator=(const planning&) = delete;
  };

  /// Gives request `r` a sequence and puts it into the plan; false: there is none left, the plan has to be carried out first.
  bool planned(std::span<text_request> requests, std::size_t r, std::size_t most, detail::meter& meter) {
    const auto text = requests[r].text;
    if (options_.share)
      for (planned_text& p : plan_)
        if (const auto other = requests[p.request].text; other.size() == text.size() && other.back() == text.back() && begins_with(text, other)) {
          p.same.push_back(r);
          return true;
        }
    if (plan_.size() >= most) return false;
    fresh_ = false;
    const bool could = rewinds();
    const origin from = origin_of(requests[r]);
    std::optional<std::size_t> place = sequence_for(from, meter);
    if (!place && could && !rewinds()) place = sequence_for(origin_of(requests[r]), meter);  // it refused to rewind: as a model that cannot
    if (!place) return false;
    slots_[*place]->taken = true;
    plan_.push_back({.place = *place, .request = r, .fresh = fresh_});
    return true;
  }

  /// Where a text's sequence comes from: the first `shared` tokens of a live one.
  struct origin {
    std::optional<std::size_t> place{};
    std::size_t shared = 0;
    bool own = false;  ///< it is the request's own, which nobody else needs
  };
  origin origin_of(const text_request& request) const {
    origin best;
    if (request.from >= 0 && request.from < static_cast<index_t>(slots_.size())) {
      const auto place = static_cast<std::size_t>(request.from);
      const auto& s = slots_[place];
      if (s && !s->pinned && s->tokens.size() < request.text.size() && begins_with(request.text, s->tokens))
        best = {.place = place, .shared = s->tokens.size(), .own = !s->taken};
    }
    if (!options_.share) return best.own ? best : origin{};
    if (best.place) return best;
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (slots_[i])
        if (const std::size_t n = usable(*slots_[i], request.text, best.shared + 1); n > best.shared) best = {.place = i, .shared = n};
    return best;
  }

  /// A sequence of those tokens; nothing where there is none left, or where the model refused to rewind.
  std::optional<std::size_t> sequence_for(const origin& from, detail::meter& meter) {
    const bool free = from.place && !slots_[*from.place]->taken && !slots_[*from.place]->pinned;
    const bool whole = from.place && from.shared == slots_[*from.place]->tokens.size();
    if (free && whole && (from.own || rewinds())) return from.place;  // a longer sequence that can rewind is worth what the shorter was
    do {
      if (live_ >= budget_ && !evict(from.place, meter)) break;
      try {
        return from.place ? forked(*from.place, from.shared, meter) : opened(meter);
      } catch (const sequence_memory_full&) {  // nothing was changed
      }
    } while (evict(from.place, meter));
    // What it comes from is all that is left: it is used up.
    if (!free) return std::nullopt;
    slot& s = *slots_[*from.place];
    if (!whole) {
      if (!rewound(s.sequence, from.shared, meter)) return std::nullopt;
      s.tokens.resize(from.shared);
    }
    return from.place;
  }
  std::optional<std::size_t> opened(detail::meter& meter) {
    const std::size_t place = free_place();
    slots_[place].emplace(slot{.sequence = model_->open(), .used = ++clock_});
    fresh_ = true;
    ++live_;
    ++meter.used.opens;
    return place;
  }
  std::optional<std::size_t> forked(std::size_t source, std::size_t shared, detail::meter& meter) {
    const std::size_t place = free_place();
    slot& s = *slots_[source];
    s.used = ++clock_;
    slot made{.sequence = model_->fork(s.sequence), .used = clock_};
    made.tokens.assign(s.tokens.begin(), s.tokens.begin() + static_cast<std::ptrdiff_t>(shared));
    ++meter.used.forks;
    if (shared < s.tokens.size() && !rewound(made.sequence, shared, meter)) return std::nullopt;
    slots_[place].emplace(std::move(made));
    fresh_ = true;
    ++live_;
    return place;
  }

  bool rewound([[maybe_unused]] sequence_of<M>& s, [[maybe_unused]] std::size_t n, [[maybe_unused]] detail::meter& meter) {
    if constexpr (rewindable_model<M>) {
      ++meter.used.rewinds;
      if (model_->rewind(s, n)) return true;
      refuses_ = true;
    }
    return false;
  }

  std::size_t free_place() {
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (!slots_[i]) return i;
    slots_.emplace_back();
    return slots_.size() - 1;
  }
  void drop(std::size_t place) {
    if (slots_[place]) --live_;
    slots_[place].reset();
  }
  /// Lets the sequence go that was used longest ago, but none of the plan, none that is pinned, and not `kept`.
  bool evict(std::optional<std::size_t> kept, detail::meter& meter) {
    std::optional<std::size_t> oldest;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const auto& s = slots_[i];
      if (s && !s->taken && !s->pinned && i != kept && (!oldest || s->used < slots_[*oldest]->used)) oldest = i;
    }
    if (!oldest) return false;
    drop(*oldest);
    ++meter.used.evictions;
    return true;
  }

  /// Carries out the plan.
  template <class F>
  void read(std::span<text_request> requests, detail::meter& meter, const F& use) {
    if constexpr (batched_model<M>) {
      read(requests, 0, plan_.size(), meter, [&] { model_->append_many(std::span<const sequence_step<M>>(steps_)); });
      for (planned_text& p : plan_) tell(p, use);
    } else {
      for (std::size_t p = 0; p < plan_.size(); ++p) {
        read(requests, p, p + 1, meter, [&] { model_->append(*steps_[0].sequence, steps_[0].tokens); });
        tell(plan_[p], use);
        slots_[plan_[p].place]->taken = false;  // it has had its turn: it may go
      }
    }
  }
  /// One call of the model, for `plan_[begin, end)`.
  template <class Call>
  void read(std::span<text_request> requests, std::size_t begin, std::size_t end, detail::meter& meter, const Call& call) {
    steps_.clear();
    std::int64_t count = 0, shared = 0;
    for (std::size_t p = begin; p < end; ++p) {
      slot& s = *slots_[plan_[p].place];
      const auto text = requests[plan_[p].request].text;
      s.tokens.reserve(text.size());  // nothing needs memory once the model has read
      steps_.push_back({&s.sequence, text.subspan(s.tokens.size())});
      count += static_cast<std::int64_t>(text.size() - s.tokens.size());
      shared += static_cast<std::int64_t>(s.tokens.size());
    }
    meter.require_tokens(count);
    while (true) {
      try {
        const detail::timed clock(meter.used.model_seconds);
        call();
        break;
      } catch (const sequence_memory_full&) {  // nothing was changed
        if (!evict(std::nullopt, meter)) throw;
      } catch (...) {  // what they hold is not known
        for (std::size_t p = begin; p < end; ++p) drop(plan_[p].place);
        throw;
      }
    }
    meter.used.tokens += count;
    meter.used.shared_tokens += shared;
    meter.used.appends += static_cast<std::int64_t>(end - begin);
    ++meter.used.calls;
    for (std::size_t p = begin; p < end; ++p) finish(requests, plan_[p]);
  }
  void finish(std::span<text_request> requests, const planned_text& p) {
    slot& s = *slots_[p.place];
    const auto text = requests[p.request].text;
    s.tokens.insert(s.tokens.end(), text.begin() + static_cast<std::ptrdiff_t>(s.tokens.size()), text.end());
    s.used = ++clock_;
    requests[p.request].from = static_cast<index_t>(p.place);
    for (const std::size_t r : p.same) requests[r].from = static_cast<index_t>(p.place);
  }
  template <class F>
  void tell(planned_text& p, const F& use) {
    p.told = true;
    const std::span<const float> logits = model_->logits(slots_[p.place]->sequence);
    if (static_cast<index_t>(logits.size()) != static_cast<index_t>(model_->vocab_size()))
      fail(message("prefix_cache") << "the model gave " << logits.size() << " logits, but it has " << model_->vocab_size() << " tokens.");
    use(p.request, logits);
    for (const std::size_t r : p.same) use(r, logits);
  }

  M* model_;
  prefix_cache_options options_;
  index_t budget_ = 1, live_ = 0;
  bool refuses_ = false;  ///< the model said that it cannot rewind
  std::uint64_t clock_ = 0;
  std::vector<std::optional<slot>> slots_{};
  std::vector<planned_text> plan_{};
  std::vector<std::size_t> pending_{};
  bool fresh_ = false;  ///< the latest sequence of the plan was made for it
  std::vector<sequence_step<M>> steps_{};
};

PLUMB_NAMESPACE_END
