/* TEST EQUIPMENT: a stand-in for NVIDIA's libnvidia-ml.so.1. It reads a folder instead of a driver; nothing that it
 * says was measured on a GPU. fake_gpus.py builds it and writes the folder.
 *
 * $FAKE_NVML_HOME/
 *   driver               version of the driver; without it, or without the variable, no driver is loaded
 *   cuda                 version of CUDA as NVML numbers it, 12080 for 12.8 (optional)
 *   error                NVML code that nvmlInit and every query fail with (optional)
 *   gpus/<i>/            numbered from 0 without a gap
 *     name uuid total_bytes reserved_bytes compute_capability (9.0)
 *     mig                0 or 1; without it the GPU knows no MIG
 *     mig_uuids          one line a MIG device (optional)
 *     nvlinks            links that are up; without it the GPU has no NVLink
 *     memory_error       NVML code that asking for memory fails with (optional)
 *     utilization        (optional)
 *     energy_mj          what it has used, or power_w, what it always draws; without both it has no energy counter
 *     held/<pid>         "BYTES" or "BYTES START_TICKS" (field 22 of /proc/<pid>/stat): counts while that process lives
 *     held/leak-<name>   "BYTES": counts always, and belongs to no process
 */
#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long long u64;
typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } process_info;
typedef struct { unsigned gpu, memory; } utilization;

enum {
    SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, VERSION_MISMATCH = 18, INSUFFICIENT_RESOURCES = 23, UNKNOWN = 999
};
enum { MAX_LINKS = 18, MAX_MIG = 7, MIG_STEP = 1000, MEMORY_V2 = 0x02000028 };

/* -- the folder ---------------------------------------------------------------------------------------------------- */

static int read_file(char *text, size_t size, const char *format, ...)
{
    char path[4096];
    va_list names;
    va_start(names, format);
    vsnprintf(path, sizeof path, format, names);
    va_end(names);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t n = fread(text, 1, size - 1, file);
    fclose(file);
    while (n && isspace((unsigned char)text[n - 1])) n--;
    text[n] = 0;
    return 1;
}

static const char *home(void) { return getenv("FAKE_NVML_HOME"); }

static int of_machine(const char *name, char *text, size_t size)
{
    return home() && read_file(text, size, "%s/%s", home(), name);
}

static int of_gpu(int gpu, const char *name, char *text, size_t size)
{
    return home() && read_file(text, size, "%s/gpus/%d/%s", home(), gpu, name);
}

static u64 number_of_gpu(int gpu, const char *name, u64 otherwise)
{
    char text[64];
    return of_gpu(gpu, name, text, sizeof text) ? strtoull(text, 0, 10) : otherwise;
}

static int state(void)
{
    char text[64];
    if (!of_machine("driver", text, sizeof text)) return DRIVER_NOT_LOADED;
    return of_machine("error", text, sizeof text) ? atoi(text) : SUCCESS;
}

/* Field 22 of /proc/<pid>/stat, or 0 when the process is gone or a zombie. */
static u64 start_ticks(const char *pid)
{
    char text[1024];
    if (!read_file(text, sizeof text, "/proc/%s/stat", pid)) return 0;
    char *field = strrchr(text, ')');
    if (!field || strchr("ZX", field[2])) return 0;
    for (int n = 2; n < 22 && field; n++) field = strchr(field + 1, ' ');
    return field ? strtoull(field + 1, 0, 10) : 0;
}

/* Bytes held on a GPU; the processes among the holders go to `into`, at most `room`, their number to `n`. */
static u64 held(int gpu, process_info *into, unsigned room, unsigned *n)
{
    char path[4096], text[64];
    u64 sum = 0;
    unsigned found = 0;
    snprintf(path, sizeof path, "%s/gpus/%d/held", home(), gpu);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        int leak = !strncmp(entry->d_name, "leak-", 5);
        if (!leak && !isdigit((unsigned char)entry->d_name[0])) continue;
        snprintf(path, sizeof path, "held/%s", entry->d_name);
        if (!of_gpu(gpu, path, text, sizeof text)) continue;
        char *rest;
        u64 bytes = strtoull(text, &rest, 10), started = strtoull(rest, 0, 10);
        u64 lives = leak ? 0 : start_ticks(entry->d_name);
        if (!leak && (!lives || (started && started != lives))) continue;
        sum += bytes;
        if (leak) continue;
        if (found < room) into[found] = (process_info){(unsigned)atoi(entry->d_name), bytes, -1u, -1u};
        found++;
    }
    if (folder) closedir(folder);
    if (n) *n = found;
    return sum;
}

/* -- handles: GPU i is i + 1, its MIG device k is (k + 1) * MIG_STEP + i + 1 ---------------------------------------- */

static int gpu_of(void *handle) { return (int)((size_t)handle % MIG_STEP) - 1; }
static int mig_of(void *handle) { return (int)((size_t)handle / MIG_STEP) - 1; }

static int mig_uuid(int gpu, int mig, char *uuid)
{
    char text[4096];
    if (!of_gpu(gpu, "mig_uuids", text, sizeof text)) return 0;
    char *line = strtok(text, "\n");
    for (; line && mig > 0; mig--) line = strtok(0, "\n");
    return line && snprintf(uuid, 96, "%s", line) > 0;
}

static int copied(char *into, unsigned size, const char *text)
{
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(into, text);
    return SUCCESS;
}

/* -- NVML ---------------------------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags) { (void)flags; return state(); }
int nvmlInit_v2(void) { return state(); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code)
{
    switch (code) {
    case SUCCESS: return "The operation was successful";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case VERSION_MISMATCH: return "Driver/library version mismatch";
    case INSUFFICIENT_RESOURCES: return "Insufficient Resources";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetNVMLVersion(char *into, unsigned size) { return copied(into, size, "0.stand-in"); }

int nvmlSystemGetDriverVersion(char *into, unsigned size)
{
    char text[80] = "";
    int code = state();
    of_machine("driver", text, sizeof text);
    return code ? code : copied(into, size, text);
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    char text[32];
    *version = of_machine("cuda", text, sizeof text) ? atoi(text) : 12080;
    return state();
}
int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

int nvmlSystemGetProcessName(unsigned pid, char *into, unsigned size)
{
    char text[4096];
    if (!read_file(text, sizeof text, "/proc/%u/cmdline", pid) || !text[0]) return NOT_FOUND;
    snprintf(into, size, "%s", text); /* argv[0]: the rest follows a NUL */
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    char text[256];
    int code = state();
    for (*count = 0; !code && of_gpu((int)*count, "uuid", text, sizeof text);) ++*count;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    unsigned count;
    int code = nvmlDeviceGetCount_v2(&count);
    *handle = (void *)((size_t)index + 1);
    return code ? code : index < count ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(void *handle, char *into, unsigned size)
{
    char text[256] = "";
    if (mig_of(handle) >= 0 ? !mig_uuid(gpu_of(handle), mig_of(handle), text)
                            : !of_gpu(gpu_of(handle), "uuid", text, sizeof text))
        return NOT_FOUND;
    return copied(into, size, text);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle)
{
    unsigned count;
    char text[256];
    int code = nvmlDeviceGetCount_v2(&count);
    for (unsigned i = 0; !code && i < count; i++) {
        *handle = (void *)((size_t)i + 1);
        if (!nvmlDeviceGetUUID(*handle, text, sizeof text) && !strcmp(text, uuid)) return SUCCESS;
    }
    return code ? code : NOT_FOUND;
}

int nvmlDeviceGetIndex(void *handle, unsigned *index) { *index = (unsigned)gpu_of(handle); return state(); }

int nvmlDeviceGetName(void *handle, char *into, unsigned size)
{
    char text[256] = "Fake GPU";
    of_gpu(gpu_of(handle), "name", text, sizeof text);
    return copied(into, size, text);
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2 *memory)
{
    int gpu = gpu_of(handle), code = state();
    u64 total = number_of_gpu(gpu, "total_bytes", 0), reserved = number_of_gpu(gpu, "reserved_bytes", 0);
    if (!code) code = (int)number_of_gpu(gpu, "memory_error", 0);
    if (code) return code;
    if (memory->version != MEMORY_V2) return 25;
    u64 used = held(gpu, 0, 0, 0);
    if (used > total - reserved) used = total - reserved;
    *memory = (memory_v2){MEMORY_V2, total, reserved, total - reserved - used, used};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_v1 *memory)
{
    memory_v2 all = {.version = MEMORY_V2};
    int code = nvmlDeviceGetMemoryInfo_v2(handle, &all);
    if (!code) *memory = (memory_v1){all.total, all.free, all.used + all.reserved};
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_info *into)
{
    unsigned room = into ? *count : 0;
    int code = state();
    if (code) return code;
    held(gpu_of(handle), into, room, count);
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, process_info *into)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(handle, count, into);
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending)
{
    u64 mig = number_of_gpu(gpu_of(handle), "mig", 2);
    *current = *pending = (unsigned)mig;
    return mig == 2 ? NOT_SUPPORTED : state();
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count)
{
    *count = MAX_MIG;
    return number_of_gpu(gpu_of(handle), "mig", 0) == 1 ? state() : NOT_SUPPORTED;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **mig)
{
    char uuid[96];
    *mig = (void *)((size_t)(index + 1) * MIG_STEP + (size_t)handle);
    return mig_uuid(gpu_of(handle), (int)index, uuid) ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *mig, void **handle)
{
    *handle = (void *)((size_t)mig % MIG_STEP);
    return mig_of(mig) >= 0 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetNvLinkState(void *handle, unsigned link, unsigned *active)
{
    u64 links = number_of_gpu(gpu_of(handle), "nvlinks", -1ull);
    if (links == -1ull) return NOT_SUPPORTED;
    *active = link < links;
    return link < MAX_LINKS ? state() : INVALID_ARGUMENT;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor)
{
    char text[32] = "9.0";
    of_gpu(gpu_of(handle), "compute_capability", text, sizeof text);
    return sscanf(text, "%d.%d", major, minor) == 2 ? state() : UNKNOWN;
}

int nvmlDeviceGetUtilizationRates(void *handle, utilization *rates)
{
    *rates = (utilization){(unsigned)number_of_gpu(gpu_of(handle), "utilization", 0), 0};
    return state();
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, u64 *energy_mj)
{
    char text[64];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    u64 now_ms = (u64)now.tv_sec * 1000 + (u64)now.tv_nsec / 1000000;
    if (of_gpu(gpu_of(handle), "energy_mj", text, sizeof text)) *energy_mj = strtoull(text, 0, 10);
    else if (of_gpu(gpu_of(handle), "power_w", text, sizeof text)) *energy_mj = strtoull(text, 0, 10) * now_ms;
    else return NOT_SUPPORTED;
    return state();
}
