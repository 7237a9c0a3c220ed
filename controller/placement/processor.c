#include "controller/placement/processor.h"

#include <stdio.h>
#include <string.h>

#define NAMES_MAX 12 /* named, then counted */

static void model_name(const char *cpu, char model[static BASELINE_CPU_MAX])
{
    size_t len = strcspn(cpu, ",");
    snprintf(model, BASELINE_CPU_MAX, "%.*s", (int)(len < BASELINE_CPU_MAX ? len : 0), cpu);
}

/* All that the host's accelerator offers: no name, and another processor on every kind of host. */
static bool is_everything(const char *model)
{
    return !model[0] || strcmp(model, "max") == 0 || strcmp(model, "host") == 0;
}

/* By its name, or as the first version of it, which is what a name without one means to these machine types. */
static const Drover__CpuModel *find_model(const Drover__HostFacts *facts, const char *model)
{
    char first[BASELINE_CPU_MAX + 4];
    snprintf(first, sizeof first, "%s-v1", model);
    for (size_t i = 0; i < facts->n_cpu_models; i++)
        if (strcmp(facts->cpu_models[i]->name, model) == 0 || strcmp(facts->cpu_models[i]->name, first) == 0)
            return facts->cpu_models[i];
    return NULL;
}

/* The next ",+x" or ",-x" (also ",x=on", ",x=off") after `at`; NULL: no more. */
static const char *next_switch(const char *at, bool *on, char feature[static 64])
{
    const char *comma = strchr(at, ',');
    if (!comma)
        return NULL;
    const char *word = comma + 1 + (comma[1] == '+' || comma[1] == '-');
    size_t len = strcspn(word, ",=");
    *on = comma[1] != '-' && strncmp(word + len, "=off", 4) != 0;
    snprintf(feature, 64, "%.*s", (int)(len < 64 ? len : 0), word);
    return word;
}

static bool switched(const char *cpu, const char *feature, bool to)
{
    char name[64];
    bool on;
    while ((cpu = next_switch(cpu, &on, name)) != NULL)
        if (on == to && strcmp(name, feature) == 0)
            return true;
    return false;
}

static bool has_feature(const Drover__HostFacts *facts, const char *feature)
{
    for (size_t i = 0; i < facts->n_cpu_features; i++)
        if (strcmp(facts->cpu_features[i], feature) == 0)
            return true;
    return false;
}

static void name_add(struct buf *names, size_t *count, const char *name)
{
    if (*count < NAMES_MAX)
        buf_printf(names, "%s%s", *count ? ", " : "", name);
    ++*count;
}

static size_t names_end(struct buf *names, size_t count)
{
    if (count > NAMES_MAX)
        buf_printf(names, " and %zu more", count - NAMES_MAX);
    return count;
}

bool processor_unknown(const char *cpu, const Drover__HostFacts *to, char model[static BASELINE_CPU_MAX])
{
    model_name(cpu, model);
    if (is_everything(model) || to->n_cpu_models == 0 || find_model(to, model))
        return false;
    /* Only versioned models are told: an old one without versions is left to QEMU. */
    return strstr(model, "-v") != NULL;
}

/* Features of `a` that `b` lacks and the guest was not denied. */
static size_t difference(const char *cpu, const Drover__HostFacts *a, const Drover__HostFacts *b, struct buf *names)
{
    size_t count = 0;
    for (size_t i = 0; b->n_cpu_features && i < a->n_cpu_features; i++)
        if (!has_feature(b, a->cpu_features[i]) && !switched(cpu, a->cpu_features[i], false))
            name_add(names, &count, a->cpu_features[i]);
    return names_end(names, count);
}

size_t processor_missing(const char *cpu, const Drover__HostFacts *from, const Drover__HostFacts *to, struct buf *names)
{
    char model[BASELINE_CPU_MAX], feature[64];
    bool on;
    size_t count = 0;
    model_name(cpu, model);
    if (is_everything(model))
        return difference(cpu, from, to, names);
    const Drover__CpuModel *known = find_model(to, model);
    for (size_t i = 0; known && i < known->n_missing; i++)
        if (!switched(cpu, known->missing[i], false))
            name_add(names, &count, known->missing[i]);
    for (const char *at = cpu; to->n_cpu_features && (at = next_switch(at, &on, feature)) != NULL;)
        if (on && !has_feature(to, feature))
            name_add(names, &count, feature);
    return names_end(names, count);
}

size_t processor_extra(const char *cpu, const Drover__HostFacts *from, const Drover__HostFacts *to, struct buf *names)
{
    char model[BASELINE_CPU_MAX];
    model_name(cpu, model);
    return is_everything(model) ? difference(cpu, to, from, names) : 0;
}
