/* How the processor is chosen: QEMU's named models are ranked by generation; each feature that some host lacks of a
 * model costs it points, because a guest is told a model's name and expects what goes with it. So a Skylake without TSX
 * stays a Skylake, while nobody becomes a Sapphire Rapids with forty features missing. */
#include "controller/placement/baseline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/pb.h"

#define DROP_COST   3 /* rank points for each missing feature: three of them undo one generation */
#define LIMITS_SHOW 3 /* richer models that are explained */

/* Rank of the models by generation; a version (-v2) does not matter. Names as in QEMU's documentation of x86 models. */
static const struct {
    const char *family;
    int rank;
} families[] = {
    {"Conroe", 10},
    {"Penryn", 20},
    {"Nehalem", 30},
    {"Westmere", 40},
    {"SandyBridge", 50},
    {"IvyBridge", 60},
    {"Haswell", 70},
    {"Broadwell", 80},
    {"Skylake-Client", 90},
    {"Skylake-Server", 95},
    {"Cascadelake-Server", 100},
    {"Cooperlake", 105},
    {"Icelake-Server", 110},
    {"SapphireRapids", 120},
    {"GraniteRapids", 130},
    {"Opteron_G1", 10},
    {"Opteron_G2", 20},
    {"Opteron_G3", 30},
    {"Opteron_G4", 50},
    {"Opteron_G5", 60},
    {"EPYC", 90},
    {"EPYC-Rome", 100},
    {"EPYC-Milan", 110},
    {"EPYC-Genoa", 120},
    {"EPYC-Turin", 130},
};

/* What QEMU's manual asks to switch on beside a named model, where the processor has it: guards against its known
 * leaks, and what makes them cheap. Naming one that the model has already changes nothing. */
static const char *const wanted[] = {
    "pcid", "spec-ctrl", "stibp", "ssbd", "md-clear", "pdpe1gb", "ibpb", "virt-ssbd", "amd-ssbd", "amd-no-ssb"};

bool baseline_machine_later(const char *a, const char *b)
{
    int major[2] = {0}, minor[2] = {0};
    if (sscanf(a, "pc-q35-%d.%d", &major[0], &minor[0]) != 2)
        return false;
    if (sscanf(b, "pc-q35-%d.%d", &major[1], &minor[1]) != 2)
        return true;
    return major[0] != major[1] ? major[0] > major[1] : minor[0] > minor[1];
}

static bool text_in(char *const *list, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

const char *baseline_machine(const struct baseline_host *hosts, size_t count)
{
    const char *best = NULL;
    for (size_t i = 0; count && i < hosts[0].facts->n_machine_types; i++) {
        const char *type = hosts[0].facts->machine_types[i];
        bool all = baseline_machine_later(type, best ? best : "");
        for (size_t h = 1; h < count && all; h++)
            all = text_in(hosts[h].facts->machine_types, hosts[h].facts->n_machine_types, type);
        if (all)
            best = type;
    }
    return best;
}

static bool uses(const struct baseline_host *host, const char *accelerator)
{
    return strcmp(host->facts->accelerator, accelerator) == 0;
}

static const Drover__CpuModel *model_of(const Drover__HostFacts *facts, const char *name)
{
    for (size_t i = 0; i < facts->n_cpu_models; i++)
        if (strcmp(facts->cpu_models[i]->name, name) == 0)
            return facts->cpu_models[i];
    return NULL;
}

/* -1: not a model guests should be given. */
static int rank_of(const char *name)
{
    const char *version = strstr(name, "-v");
    size_t len = version ? (size_t)(version - name) : strlen(name);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strlen(families[i].family) == len && strncmp(families[i].family, name, len) == 0)
            return families[i].rank;
    return -1;
}

/* What some host of the accelerator lacks of a model. */
struct lack {
    const char *features[64];
    size_t count;
    bool everywhere; /* all hosts know the model, and no more is missing than there is room for */
};

static void lack_add(struct lack *lack, const char *feature)
{
    for (size_t i = 0; i < lack->count; i++)
        if (strcmp(lack->features[i], feature) == 0)
            return;
    if (lack->count == sizeof lack->features / sizeof *lack->features)
        lack->everywhere = false;
    else
        lack->features[lack->count++] = feature;
}

static struct lack lack_of(
    const struct baseline_host *hosts, size_t count, const char *accelerator, const char *model_name)
{
    struct lack lack = {.everywhere = true};
    for (size_t h = 0; h < count; h++) {
        if (!uses(&hosts[h], accelerator))
            continue;
        const Drover__CpuModel *model = model_of(hosts[h].facts, model_name);
        lack.everywhere = lack.everywhere && model;
        for (size_t i = 0; model && i < model->n_missing; i++)
            lack_add(&lack, model->missing[i]);
    }
    return lack;
}

static const struct baseline_host *first_of(const struct baseline_host *hosts, size_t count, const char *accelerator)
{
    for (size_t h = 0; h < count; h++)
        if (uses(&hosts[h], accelerator))
            return &hosts[h];
    return NULL;
}

/* The model with the best score; of equals the later version, which is the greater name. NULL: none. */
static const char *choose(
    const struct baseline_host *hosts, size_t count, const char *accelerator, struct lack *best_lack)
{
    const struct baseline_host *first = first_of(hosts, count, accelerator);
    const char *best = NULL;
    int best_score = 0;
    for (size_t i = 0; first && i < first->facts->n_cpu_models; i++) {
        const char *name = first->facts->cpu_models[i]->name;
        int rank = rank_of(name);
        if (rank < 0)
            continue;
        struct lack lack = lack_of(hosts, count, accelerator, name);
        int score = rank - DROP_COST * (int)lack.count;
        if (!lack.everywhere || (best && (score < best_score || (score == best_score && strcmp(name, best) < 0))))
            continue;
        best = name;
        best_score = score;
        *best_lack = lack;
    }
    return best;
}

static bool all_have(const struct baseline_host *hosts, size_t count, const char *accelerator, const char *feature)
{
    for (size_t h = 0; h < count; h++)
        if (uses(&hosts[h], accelerator) &&
            !text_in(hosts[h].facts->cpu_features, hosts[h].facts->n_cpu_features, feature))
            return false;
    return true;
}

bool baseline_cpu(
    const struct baseline_host *hosts, size_t count, const char *accelerator, char out[static BASELINE_CPU_MAX])
{
    struct lack lack;
    cleanup_buf struct buf text = {0};
    const char *model = choose(hosts, count, accelerator, &lack);
    if (!model)
        return false;
    buf_printf(&text, "%s", model);
    for (size_t i = 0; i < lack.count; i++)
        buf_printf(&text, ",-%s", lack.features[i]);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (all_have(hosts, count, accelerator, wanted[i]))
            buf_printf(&text, ",+%s", wanted[i]);
    if (text.len >= BASELINE_CPU_MAX)
        return false;
    snprintf(out, BASELINE_CPU_MAX, "%s", buf_str(&text));
    return true;
}

static void limit_add(Drover__CpuBaseline *out, const struct baseline_host *host, const char *name)
{
    const Drover__CpuModel *model = model_of(host->facts, name);
    if (model && model->n_missing == 0)
        return;
    Drover__CpuLimit *limit = pb_new(&drover__cpu_limit__descriptor);
    pb_string(&limit->model, name);
    pb_string(&limit->host, host->name);
    for (size_t i = 0; model && i < model->n_missing; i++)
        PB_ADD(limit, missing, mem_strdup(model->missing[i]));
    PB_ADD(out, limits, limit);
}

/* The next richer families and who cannot provide them: of each family the version that lacks least. */
static void limits_add(const struct baseline_host *hosts, size_t count, const char *chosen, Drover__CpuBaseline *out)
{
    int floor = chosen ? rank_of(chosen) : -1;
    const struct baseline_host *first = first_of(hosts, count, out->accelerator);
    for (int shown = 0; first && shown < LIMITS_SHOW; shown++) {
        const char *next = NULL;
        size_t least = 0;
        int rank = 0;
        for (size_t i = 0; i < first->facts->n_cpu_models; i++) {
            const char *name = first->facts->cpu_models[i]->name;
            int r = rank_of(name);
            size_t missing = lack_of(hosts, count, out->accelerator, name).count;
            if (r <= floor || (next && (r > rank || (r == rank && missing >= least))))
                continue;
            next = name;
            rank = r;
            least = missing;
        }
        if (!next)
            return;
        floor = rank;
        for (size_t h = 0; h < count; h++)
            if (uses(&hosts[h], out->accelerator))
                limit_add(out, &hosts[h], next);
    }
}

static void report_add(
    const struct baseline_host *hosts, size_t count, const char *accelerator, Drover__ClusterCpuReply *reply)
{
    struct lack lack;
    char model[BASELINE_CPU_MAX];
    Drover__CpuBaseline *out = pb_new(&drover__cpu_baseline__descriptor);
    bool kvm = strcmp(accelerator, "kvm") == 0;
    pb_string(&out->accelerator, accelerator);
    for (size_t h = 0; h < count; h++)
        if (uses(&hosts[h], accelerator))
            PB_ADD(out, hosts, mem_strdup(hosts[h].name));
    if (baseline_cpu(hosts, count, accelerator, model))
        pb_string(&out->model, model);
    /* Emulated, a processor is what QEMU makes of it: its richest is the same on every host of one version. */
    pb_string(&out->default_model, kvm ? out->model[0] ? out->model : "host" : "max");
    limits_add(hosts, count, choose(hosts, count, accelerator, &lack), out);
    PB_ADD(reply, baselines, out);
}

Drover__ClusterCpuReply *baseline_report(const struct baseline_host *hosts, size_t count)
{
    Drover__ClusterCpuReply *reply = pb_new(&drover__cluster_cpu_reply__descriptor);
    const char *machine = baseline_machine(hosts, count);
    pb_string(&reply->machine_type, machine ? machine : "");
    for (size_t h = 0; h < count; h++)
        if (first_of(hosts, h, hosts[h].facts->accelerator) == NULL)
            report_add(hosts, count, hosts[h].facts->accelerator, reply);
    return reply;
}
