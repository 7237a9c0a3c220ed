#include "hostd/facts.h"

#include <inttypes.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/linkspeed.h"

/* Empty when the kernel does not say. */
static char *clock_source(char *out, size_t size)
{
    struct err err;
    cleanup_buf struct buf text = {0};
    if (file_read("/sys/devices/system/clocksource/clocksource0/current_clocksource", 64, &err, &text) == 0)
        snprintf(out, size, "%s", buf_str(&text));
    out[strcspn(out, "\n")] = '\0';
    return out;
}

/* What the firmware and what the installed system call this machine, as one: copies of a disk have the latter in
 * common; containers, copied virtual machines and some makers' boards the former. Whether only one of them has changed
 * is not told on purpose. No rule that goes by the other one then is safe: a machine that is wrongly taken for the one
 * whose key it has frees guests that run there, while one that is wrongly refused (it was installed anew, or its
 * firmware was, and booted, so that its guests are gone) costs somebody a look and a `--stand-in`. Where the system's
 * name does not outlast a boot, systemd.machine_id= on the kernel's command line gives it one that does. Hashed,
 * because these are not to be shown about. Empty when neither is to be had. */
static void machine_id(char *out, size_t size)
{
    static const char *const files[] = {"/sys/class/dmi/id/product_uuid", "/etc/machine-id"};
    struct err err;
    cleanup_buf struct buf all = {0};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        cleanup_buf struct buf text = {0};
        if (file_read(files[i], 128, &err, &text) == 0)
            buf_printf(&all, "%zu:%s", i, buf_str(&text));
    }
    out[0] = '\0';
    if (!all.len)
        return;
    XXH128_hash_t hash = XXH3_128bits(all.data, all.len);
    snprintf(out, size, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
}

/* 0: not known. */
static uint64_t least_known(uint64_t a, uint64_t b)
{
    return !a || (b && b < a) ? b : a;
}

int facts_gather(
    const struct options *options, const struct hypervisor_facts *hypervisor, struct err *err, struct facts *out)
{
    struct utsname system;
    cleanup_buf struct buf text = {0};
    if (file_read("/proc/sys/kernel/random/boot_id", 64, err, &text) < 0)
        return -1;
    *out = (struct facts){.message = DROVER__HOST_FACTS__INIT, .capacity = DROVER__CAPACITY__INIT};
    snprintf(out->boot_id, sizeof out->boot_id, "%s", buf_str(&text));
    out->boot_id[strcspn(out->boot_id, "\n")] = '\0';
    machine_id(out->machine, sizeof out->machine);
    if (uname(&system) == 0)
        snprintf(out->kernel, sizeof out->kernel, "%s %s", system.sysname, system.release);
    out->capacity.cpu_cores = options->cpu_cores;
    out->capacity.memory_bytes = options->memory_bytes;
    out->capacity.disk_iops = options->disk_iops;

    Drover__HostFacts *m = &out->message;
    static char program[] = "drover-hostd " DROVER_VERSION;
    m->migration_address = options->migration_address;
    m->capacity = &out->capacity;
    m->kernel = out->kernel;
    m->hypervisor = (char *)(uintptr_t)hypervisor->version;
    m->accelerator = (char *)(uintptr_t)hypervisor->accelerator;
    m->accelerator_reason = (char *)(uintptr_t)hypervisor->accelerator_reason;
    m->machine_types = (char **)(uintptr_t)hypervisor->machines;
    m->n_machine_types = hypervisor->machine_count;
    m->tracker = (char *)(uintptr_t)hypervisor->tracker;
    m->boot_id = out->boot_id;
    m->machine = out->machine;
    m->program = program;
    m->cpu_models = (Drover__CpuModel **)(uintptr_t)hypervisor->cpu_models;
    m->n_cpu_models = hypervisor->cpu_model_count;
    m->cpu_features = (char **)(uintptr_t)hypervisor->cpu_features;
    m->n_cpu_features = hypervisor->cpu_feature_count;
    m->max_vcpus = hypervisor->max_vcpus;
    m->tsc_khz = hypervisor->tsc_khz;
    m->tsc_scaling = hypervisor->tsc_scaling;
    m->page_bytes = (uint32_t)sysconf(_SC_PAGESIZE);
    m->link_bytes_per_s = least_known(options->migration_bandwidth, linkspeed_at(options->migration_address));
    m->cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    m->clock_source = clock_source(out->clock_source, sizeof out->clock_source);
    return 0;
}
