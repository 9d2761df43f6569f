// A collector's state and its threads.
//
// Calls into the driver are made by workers and by the thread that waits for events; each has a Slot that says which
// call it is in. The supervisor never calls the driver: it starts rounds, and finds calls that are out for too long. A
// worker that is stuck in one GPU is replaced by another, which asks the other GPUs, up to kMostStuck times; one that
// is stuck in a call about all GPUs is waited for. Everything is guarded by one mutex, which nobody holds during a
// call.
#pragma once
#include <sys/types.h>

#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "nvml/api.h"
#include "nvml/event_queue.h"
#include "nvml/kernel_log.h"
#include "nvml/query.h"
#include "nvml/slot.h"
#include "textnlp_fast/nvml.h"

namespace textnlp_fast::nvml {

class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(const Options& options, const Api& api, std::string library);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  Status start();
  void stop(double grace_s);
  void sample(double timeout_s, std::vector<Reading>* out);
  void readings(std::vector<Reading>* out);
  void events(double timeout_s, std::vector<Event>* out);
  void state(State* out);
  bool pause(double timeout_s);
  void resume();

  [[nodiscard]] pid_t process() const noexcept { return process_; }

 private:
  using Lock = std::unique_lock<std::mutex>;
  static constexpr unsigned kMostStuck = 3;
  static constexpr unsigned kMostDevices = 1024;
  static constexpr unsigned kEventWaitMs = 100;

  struct Worker;

  struct Device {
    abi::Device handle = nullptr;  // null: gone, or the driver does not give it
    abi::Return handle_error = abi::kSuccess;
    bool gone = false;
    bool read = false;
    Reading latest;
    Known known;
    Worker* busy = nullptr;
    std::int64_t slow_at_ns = 0;
    std::int64_t everything_at_ns = 0;
  };

  struct Thread {
    std::thread thread;
    bool ended = false;
    bool left_behind = false;
  };

  struct Worker {
    explicit Worker(Core* core)
        : slot([this, core](Slot&, const char* call, double seconds) { core->returned(this, call, seconds); }) {}
    Slot slot;
    std::shared_ptr<Device> device;  // that it asks now
    bool replaced = false;
  };

  struct Found {
    abi::Return code = abi::kUnknown;
    abi::Device handle = nullptr;
    Identity identity;
  };

  // core.cpp
  template <class Body>
  void spawn(const char* name, const Body& body);
  void spawn_worker();
  void reap();
  void note(std::string text);
  void snapshot(std::vector<Reading>* out);
  void push(Event event);
  void returned(Worker* worker, const char* call, double seconds);
  void leave_driver(Slot& slot, Lock& lock);

  // rounds.cpp
  void work(const std::shared_ptr<Worker>& worker);
  void round(const std::shared_ptr<Worker>& worker, bool full, Lock& lock);
  bool open_session(Worker& worker, Lock& lock);
  bool close_session(Worker& worker, Lock& lock);
  void fail_session(Worker& worker, abi::Return code, const char* call, Lock& lock);
  bool renew_session(Worker& worker, bool full, Lock& lock);
  bool enumerate(Worker& worker, unsigned count, Lock& lock);
  void merge(std::vector<Found>* found);
  std::shared_ptr<Device> match(const Found& found, unsigned index, const std::vector<Found>& all,
                                std::vector<std::shared_ptr<Device>>* before);
  bool query(const std::shared_ptr<Worker>& worker, const std::shared_ptr<Device>& device, bool full, Lock& lock);

  // watch.cpp
  void supervise();
  std::int64_t find_overdue(std::int64_t now_ns);
  void declare_overdue(Slot& slot, Worker* worker, std::int64_t since_ns);
  void watch_events();
  void watch_session(std::uint64_t session, Lock& lock);
  void take_driver_event(const abi::EventData& data);
  void take_kernel_line(std::string_view line);
  bool any_overdue();

  const Options options_;
  const Api api_;
  const std::string library_;
  const pid_t process_;
  const std::int64_t deadline_ns_;

  std::mutex mutex_;
  std::condition_variable for_supervisor_;
  std::condition_variable for_workers_;
  std::condition_variable for_events_;   // the thread that waits for the driver's
  std::condition_variable for_callers_;  // a round ended, an event came, a thread ended

  bool stopping_ = false;
  bool paused_ = false;
  std::list<Thread> threads_;
  std::vector<std::shared_ptr<Worker>> workers_;  // the last is the active one
  unsigned in_driver_ = 0;                        // threads that make calls
  Slot event_slot_;

  bool round_due_ = false;
  bool in_round_ = false;
  bool full_due_ = false;
  std::uint64_t full_wanted_ = 0;
  std::uint64_t full_taken_ = 0;
  std::uint64_t full_done_ = 0;
  std::uint64_t rounds_ = 0;

  bool initialised_ = false;  // NVML is; past its shutdown only, not, whereas a session ends before that
  bool session_open_ = false;
  bool events_attached_ = false;
  bool events_watched_ = false;       // there is a thread that waits for them
  std::uint64_t events_session_ = 0;  // whose handles are registered, as far as the driver lets them be
  std::uint64_t session_ = 0;         // number of the session, or of the list of handles
  std::int64_t session_began_ns_ = 0;
  std::int64_t retry_at_ns_ = 0;
  std::int64_t retry_pause_ns_ = 0;
  bool not_loaded_ = false;  // the driver said so since the last session
  bool counted_ = false;
  unsigned device_count_ = 0;
  std::vector<std::shared_ptr<Device>> devices_;
  std::string error_;
  std::string driver_version_;
  std::string library_version_;

  std::vector<std::string> notes_;
  EventQueue events_;
  std::map<std::string, std::string> uuids_;  // by PCI address, as the kernel's log told them
  std::uint64_t kernel_log_missed_ = 0;
  std::unique_ptr<KernelLog> kernel_log_;
};

double unix_s() noexcept;

}  // namespace textnlp_fast::nvml
