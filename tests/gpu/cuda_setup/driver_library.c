/* A driver's libraries for tests: what they answer, and whether they answer at all, is said by the environment. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text != NULL ? atoi(text) : otherwise;
}

#ifdef LIBCUDA
int cuDriverGetVersion(int *version) {
    *version = number("FAKE_CUDA_VERSION", 12040);
    return 0;
}

int cuInit(unsigned flags) {
    (void)flags;
    const char *how = getenv("FAKE_CUDA_INIT");
    if (how != NULL && strcmp(how, "hang") == 0) for (;;) sleep(100);
    if (how != NULL && strcmp(how, "crash") == 0) raise(SIGSEGV);
    if (how != NULL && strcmp(how, "talk") == 0) {
        puts("{\"found\": false}");
        puts("the driver says hello");
        fflush(stdout);
    }
    return number("FAKE_CUDA_CODE", 0);
}

int cuDeviceGetCount(int *count) {
    *count = number("FAKE_GPUS", 2);
    return 0;
}
#endif

#ifdef LIBNVML
#define HANDLES 0x7f1234560000ULL

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned long long total, free, used; } Memory;

int nvmlInit_v2(void) { return number("FAKE_NVML_CODE", 0); }
int nvmlShutdown(void) { return 0; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    return snprintf(text, length, "550.54.14") < 0;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 12040;
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)number("FAKE_GPUS", 2);
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index == (unsigned)number("FAKE_LOST", -1)) return 15;
    /* A handle that does not fit into 32 bits, as real ones. */
    *handle = (void *)(HANDLES + index);
    return 0;
}

static unsigned index_of(void *handle) {
    unsigned long long index = (unsigned long long)handle - HANDLES;
    if (index > 63) abort(); /* half of a handle */
    return (unsigned)index;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    return snprintf(text, length, "GPU-0000000%u-aaaa-bbbb-cccc-000000000000", index_of(handle)) < 0;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    return snprintf(text, length, "NVIDIA Test %u", index_of(handle)) < 0;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    *major = 8;
    *minor = (int)index_of(handle);
    return 0;
}

int nvmlDeviceGetPciInfo_v3(void *handle, Pci *pci) {
    memset(pci, 0xff, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:0%u:00.0", index_of(handle));
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    (void)handle;
    memory->total = 85899345920ULL;
    memory->free = memory->used = 0;
    return 0;
}

int nvmlDeviceGetPersistenceMode(void *handle, unsigned *mode) {
    *mode = index_of(handle) == 0;
    return 0;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    *current = 0;
    *pending = 1;
    return index_of(handle) == 0 ? 0 : 3; /* not supported */
}
#endif
