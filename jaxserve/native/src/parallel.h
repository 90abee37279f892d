// Work of one call, shared out over the threads of XLA's own pool.
//
// A decode step makes hundreds of calls, each of some microseconds, and waking a thread takes as long. So a helper that
// has finished lingers for a moment and looks for the next call's work before it gives its thread back to the pool.
#pragma once

#include <sched.h>
#include <time.h>

#include <atomic>

#include "call.h"
#include "simd.h"

namespace jaxserve {

// One call's units of work. Boards are never freed: a helper may look at one whose call is over.
struct Board {
  std::atomic<bool> taken{false}, open{false};
  std::atomic<int> helpers{0};
  std::atomic<size_t> next{0}, done{0}, units{0};
  void (*run)(const void*, size_t) = nullptr;
  const void* context = nullptr;

  void work() {
    for (size_t unit; (unit = next.fetch_add(1)) < units.load(std::memory_order_relaxed);) {
      run(context, unit);
      done.fetch_add(1, std::memory_order_release);
    }
  }

  // Whether there was something to look at.
  bool help() {
    if (!open.load(std::memory_order_relaxed) || next.load(std::memory_order_relaxed) >= units.load()) return false;
    helpers.fetch_add(1);
    if (open.load()) work();
    helpers.fetch_sub(1);
    return true;
  }
};

constexpr int kBoards = 8;
constexpr int64_t kLinger = 60000;  // nanoseconds

struct Team {
  Board boards[kBoards];
  std::atomic<int> helpers{0};
};

inline Team& team() {
  static Team* one = new Team;  // helpers may outlive static objects
  return *one;
}

inline int64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

inline void linger(void*) {
  Team& all = team();
  int64_t last = nanoseconds();
  for (unsigned spins = 1;; ++spins) {
    bool helped = false;
    for (Board& board : all.boards) helped |= board.help();
    if (helped) {
      last = nanoseconds();
    } else if (spins % 16 == 0 && nanoseconds() - last > kLinger) {
      break;
    }
    pause();
  }
  all.helpers.fetch_sub(1);
}

inline Board* free_board() {
  for (Board& board : team().boards)
    if (!board.taken.load(std::memory_order_relaxed) && !board.taken.exchange(true)) return &board;
  return nullptr;
}

inline void call_helpers(const Call& call, int wanted) {
  for (int missing = wanted - team().helpers.load(); missing > 0; --missing) {
    team().helpers.fetch_add(1);
    if (!call.schedule(linger, nullptr)) team().helpers.fetch_sub(1);
  }
}

// Run f(unit) for each of `units`, on this thread and the pool's. Returns when all are done.
template <class F>
void parallel_for(const Call& call, size_t units, const F& f) {
  size_t threads = units > 1 ? call.threads() : 1;
  if (threads > units) threads = units;
  Board* board = threads > 1 ? free_board() : nullptr;
  if (board == nullptr) {
    for (size_t unit = 0; unit < units; ++unit) f(unit);
    return;
  }
  board->units = units;
  board->context = &f;
  board->run = [](const void* context, size_t unit) { (*static_cast<const F*>(context))(unit); };
  board->next = 0;
  board->done = 0;
  board->open = true;
  call_helpers(call, static_cast<int>(threads) - 1);
  board->work();
  for (unsigned spins = 1; board->done.load(std::memory_order_acquire) < units; ++spins) {
    pause();
    if (spins % 1024 == 0) sched_yield();
  }
  board->open = false;
  while (board->helpers.load() != 0) pause();
  board->taken = false;
}

// Outputs of a unit of work: some for every thread, and no more weights than the second cache holds.
inline size_t outputs_per_unit(size_t outputs, size_t row_bytes) {
  size_t fitting = (192 << 10) / row_bytes, shared = (outputs + 15) / 16;
  size_t chosen = fitting < shared ? fitting : shared;
  chosen -= chosen % 16;
  return chosen < 16 ? 16 : chosen;
}

constexpr size_t kSerial = 40000;  // products that one thread does before another is awake

// A number as a type, to choose a tile's height.
template <int N>
struct Count {
  static constexpr int value = N;
};

}  // namespace jaxserve
