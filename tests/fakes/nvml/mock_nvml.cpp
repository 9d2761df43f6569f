// A libnvidia-ml.so.1 without a GPU behind it, compiled against NVIDIA's own header: the compiler sees to it that the
// symbols and structures are the real ones. What it answers is in a file beside the library, mapped by every process
// that loads it: `mock.py` writes there, from the test's process, while a child reads. mock_layout() says what is
// where.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <nvml.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

// Built with every symbol of all times; a linker script leaves out what an older driver had not got.
#undef nvmlInit
#undef nvmlDeviceGetPciInfo
#undef nvmlDeviceGetCount
#undef nvmlDeviceGetHandleByIndex
#undef nvmlEventSetWait

namespace {

constexpr int kMostGpus = 16;
constexpr int kLinks = NVML_NVLINK_MAX_LINKS;
constexpr int kEvents = 4096;

// The formatter finds no end in these.
// clang-format off
#define GPU_NUMBERS(X) \
  X(present) X(lost) X(domain) X(bus) X(device) X(utilization) X(memory_total) X(memory_used) X(memory_reserved) \
  X(temperature) X(margin) X(threshold_slowdown) X(threshold_gpu_max) X(power_mw) X(enforced_limit_mw) \
  X(management_limit_mw) X(sm_clock) X(memory_clock) X(reasons) X(ecc_corrected) X(ecc_uncorrected) \
  X(rows_corrected) X(rows_uncorrected) X(rows_pending) X(rows_failed) X(retired_pending) X(pcie_replays) \
  X(pcie_width) X(pcie_width_max) X(pcie_generation) X(pcie_generation_max) X(fabric_state) X(fabric_status) \
  X(fabric_health) X(links) X(memory_temperature) X(recovery_action)

#define FUNCTIONS(X) \
  X(nvmlInit) X(nvmlShutdown) X(nvmlSystemGetDriverVersion) X(nvmlSystemGetNVMLVersion) X(nvmlDeviceGetCount) \
  X(nvmlDeviceGetHandleByIndex) X(nvmlDeviceGetName) X(nvmlDeviceGetUUID) X(nvmlDeviceGetPciInfo) \
  X(nvmlDeviceGetUtilizationRates) X(nvmlDeviceGetMemoryInfo) X(nvmlDeviceGetMemoryInfo_v2) \
  X(nvmlDeviceGetTemperature) X(nvmlDeviceGetTemperatureV) X(nvmlDeviceGetTemperatureThreshold) \
  X(nvmlDeviceGetMarginTemperature) X(nvmlDeviceGetPowerUsage) X(nvmlDeviceGetEnforcedPowerLimit) \
  X(nvmlDeviceGetPowerManagementLimit) X(nvmlDeviceGetClockInfo) X(nvmlDeviceGetCurrentClocksEventReasons) \
  X(nvmlDeviceGetTotalEccErrors) X(nvmlDeviceGetRemappedRows) X(nvmlDeviceGetRetiredPagesPendingStatus) \
  X(nvmlDeviceGetNvLinkState) X(nvmlDeviceGetNvLinkErrorCounter) X(nvmlDeviceGetPcieReplayCounter) \
  X(nvmlDeviceGetCurrPcieLinkWidth) X(nvmlDeviceGetMaxPcieLinkWidth) X(nvmlDeviceGetCurrPcieLinkGeneration) \
  X(nvmlDeviceGetMaxPcieLinkGeneration) X(nvmlDeviceGetGpuFabricInfoV) X(nvmlDeviceGetGpuFabricInfo) \
  X(nvmlDeviceGetFieldValues) X(nvmlEventSetCreate) X(nvmlEventSetFree) X(nvmlEventSetWait) \
  X(nvmlDeviceRegisterEvents)

// The fields that are answered; each has a return code of its own.
#define FIELDS(X) \
  X(MEMORY_TEMP) X(NVLINK_LINK_COUNT) X(PCIE_REPLAY_COUNTER) X(REMAPPED_COR) X(REMAPPED_UNC) X(REMAPPED_PENDING) \
  X(REMAPPED_FAILURE) X(NVLINK_ERROR_DL_REPLAY) X(NVLINK_ERROR_DL_RECOVERY) X(NVLINK_ERROR_DL_CRC) \
  X(NVLINK_COUNT_LINK_RECOVERY_EVENTS) X(GET_GPU_RECOVERY_ACTION)
// clang-format on

enum Function {
#define X(name) F_##name,
  FUNCTIONS(X)
#undef X
      kFunctions
};

enum Field {
#define X(name) FIELD_##name,
  FIELDS(X)
#undef X
      kFields
};

struct Gpu {
#define X(name) std::int64_t name;
  GPU_NUMBERS(X)
#undef X
  std::int64_t link_active[kLinks];
  std::int64_t link_replays[kLinks];
  std::int64_t link_recoveries[kLinks];
  std::int64_t link_crc[kLinks];
  std::int64_t link_crc_data[kLinks];
  std::int64_t link_recovery_events[kLinks];
  std::int64_t returns[kFunctions];
  std::int64_t delay_us[kFunctions];
  std::int64_t hang[kFunctions];
  std::int64_t field_returns[kFields];
  std::int64_t field_types[kFields];  // below 0: the one that the driver gives
  double field_double;                // what a field of type double reads as
  char name[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
  char uuid[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
};

struct QueuedEvent {
  std::int64_t gpu;
  std::int64_t type;
  std::int64_t data;
  std::int64_t gpu_instance;
  std::int64_t compute_instance;
};

struct State {
  std::int64_t ready;
  std::int64_t fabric_version;  // the newest nvmlGpuFabricInfo that is known
  std::int64_t pci_bus_id;      // 0: of the time before CUDA 9, which filled the old field only
  std::int64_t returns[kFunctions];
  std::int64_t delay_us[kFunctions];
  std::int64_t hang[kFunctions];
  std::int64_t calls[kFunctions];  // made, in all processes
  std::int64_t initialised;        // processes' starts less their shutdowns
  char driver_version[80];
  char library_version[80];
  Gpu gpus[kMostGpus];
  QueuedEvent events[kEvents];
  std::uint32_t event_count;  // ever queued; a futex
  std::uint32_t padding;
};

State* state = nullptr;
int starts = 0;  // of this process
std::mutex starts_mutex;
struct nvmlDevice_st* handles = reinterpret_cast<struct nvmlDevice_st*>(0x1000);  // never looked into

struct EventSet {
  std::uint32_t next = 0;
  unsigned long long types[kMostGpus] = {};
};

void pause_us(std::int64_t us) {
  timespec time{us / 1'000'000, us % 1'000'000 * 1000};
  while (nanosleep(&time, &time) != 0 && errno == EINTR) {
  }
}

__attribute__((constructor)) void open_state() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&open_state), &info) == 0) std::abort();
  std::string path = info.dli_fname;
  path = path.substr(0, path.rfind('/') + 1) + "mock-nvml-state";
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, sizeof(State)) != 0) std::abort();
  void* memory = mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) std::abort();
  close(file);
  state = static_cast<State*>(memory);
}

// What every call does first. `gpu` below 0: the call is about none.
nvmlReturn_t enter(int gpu, Function function) {
  __atomic_add_fetch(&state->calls[function], 1, __ATOMIC_RELAXED);
  const auto slow = [&](const std::int64_t* delays, const std::int64_t* hangs) {
    if (delays[function] > 0) pause_us(delays[function]);
    while (__atomic_load_n(&hangs[function], __ATOMIC_RELAXED) != 0) pause_us(2000);
  };
  slow(state->delay_us, state->hang);
  if (gpu >= 0) slow(state->gpus[gpu].delay_us, state->gpus[gpu].hang);
  if (starts <= 0 && function != F_nvmlInit) return NVML_ERROR_UNINITIALIZED;
  if (state->returns[function] != 0) return static_cast<nvmlReturn_t>(state->returns[function]);
  if (gpu < 0) return NVML_SUCCESS;
  const Gpu& one = state->gpus[gpu];
  if (one.lost != 0 || one.present == 0) return NVML_ERROR_GPU_IS_LOST;
  return static_cast<nvmlReturn_t>(one.returns[function]);
}

int index_of(nvmlDevice_t device) {
  const auto offset = reinterpret_cast<std::uintptr_t>(device) - reinterpret_cast<std::uintptr_t>(handles);
  return offset % 16 == 0 && offset / 16 < kMostGpus ? static_cast<int>(offset / 16) : -1;
}

nvmlDevice_t handle_of(int gpu) {
  return reinterpret_cast<nvmlDevice_t>(reinterpret_cast<std::uintptr_t>(handles) + 16 * static_cast<unsigned>(gpu));
}

// The body of a query: checks the handle, does what every call does, then `body` with the GPU's state.
template <class Body>
nvmlReturn_t about(nvmlDevice_t device, Function function, const Body& body) {
  const int gpu = index_of(device);
  if (gpu < 0) return NVML_ERROR_INVALID_ARGUMENT;
  const nvmlReturn_t code = enter(gpu, function);
  return code != NVML_SUCCESS ? code : body(state->gpus[gpu]);
}

nvmlReturn_t number(nvmlDevice_t device, Function function, unsigned* out, std::int64_t Gpu::*member) {
  return about(device, function, [&](const Gpu& gpu) {
    *out = static_cast<unsigned>(gpu.*member);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t copy(const char* text, char* out, unsigned length) {
  // As garbage may fill the whole of it, the terminator is not to be relied on.
  const std::size_t size = strnlen(text, 96);
  if (length < size) return NVML_ERROR_INSUFFICIENT_SIZE;
  std::memcpy(out, text, size);
  if (size < length) out[size] = '\0';
  return NVML_SUCCESS;
}

void answer(nvmlFieldValue_t* value, const Gpu& gpu, Field field, std::int64_t number, nvmlValueType_t type) {
  value->nvmlReturn = static_cast<nvmlReturn_t>(gpu.field_returns[field]);
  if (value->nvmlReturn != NVML_SUCCESS) return;
  value->timestamp = 1;
  value->latencyUsec = 1;
  value->valueType = gpu.field_types[field] < 0 ? type : static_cast<nvmlValueType_t>(gpu.field_types[field]);
  std::memset(&value->value, 0, sizeof value->value);
  switch (value->valueType) {
    case NVML_VALUE_TYPE_DOUBLE: value->value.dVal = gpu.field_double; break;
    case NVML_VALUE_TYPE_UNSIGNED_INT: value->value.uiVal = static_cast<unsigned>(number); break;
    case NVML_VALUE_TYPE_UNSIGNED_LONG: value->value.ulVal = static_cast<unsigned long>(number); break;
    case NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: value->value.ullVal = static_cast<unsigned long long>(number); break;
    case NVML_VALUE_TYPE_SIGNED_LONG_LONG: value->value.sllVal = number; break;
    case NVML_VALUE_TYPE_SIGNED_INT: value->value.siVal = static_cast<int>(number); break;
    case NVML_VALUE_TYPE_UNSIGNED_SHORT: value->value.usVal = static_cast<unsigned short>(number); break;
    default: break;
  }
}

void answer_link(nvmlFieldValue_t* value, const Gpu& gpu, Field field, const std::int64_t* numbers) {
  if (value->scopeId >= static_cast<unsigned>(gpu.links)) {
    value->nvmlReturn = NVML_ERROR_INVALID_ARGUMENT;
    return;
  }
  answer(value, gpu, field, numbers[value->scopeId], NVML_VALUE_TYPE_UNSIGNED_LONG_LONG);
}

void answer_field(nvmlFieldValue_t* value, const Gpu& gpu) {
  constexpr auto kUnsigned = NVML_VALUE_TYPE_UNSIGNED_INT;
  switch (value->fieldId) {
    case NVML_FI_DEV_MEMORY_TEMP: return answer(value, gpu, FIELD_MEMORY_TEMP, gpu.memory_temperature, kUnsigned);
    case NVML_FI_DEV_NVLINK_LINK_COUNT: return answer(value, gpu, FIELD_NVLINK_LINK_COUNT, gpu.links, kUnsigned);
    case NVML_FI_DEV_PCIE_REPLAY_COUNTER:
      return answer(value, gpu, FIELD_PCIE_REPLAY_COUNTER, gpu.pcie_replays, kUnsigned);
    case NVML_FI_DEV_REMAPPED_COR: return answer(value, gpu, FIELD_REMAPPED_COR, gpu.rows_corrected, kUnsigned);
    case NVML_FI_DEV_REMAPPED_UNC: return answer(value, gpu, FIELD_REMAPPED_UNC, gpu.rows_uncorrected, kUnsigned);
    case NVML_FI_DEV_REMAPPED_PENDING: return answer(value, gpu, FIELD_REMAPPED_PENDING, gpu.rows_pending, kUnsigned);
    case NVML_FI_DEV_REMAPPED_FAILURE: return answer(value, gpu, FIELD_REMAPPED_FAILURE, gpu.rows_failed, kUnsigned);
    case NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY:
      return answer_link(value, gpu, FIELD_NVLINK_ERROR_DL_REPLAY, gpu.link_replays);
    case NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY:
      return answer_link(value, gpu, FIELD_NVLINK_ERROR_DL_RECOVERY, gpu.link_recoveries);
    case NVML_FI_DEV_NVLINK_ERROR_DL_CRC: return answer_link(value, gpu, FIELD_NVLINK_ERROR_DL_CRC, gpu.link_crc);
    case NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS:
      return answer_link(value, gpu, FIELD_NVLINK_COUNT_LINK_RECOVERY_EVENTS, gpu.link_recovery_events);
    case NVML_FI_DEV_GET_GPU_RECOVERY_ACTION:
      return answer(value, gpu, FIELD_GET_GPU_RECOVERY_ACTION, gpu.recovery_action, kUnsigned);
    default: value->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
  }
}

nvmlReturn_t start() {
  const nvmlReturn_t code = enter(-1, F_nvmlInit);
  if (code != NVML_SUCCESS) return code;
  const std::lock_guard<std::mutex> lock(starts_mutex);
  ++starts;
  __atomic_add_fetch(&state->initialised, 1, __ATOMIC_RELAXED);
  return NVML_SUCCESS;
}

void wake() { syscall(SYS_futex, &state->event_count, FUTEX_WAKE, 1 << 30, nullptr, nullptr, 0); }

bool take_event(EventSet* set, nvmlEventData_t* data) {
  const std::uint32_t count = __atomic_load_n(&state->event_count, __ATOMIC_ACQUIRE);
  while (set->next != count) {
    const QueuedEvent& event = state->events[set->next++ % kEvents];
    if (event.gpu < 0 || event.gpu >= kMostGpus ||
        (set->types[event.gpu] & static_cast<unsigned long long>(event.type)) == 0) {
      continue;
    }
    data->device = handle_of(static_cast<int>(event.gpu));
    data->eventType = static_cast<unsigned long long>(event.type);
    data->eventData = static_cast<unsigned long long>(event.data);
    data->gpuInstanceId = static_cast<unsigned>(event.gpu_instance);
    data->computeInstanceId = static_cast<unsigned>(event.compute_instance);
    return true;
  }
  return false;
}

std::int64_t now_us() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000'000LL + time.tv_nsec / 1000;
}

nvmlReturn_t wait_event(nvmlEventSet_t handle, nvmlEventData_t* data, unsigned timeout_ms) {
  const nvmlReturn_t code = enter(-1, F_nvmlEventSetWait);
  if (code != NVML_SUCCESS) return code;
  auto* set = reinterpret_cast<EventSet*>(handle);
  const std::int64_t end_us = now_us() + timeout_ms * 1000LL;
  while (true) {
    const std::uint32_t seen = __atomic_load_n(&state->event_count, __ATOMIC_ACQUIRE);
    if (take_event(set, data)) return NVML_SUCCESS;
    const std::int64_t left_us = end_us - now_us();
    if (left_us <= 0) return NVML_ERROR_TIMEOUT;
    const timespec left{left_us / 1'000'000, left_us % 1'000'000 * 1000};
    syscall(SYS_futex, &state->event_count, FUTEX_WAIT, seen, &left, nullptr, 0);
  }
}

nvmlReturn_t fill_pci(nvmlDevice_t device, nvmlPciInfo_t* pci) {
  return about(device, F_nvmlDeviceGetPciInfo, [&](const Gpu& gpu) {
    std::memset(pci, 0, sizeof *pci);
    pci->domain = static_cast<unsigned>(gpu.domain);
    pci->bus = static_cast<unsigned>(gpu.bus);
    pci->device = static_cast<unsigned>(gpu.device);
    std::snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xFFFF, pci->bus & 0xFF,
                  pci->device & 0xFF);
    if (state->pci_bus_id != 0) {
      std::snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", pci->domain, pci->bus, pci->device);
    }
    return NVML_SUCCESS;
  });
}

nvmlReturn_t count_gpus(unsigned* count) {
  const nvmlReturn_t code = enter(-1, F_nvmlDeviceGetCount);
  if (code != NVML_SUCCESS) return code;
  *count = 0;
  for (const Gpu& gpu : state->gpus) *count += gpu.present != 0 ? 1 : 0;
  return NVML_SUCCESS;
}

nvmlReturn_t find_gpu(unsigned index, nvmlDevice_t* device) {
  for (int gpu = 0; gpu < kMostGpus; ++gpu) {
    if (state->gpus[gpu].present == 0 || index-- != 0) continue;
    const nvmlReturn_t code = enter(gpu, F_nvmlDeviceGetHandleByIndex);
    if (code == NVML_SUCCESS) *device = handle_of(gpu);
    return code;
  }
  const nvmlReturn_t code = enter(-1, F_nvmlDeviceGetHandleByIndex);
  return code != NVML_SUCCESS ? code : NVML_ERROR_INVALID_ARGUMENT;
}

}  // namespace

extern "C" {

// Lines of `name offset kind count`, kind one of i (int64), d (double), s (a string of `count` bytes), and of
// `function name number`, `field name number`.
const char* mock_layout() {
  static const std::string text = [] {
    std::string out;
    const auto line = [&out](const std::string& name, std::size_t offset, const char* kind, std::size_t count) {
      out += name + ' ' + std::to_string(offset) + ' ' + kind + ' ' + std::to_string(count) + '\n';
    };
    line("state.size", sizeof(State), "x", 1);
    line("gpu.size", sizeof(Gpu), "x", 1);
    line("gpu.first", offsetof(State, gpus), "x", kMostGpus);
    line("state.ready", offsetof(State, ready), "i", 1);
    line("state.fabric_version", offsetof(State, fabric_version), "i", 1);
    line("state.pci_bus_id", offsetof(State, pci_bus_id), "i", 1);
    line("state.returns", offsetof(State, returns), "i", kFunctions);
    line("state.delay_us", offsetof(State, delay_us), "i", kFunctions);
    line("state.hang", offsetof(State, hang), "i", kFunctions);
    line("state.calls", offsetof(State, calls), "i", kFunctions);
    line("state.initialised", offsetof(State, initialised), "i", 1);
    line("state.driver_version", offsetof(State, driver_version), "s", sizeof(State::driver_version));
    line("state.library_version", offsetof(State, library_version), "s", sizeof(State::library_version));
#define X(name) line("gpu." #name, offsetof(Gpu, name), "i", 1);
    GPU_NUMBERS(X)
#undef X
    line("gpu.link_active", offsetof(Gpu, link_active), "i", kLinks);
    line("gpu.link_replays", offsetof(Gpu, link_replays), "i", kLinks);
    line("gpu.link_recoveries", offsetof(Gpu, link_recoveries), "i", kLinks);
    line("gpu.link_crc", offsetof(Gpu, link_crc), "i", kLinks);
    line("gpu.link_crc_data", offsetof(Gpu, link_crc_data), "i", kLinks);
    line("gpu.link_recovery_events", offsetof(Gpu, link_recovery_events), "i", kLinks);
    line("gpu.returns", offsetof(Gpu, returns), "i", kFunctions);
    line("gpu.delay_us", offsetof(Gpu, delay_us), "i", kFunctions);
    line("gpu.hang", offsetof(Gpu, hang), "i", kFunctions);
    line("gpu.field_returns", offsetof(Gpu, field_returns), "i", kFields);
    line("gpu.field_types", offsetof(Gpu, field_types), "i", kFields);
    line("gpu.field_double", offsetof(Gpu, field_double), "d", 1);
    line("gpu.name", offsetof(Gpu, name), "s", sizeof(Gpu::name));
    line("gpu.uuid", offsetof(Gpu, uuid), "s", sizeof(Gpu::uuid));
#define X(name) line("function." #name, F_##name, "x", 1);
    FUNCTIONS(X)
#undef X
#define X(name) line("field." #name, FIELD_##name, "x", 1);
    FIELDS(X)
#undef X
    return out;
  }();
  return text.c_str();
}

void mock_push_event(std::int64_t gpu, std::int64_t type, std::int64_t data, std::int64_t gpu_instance,
                     std::int64_t compute_instance) {
  state->events[state->event_count % kEvents] = {gpu, type, data, gpu_instance, compute_instance};
  __atomic_add_fetch(&state->event_count, 1, __ATOMIC_RELEASE);
  wake();
}

nvmlReturn_t nvmlInit_v2(void) { return start(); }
nvmlReturn_t nvmlInit(void) { return start(); }
nvmlReturn_t nvmlInitWithFlags(unsigned int) { return start(); }

nvmlReturn_t nvmlShutdown(void) {
  const nvmlReturn_t code = enter(-1, F_nvmlShutdown);
  if (code != NVML_SUCCESS) return code;
  const std::lock_guard<std::mutex> lock(starts_mutex);
  --starts;
  __atomic_sub_fetch(&state->initialised, 1, __ATOMIC_RELAXED);
  return NVML_SUCCESS;
}

const char* nvmlErrorString(nvmlReturn_t) { return "an error of the mock's"; }

nvmlReturn_t nvmlSystemGetDriverVersion(char* version, unsigned int length) {
  const nvmlReturn_t code = enter(-1, F_nvmlSystemGetDriverVersion);
  return code != NVML_SUCCESS ? code : copy(state->driver_version, version, length);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char* version, unsigned int length) {
  const nvmlReturn_t code = enter(-1, F_nvmlSystemGetNVMLVersion);
  return code != NVML_SUCCESS ? code : copy(state->library_version, version, length);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int* count) { return count_gpus(count); }
nvmlReturn_t nvmlDeviceGetCount(unsigned int* count) { return count_gpus(count); }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t* device) { return find_gpu(index, device); }
nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t* device) { return find_gpu(index, device); }

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char* name, unsigned int length) {
  return about(device, F_nvmlDeviceGetName, [&](const Gpu& gpu) { return copy(gpu.name, name, length); });
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* uuid, unsigned int length) {
  return about(device, F_nvmlDeviceGetUUID, [&](const Gpu& gpu) { return copy(gpu.uuid, uuid, length); });
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t* pci) { return fill_pci(device, pci); }
nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t* pci) { return fill_pci(device, pci); }
nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t* pci) { return fill_pci(device, pci); }

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t* utilization) {
  return about(device, F_nvmlDeviceGetUtilizationRates, [&](const Gpu& gpu) {
    utilization->gpu = static_cast<unsigned>(gpu.utilization);
    utilization->memory = 0;
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* memory) {
  return about(device, F_nvmlDeviceGetMemoryInfo, [&](const Gpu& gpu) {
    // Version 1 counts what the driver reserves as used.
    memory->total = static_cast<unsigned long long>(gpu.memory_total);
    memory->used = static_cast<unsigned long long>(gpu.memory_used + gpu.memory_reserved);
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* memory) {
  return about(device, F_nvmlDeviceGetMemoryInfo_v2, [&](const Gpu& gpu) {
    if (memory->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memory->total = static_cast<unsigned long long>(gpu.memory_total);
    memory->reserved = static_cast<unsigned long long>(gpu.memory_reserved);
    memory->used = static_cast<unsigned long long>(gpu.memory_used);
    memory->free = memory->total - memory->used - memory->reserved;
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t, unsigned int* temperature) {
  return number(device, F_nvmlDeviceGetTemperature, temperature, &Gpu::temperature);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t* temperature) {
  return about(device, F_nvmlDeviceGetTemperatureV, [&](const Gpu& gpu) {
    if (temperature->version != nvmlTemperature_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (temperature->sensorType != NVML_TEMPERATURE_GPU) return NVML_ERROR_INVALID_ARGUMENT;
    temperature->temperature = static_cast<int>(gpu.temperature);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t threshold,
                                               unsigned int* temperature) {
  return about(device, F_nvmlDeviceGetTemperatureThreshold, [&](const Gpu& gpu) {
    const std::int64_t value = threshold == NVML_TEMPERATURE_THRESHOLD_GPU_MAX    ? gpu.threshold_gpu_max
                               : threshold == NVML_TEMPERATURE_THRESHOLD_SLOWDOWN ? gpu.threshold_slowdown
                                                                                  : -1;
    if (value < 0) return NVML_ERROR_NOT_SUPPORTED;
    *temperature = static_cast<unsigned>(value);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t* margin) {
  return about(device, F_nvmlDeviceGetMarginTemperature, [&](const Gpu& gpu) {
    if (margin->version != nvmlMarginTemperature_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    margin->marginTemperature = static_cast<int>(gpu.margin);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int* power) {
  return number(device, F_nvmlDeviceGetPowerUsage, power, &Gpu::power_mw);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int* limit) {
  return number(device, F_nvmlDeviceGetEnforcedPowerLimit, limit, &Gpu::enforced_limit_mw);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int* limit) {
  return number(device, F_nvmlDeviceGetPowerManagementLimit, limit, &Gpu::management_limit_mw);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int* clock) {
  return about(device, F_nvmlDeviceGetClockInfo, [&](const Gpu& gpu) {
    if (type != NVML_CLOCK_SM && type != NVML_CLOCK_MEM) return NVML_ERROR_INVALID_ARGUMENT;
    *clock = static_cast<unsigned>(type == NVML_CLOCK_SM ? gpu.sm_clock : gpu.memory_clock);
    return NVML_SUCCESS;
  });
}

static nvmlReturn_t give_reasons(nvmlDevice_t device, unsigned long long* reasons) {
  return about(device, F_nvmlDeviceGetCurrentClocksEventReasons, [&](const Gpu& gpu) {
    *reasons = static_cast<unsigned long long>(gpu.reasons);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long* reasons) {
  return give_reasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long* reasons) {
  return give_reasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
                                         unsigned long long* count) {
  return about(device, F_nvmlDeviceGetTotalEccErrors, [&](const Gpu& gpu) {
    if (counter != NVML_VOLATILE_ECC) return NVML_ERROR_NOT_SUPPORTED;
    *count = static_cast<unsigned long long>(type == NVML_MEMORY_ERROR_TYPE_CORRECTED ? gpu.ecc_corrected
                                                                                      : gpu.ecc_uncorrected);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int* corrected, unsigned int* uncorrected,
                                       unsigned int* pending, unsigned int* failed) {
  return about(device, F_nvmlDeviceGetRemappedRows, [&](const Gpu& gpu) {
    *corrected = static_cast<unsigned>(gpu.rows_corrected);
    *uncorrected = static_cast<unsigned>(gpu.rows_uncorrected);
    *pending = static_cast<unsigned>(gpu.rows_pending);
    *failed = static_cast<unsigned>(gpu.rows_failed);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, nvmlEnableState_t* pending) {
  return about(device, F_nvmlDeviceGetRetiredPagesPendingStatus, [&](const Gpu& gpu) {
    *pending = gpu.retired_pending != 0 ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, nvmlEnableState_t* active) {
  return about(device, F_nvmlDeviceGetNvLinkState, [&](const Gpu& gpu) {
    if (link >= static_cast<unsigned>(gpu.links)) return NVML_ERROR_INVALID_ARGUMENT;
    *active = gpu.link_active[link] != 0 ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned int link, nvmlNvLinkErrorCounter_t counter,
                                             unsigned long long* value) {
  return about(device, F_nvmlDeviceGetNvLinkErrorCounter, [&](const Gpu& gpu) {
    if (link >= static_cast<unsigned>(gpu.links)) return NVML_ERROR_INVALID_ARGUMENT;
    const std::int64_t* numbers = counter == NVML_NVLINK_ERROR_DL_REPLAY     ? gpu.link_replays
                                  : counter == NVML_NVLINK_ERROR_DL_RECOVERY ? gpu.link_recoveries
                                  : counter == NVML_NVLINK_ERROR_DL_CRC_FLIT ? gpu.link_crc
                                  : counter == NVML_NVLINK_ERROR_DL_CRC_DATA ? gpu.link_crc_data
                                                                             : nullptr;
    if (numbers == nullptr) return NVML_ERROR_NOT_SUPPORTED;
    *value = static_cast<unsigned long long>(numbers[link]);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t device, unsigned int* value) {
  return number(device, F_nvmlDeviceGetPcieReplayCounter, value, &Gpu::pcie_replays);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int* width) {
  return number(device, F_nvmlDeviceGetCurrPcieLinkWidth, width, &Gpu::pcie_width);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int* width) {
  return number(device, F_nvmlDeviceGetMaxPcieLinkWidth, width, &Gpu::pcie_width_max);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned int* generation) {
  return number(device, F_nvmlDeviceGetCurrPcieLinkGeneration, generation, &Gpu::pcie_generation);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int* generation) {
  return number(device, F_nvmlDeviceGetMaxPcieLinkGeneration, generation, &Gpu::pcie_generation_max);
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t* info) {
  return about(device, F_nvmlDeviceGetGpuFabricInfo, [&](const Gpu& gpu) {
    info->state = static_cast<unsigned char>(gpu.fabric_state);
    info->status = static_cast<nvmlReturn_t>(gpu.fabric_status);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t* info) {
  return about(device, F_nvmlDeviceGetGpuFabricInfoV, [&](const Gpu& gpu) {
    if (info->version == nvmlGpuFabricInfo_v2) {
      auto* v2 = reinterpret_cast<nvmlGpuFabricInfo_v2_t*>(info);
      v2->state = static_cast<unsigned char>(gpu.fabric_state);
      v2->status = static_cast<nvmlReturn_t>(gpu.fabric_status);
      v2->healthMask = 0;
      return NVML_SUCCESS;
    }
    if (info->version != nvmlGpuFabricInfo_v3 || state->fabric_version < 3) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    auto* v3 = reinterpret_cast<nvmlGpuFabricInfo_v3_t*>(info);
    v3->state = static_cast<unsigned char>(gpu.fabric_state);
    v3->status = static_cast<nvmlReturn_t>(gpu.fabric_status);
    v3->healthMask = 0;
    v3->healthSummary = static_cast<unsigned char>(gpu.fabric_health);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t* values) {
  return about(device, F_nvmlDeviceGetFieldValues, [&](const Gpu& gpu) {
    for (int each = 0; each < count; ++each) answer_field(&values[each], gpu);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t* set) {
  const nvmlReturn_t code = enter(-1, F_nvmlEventSetCreate);
  if (code != NVML_SUCCESS) return code;
  auto* made = new EventSet;
  made->next = __atomic_load_n(&state->event_count, __ATOMIC_ACQUIRE);
  *set = reinterpret_cast<nvmlEventSet_t>(made);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  const nvmlReturn_t code = enter(-1, F_nvmlEventSetFree);
  if (code == NVML_SUCCESS) delete reinterpret_cast<EventSet*>(set);
  return code;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
  const int gpu = index_of(device);
  return about(device, F_nvmlDeviceRegisterEvents, [&](const Gpu&) {
    reinterpret_cast<EventSet*>(set)->types[gpu] |= types;
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t, unsigned long long* types) {
  *types = nvmlEventTypeXidCriticalError;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t* data, unsigned int timeout_ms) {
  return wait_event(set, data, timeout_ms);
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t* data, unsigned int timeout_ms) {
  return wait_event(set, data, timeout_ms);
}

}  // extern "C"
