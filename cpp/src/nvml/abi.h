// NVML's binary interface, as much of it as the collector uses. It is stated here so that building needs neither
// NVIDIA's header nor its library; tests/gpu/health/test_nvml_abi.py compiles it against NVIDIA's header, where that
// is.
#pragma once
#include <cstdint>

namespace textnlp_fast::nvml::abi {

// C enums, which are ints here; a driver newer than this may answer with codes that have no name yet.
using Return = std::int32_t;
inline constexpr Return kSuccess = 0;
inline constexpr Return kUninitialized = 1;
inline constexpr Return kInvalidArgument = 2;
inline constexpr Return kNotSupported = 3;
inline constexpr Return kNoPermission = 4;
inline constexpr Return kNotFound = 6;
inline constexpr Return kDriverNotLoaded = 9;
inline constexpr Return kTimeout = 10;
inline constexpr Return kFunctionNotFound = 13;
inline constexpr Return kGpuIsLost = 15;
inline constexpr Return kLibRmVersionMismatch = 18;
inline constexpr Return kNoData = 21;
inline constexpr Return kArgumentVersionMismatch = 25;
inline constexpr Return kDeprecated = 26;
inline constexpr Return kUnknown = 999;

struct DeviceObject;
using Device = DeviceObject*;
struct EventSetObject;
using EventSet = EventSetObject*;

inline constexpr unsigned kInitNoGpus = 1;
inline constexpr unsigned kNameBytes = 96;
inline constexpr unsigned kUuidBytes = 96;
inline constexpr unsigned kVersionBytes = 80;
inline constexpr unsigned kMostLinks = 36;

struct Utilization {
  unsigned gpu;
  unsigned memory;
};

struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

struct MemoryV2 {
  unsigned version;
  unsigned long long total;
  unsigned long long reserved;
  unsigned long long free;
  unsigned long long used;  // without what the driver reserves
};

struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain;
  unsigned bus;
  unsigned device;
  unsigned pci_device_id;
  unsigned pci_subsystem_id;
  char bus_id[32];  // since CUDA 9; earlier drivers leave it as it was
};

struct TemperatureV1 {
  unsigned version;
  std::int32_t sensor;
  int temperature;
};

struct MarginTemperatureV1 {
  unsigned version;
  int margin_temperature;
};

struct FabricInfo {
  unsigned char cluster_uuid[16];
  Return status;
  unsigned clique_id;
  unsigned char state;
};

struct FabricInfoV2 {
  unsigned version;
  unsigned char cluster_uuid[16];
  Return status;
  unsigned clique_id;
  unsigned char state;
  unsigned health_mask;
};

struct FabricInfoV3 {
  unsigned version;
  unsigned char cluster_uuid[16];
  Return status;
  unsigned clique_id;
  unsigned char state;
  unsigned health_mask;
  unsigned char health_summary;
};

union Value {
  double as_double;
  int as_int;
  unsigned as_unsigned;
  unsigned long as_unsigned_long;
  unsigned long long as_unsigned_long_long;
  long long as_long_long;
  unsigned short as_unsigned_short;
};

struct FieldValue {
  unsigned field;
  unsigned scope;
  long long timestamp;
  long long latency_us;
  std::int32_t value_type;
  Return status;
  Value value;
};

struct EventData {
  Device device;
  unsigned long long type;
  unsigned long long data;
  unsigned gpu_instance;
  unsigned compute_instance;
};

// NVML_STRUCT_VERSION: how a struct says which it is.
template <class Struct>
constexpr unsigned struct_version(unsigned version) noexcept {
  return static_cast<unsigned>(sizeof(Struct)) | version << 24;
}

inline constexpr unsigned long long kEventXid = 8;

inline constexpr std::int32_t kSensorGpu = 0;
inline constexpr std::int32_t kThresholdSlowdown = 1;
inline constexpr std::int32_t kThresholdGpuMax = 3;
inline constexpr std::int32_t kClockSm = 1;
inline constexpr std::int32_t kClockMemory = 2;
inline constexpr std::int32_t kErrorCorrected = 0;
inline constexpr std::int32_t kErrorUncorrected = 1;
inline constexpr std::int32_t kCounterVolatile = 0;

inline constexpr unsigned kFieldMemoryTemperature = 82;
inline constexpr unsigned kFieldLinkCount = 91;
inline constexpr unsigned kFieldPcieReplays = 94;
inline constexpr unsigned kFieldRemappedCorrected = 142;
inline constexpr unsigned kFieldRemappedUncorrected = 143;
inline constexpr unsigned kFieldRemappedPending = 144;
inline constexpr unsigned kFieldRemappedFailure = 145;
inline constexpr unsigned kFieldLinkReplays = 161;
inline constexpr unsigned kFieldLinkRecoveries = 162;
inline constexpr unsigned kFieldLinkCrc = 163;
inline constexpr unsigned kFieldLinkRecoveryEvents = 215;
inline constexpr unsigned kFieldRecoveryAction = 230;

// Counters of nvmlDeviceGetNvLinkErrorCounter: what the fields above are on drivers without them.
inline constexpr std::int32_t kLinkCounterReplay = 0;
inline constexpr std::int32_t kLinkCounterRecovery = 1;
inline constexpr std::int32_t kLinkCounterCrcFlit = 2;
inline constexpr std::int32_t kLinkCounterCrcData = 3;

inline constexpr std::int32_t kTypeDouble = 0;
inline constexpr std::int32_t kTypeUnsigned = 1;
inline constexpr std::int32_t kTypeUnsignedLong = 2;
inline constexpr std::int32_t kTypeUnsignedLongLong = 3;
inline constexpr std::int32_t kTypeLongLong = 4;
inline constexpr std::int32_t kTypeInt = 5;
inline constexpr std::int32_t kTypeUnsignedShort = 6;

inline constexpr unsigned char kFabricNotSupported = 0;
inline constexpr unsigned char kFabricNotStarted = 1;
inline constexpr unsigned char kFabricInProgress = 2;
inline constexpr unsigned char kFabricCompleted = 3;
inline constexpr unsigned char kFabricUnhealthy = 2;
inline constexpr unsigned char kFabricLimited = 3;

}  // namespace textnlp_fast::nvml::abi
