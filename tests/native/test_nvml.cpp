// The collector on a driver made of functions of this file: hung calls, callers of all kinds, ends while things happen.
// Under a thread sanitizer (-DTEXTNLP_FAST_SANITIZE=thread) this is the test of its locks.
#include "textnlp_fast/nvml.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "nvml/api.h"
#include "nvml/event_queue.h"
#include "nvml/kernel_log.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

constexpr unsigned kGpus = 4;
std::atomic<int> hung_gpu{-1};
std::atomic<bool> hung_count{false};
std::atomic<int> starts{0};
std::atomic<unsigned> xid_for{0};  // GPU + 1 of an XID to come
char places[kGpus];

unsigned index_of(nvml::abi::Device device) { return static_cast<unsigned>(reinterpret_cast<char*>(device) - places); }

void wait_while(const std::function<bool()>& condition) {
  while (condition()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

nvml::Api fake_driver() {
  nvml::Api api;
  api.init = [] {
    ++starts;
    return nvml::abi::kSuccess;
  };
  api.shutdown = [] {
    --starts;
    return nvml::abi::kSuccess;
  };
  api.count = [](unsigned* count) {
    wait_while([] { return hung_count.load(); });
    *count = kGpus;
    return nvml::abi::kSuccess;
  };
  api.by_index = [](unsigned index, nvml::abi::Device* device) {
    *device = reinterpret_cast<nvml::abi::Device>(places + index);
    return nvml::abi::kSuccess;
  };
  api.uuid = [](nvml::abi::Device device, char* text, unsigned) {
    std::strcpy(text, ("GPU-" + std::to_string(index_of(device))).c_str());
    return nvml::abi::kSuccess;
  };
  api.power = [](nvml::abi::Device device, unsigned* power) {
    wait_while([&] { return hung_gpu.load() == static_cast<int>(index_of(device)); });
    *power = 1000 * (1 + index_of(device));
    return nvml::abi::kSuccess;
  };
  api.event_set_create = [](nvml::abi::EventSet* set) {
    *set = reinterpret_cast<nvml::abi::EventSet>(places);
    return nvml::abi::kSuccess;
  };
  api.event_set_free = [](nvml::abi::EventSet) { return nvml::abi::kSuccess; };
  api.register_events = [](nvml::abi::Device, unsigned long long, nvml::abi::EventSet) { return nvml::abi::kSuccess; };
  api.event_set_wait = [](nvml::abi::EventSet, nvml::abi::EventData* data, unsigned timeout_ms) {
    for (unsigned waited = 0; waited < timeout_ms; ++waited) {
      const unsigned gpu = xid_for.exchange(0);
      if (gpu != 0) {
        *data = {reinterpret_cast<nvml::abi::Device>(places + gpu - 1), nvml::abi::kEventXid, 79, ~0U, ~0U};
        return nvml::abi::kSuccess;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return nvml::abi::kTimeout;
  };
  return api;
}

nvml::Options quick() {
  nvml::Options options;
  options.period_s = 0.001;
  options.deadline_s = 0.1;
  options.kernel_log.clear();
  return options;
}

bool wait_for(nvml::Collector& collector, nvml::EventKind kind, nvml::Event* out) {
  for (int tries = 0; tries < 300; ++tries) {
    std::vector<nvml::Event> events;
    CHECK(collector.events(0.1, &events).ok());
    for (const nvml::Event& event : events) {
      if (event.kind != kind) continue;
      *out = event;
      return true;
    }
  }
  return false;
}

void readings_events_and_hangs() {
  nvml::Collector collector;
  CHECK(collector.start_with(quick(), fake_driver(), "fake").ok());
  CHECK(!collector.start_with(quick(), fake_driver(), "fake").ok());
  std::vector<nvml::Reading> readings;
  CHECK(collector.sample(30, &readings).ok());
  CHECK(readings.size() == kGpus);
  for (unsigned gpu = 0; gpu < readings.size(); ++gpu) {
    CHECK(readings[gpu].gpu == "GPU-" + std::to_string(gpu));
    CHECK(readings[gpu].power_w == 1.0 + gpu);
    CHECK(!readings[gpu].temperature_c && readings[gpu].error.empty());
  }
  xid_for = 3;
  nvml::Event event;
  CHECK(wait_for(collector, nvml::EventKind::xid, &event));
  CHECK(event.gpu == "GPU-2" && event.code && *event.code == 79);

  hung_gpu = 1;
  CHECK(wait_for(collector, nvml::EventKind::driver_hung, &event));
  CHECK(event.gpu == "GPU-1");
  readings.clear();
  CHECK(collector.sample(30, &readings).ok());
  CHECK(readings.size() == kGpus && !readings[1].power_w && !readings[1].error.empty() && readings[2].power_w);
  hung_gpu = -1;
  CHECK(wait_for(collector, nvml::EventKind::driver_answers, &event));

  hung_count = true;
  CHECK(wait_for(collector, nvml::EventKind::driver_hung, &event));
  CHECK(event.gpu.empty());
  nvml::State state;
  CHECK(collector.state(&state).ok() && state.hung);
  hung_count = false;
  CHECK(wait_for(collector, nvml::EventKind::driver_answers, &event));
  bool released = false;
  CHECK(collector.pause(30, &released).ok() && released && starts == 0);
  CHECK(collector.resume().ok());
  CHECK(collector.sample(30, &readings).ok() && starts == 1);
  // A round may be due at the moment of a pause, when no worker has taken it yet.
  for (int times = 0; times < 40; ++times) {
    CHECK(collector.pause(30, &released).ok() && released);
    CHECK(collector.resume().ok());
    const auto began = std::chrono::steady_clock::now();
    CHECK(collector.sample(20, &readings).ok() && starts == 1);
    if (std::chrono::steady_clock::now() - began > std::chrono::seconds(19)) {
      CHECK(!"a sample after a resume never came");
      break;
    }
  }
  collector.stop(30);
  CHECK(starts == 0);
  CHECK(!collector.readings(&readings).ok());
}

void callers_of_all_kinds_at_once() {
  nvml::Collector collector;
  CHECK(collector.start_with(quick(), fake_driver(), "fake").ok());
  std::vector<std::thread> callers;
  callers.reserve(4);
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int each = 0; each < 50; ++each) {
        std::vector<nvml::Reading> readings;
        std::vector<nvml::Event> events;
        nvml::State state;
        (void)collector.sample(5, &readings);
        (void)collector.readings(&readings);
        (void)collector.events(0, &events);
        (void)collector.state(&state);
        xid_for = 1;
      }
    });
  }
  std::thread hangs([&] {
    for (int each = 0; each < 3; ++each) {
      hung_gpu = each;
      std::this_thread::sleep_for(std::chrono::milliseconds(150));
      hung_gpu = -1;
    }
  });
  for (std::thread& each : callers) each.join();
  hangs.join();
  std::thread stopper([&] { collector.stop(30); });
  std::vector<nvml::Event> events;
  (void)collector.events(30, &events);
  stopper.join();
}

void destroyed_while_hung() {
  {
    nvml::Collector collector;
    CHECK(collector.start_with(quick(), fake_driver(), "fake").ok());
    hung_gpu = 0;
    std::vector<nvml::Reading> readings;
    CHECK(collector.sample(0.3, &readings).ok());
  }
  CHECK(nvml::threads_left_behind() >= 1);
  hung_gpu = -1;
  for (int tries = 0; tries < 3000 && nvml::threads_left_behind() != 0; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(nvml::threads_left_behind() == 0);
}

void many_starts_and_ends() {
  for (int each = 0; each < 100; ++each) {
    nvml::Collector collector;
    CHECK(collector.start_with(quick(), fake_driver(), "fake").ok());
    collector.stop(30);
  }
  CHECK(starts == 0);
  CHECK(nvml::threads_left_behind() == 0);
}

void lines_in_any_pieces() {
  const std::string text = "4,1,2,-;first\n KEY=value\n4,2,3,-;second\n";
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    nvml::KernelLog log;
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      const std::string part = text.substr(at, piece);
      log.feed(part.data(), part.size(), [&](std::string_view line) { lines.emplace_back(line); });
    }
    CHECK(lines.size() == 3 && lines[0] == "4,1,2,-;first" && lines[2] == "4,2,3,-;second");
  }
}

void the_same_from_two_sources_is_one() {
  nvml::EventQueue queue;
  nvml::Event driver;
  nvml::Event kernel;
  kernel.source = "kmsg";
  CHECK(queue.push_once("a", 0, 10, driver));
  CHECK(queue.push_once("a", 1, 10, driver));
  CHECK(!queue.push_once("a", 2, 10, kernel));
  CHECK(!queue.push_once("a", 3, 10, kernel));
  CHECK(queue.push_once("a", 4, 10, kernel));
  CHECK(queue.push_once("b", 5, 10, driver));
  CHECK(queue.push_once("a", 15, 10, driver));
  CHECK(queue.take().size() == 5 && queue.empty());
}

}  // namespace

int main() {
  readings_events_and_hangs();
  callers_of_all_kinds_at_once();
  destroyed_while_hung();
  many_starts_and_ends();
  lines_in_any_pieces();
  the_same_from_two_sources_is_one();
  return finish();
}
