/* Which processors QEMU can show to a guest here, asked of a QEMU without a machine: about 0.2 s once a start, so
 * nothing of it is kept for the next. */
#include <fcntl.h>
#include <jansson.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "hostd/hypervisor/qemu/private.h"

#define TEXT_MAX 47

/* Every answer is one line; "quit" ends the program. */
static const char questions[] =
    "{\"execute\":\"qmp_capabilities\"}\n"
    "{\"execute\":\"query-cpu-definitions\",\"id\":\"models\"}\n"
    "{\"execute\":\"query-cpu-model-expansion\",\"id\":\"features\",\"arguments\":{\"type\":\"full\",\"model\":"
    "{\"name\":\"max\"}}}\n"
    "{\"execute\":\"query-machines\",\"id\":\"machines\"}\n"
    "{\"execute\":\"quit\"}\n";

/* A model without a version is another one with every QEMU; only the versions mean the same everywhere. */
static bool versioned(const char *name)
{
    const char *version = strstr(name, "-v");
    return version && strlen(name) <= TEXT_MAX && version[2] >= '0' && version[2] <= '9';
}

static Drover__CpuModel *model_make(const char *name, const json_t *missing)
{
    Drover__CpuModel *model = mem_alloc(sizeof *model);
    drover__cpu_model__init(model);
    model->name = mem_strdup(name);
    size_t i;
    json_t *feature;
    model->missing = mem_zalloc((json_array_size(missing) + 1) * sizeof *model->missing);
    json_array_foreach(missing, i, feature)
    {
        const char *text = json_string_value(feature);
        if (text && strlen(text) <= TEXT_MAX && model->n_missing < HYPERVISOR_MISSING_MAX)
            model->missing[model->n_missing++] = mem_strdup(text);
    }
    return model;
}

static void read_models(const json_t *list, struct hypervisor_facts *out)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (!name || !versioned(name) || out->cpu_model_count == HYPERVISOR_CPU_MODELS_MAX)
            continue;
        out->cpu_models[out->cpu_model_count++] = model_make(name, json_object_get(item, "unavailable-features"));
    }
}

/* Among a processor's properties there are switches of QEMU's own, which no guest sees. */
static bool is_feature(const char *name)
{
    static const char *const switches[] = {"check", "enforce", "migratable", "pmu", "kvm", "tcg-cpuid", "l3-cache",
        "legacy-cache", "host-cache-info", "fill-mtrr-mask", "full-cpuid-auto-level", "cpuid-0xb", "vmware-cpuid-freq",
        "host-phys-bits", "start-powered-off", "realized", "hotplugged"};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (strcmp(name, switches[i]) == 0)
            return false;
    return strncmp(name, "x-", 2) != 0 && strncmp(name, "hv-", 3) != 0 && !strchr(name, '_') &&
           strlen(name) <= TEXT_MAX;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_features(const json_t *answer, struct hypervisor_facts *out)
{
    const char *name;
    json_t *value;
    json_t *properties = json_object_get(json_object_get(answer, "model"), "props");
    json_object_foreach(properties, name, value)
    {
        if (json_is_true(value) && is_feature(name) && out->cpu_feature_count < HYPERVISOR_CPU_FEATURES_MAX)
            out->cpu_features[out->cpu_feature_count++] = mem_strdup(name);
    }
    if (out->cpu_feature_count) /* an object has no order, and facts that seem new go into the log */
        qsort(out->cpu_features, out->cpu_feature_count, sizeof *out->cpu_features, name_compare);
}

static void read_machines(const json_t *list, struct hypervisor_facts *out)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        json_int_t most = json_integer_value(json_object_get(item, "cpu-max"));
        if (name && strncmp(name, "pc-q35-", 7) == 0 && most > 0 && most <= UINT16_MAX &&
            (uint32_t)most > out->max_vcpus)
            out->max_vcpus = (uint32_t)most;
    }
}

static void read_answer(const json_t *line, struct hypervisor_facts *out)
{
    const char *id = json_string_value(json_object_get(line, "id"));
    const json_t *answer = json_object_get(line, "return");
    if (!id || !answer)
        return;
    if (strcmp(id, "models") == 0)
        read_models(answer, out);
    else if (strcmp(id, "features") == 0)
        read_features(answer, out);
    else if (strcmp(id, "machines") == 0)
        read_machines(answer, out);
}

/* The rate of the time stamp counter that guests are given, and whether it can differ from the machine's. */
static void discover_clock(struct hypervisor_facts *out)
{
    cleanup_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    cleanup_fd int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    cleanup_fd int cpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
    int khz = cpu < 0 ? -1 : ioctl(cpu, KVM_GET_TSC_KHZ, 0);
    out->tsc_khz = khz > 0 ? (uint64_t)khz : 0;
    out->tsc_scaling = kvm >= 0 && ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
}

void discover_cpus(const char *program, struct hypervisor_facts *out)
{
    struct err err;
    cleanup_buf struct buf text = {0};
    char *const argv[] = {(char *)(uintptr_t)program, (char *)"-nodefaults", (char *)"-no-user-config",
        (char *)"-display", (char *)"none", (char *)"-machine", (char *)"none", (char *)"-accel",
        (char *)(uintptr_t)out->accelerator, (char *)"-qmp", (char *)"stdio", NULL};
    if (discover_run(argv, questions, &err, &text) < 0) {
        log_event(LOG_WARN, "processors.unknown", "reason=%s consequence=%s", LOG_QUOTE(err.message),
            LOG_QUOTE("migrations to and from this host are not checked for it"));
        return;
    }
    char *save = NULL;
    for (char *line = strtok_r((char *)(uintptr_t)buf_str(&text), "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *json = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        if (json)
            read_answer(json, out);
        json_decref(json);
    }
    if (strcmp(out->accelerator, "kvm") == 0)
        discover_clock(out);
}

void discover_cpus_free(struct hypervisor_facts *facts)
{
    for (size_t i = 0; i < facts->cpu_model_count; i++) {
        Drover__CpuModel *model = facts->cpu_models[i];
        for (size_t f = 0; f < model->n_missing; f++)
            free(model->missing[f]);
        free(model->missing);
        free(model->name);
        free(model);
    }
    for (size_t i = 0; i < facts->cpu_feature_count; i++)
        free(facts->cpu_features[i]);
}
