/* What is remembered from sample to sample: per host and resource since when it has been above `high`, and whether that
 * has already lasted long enough. By name, because indices change when hosts come and go.
 *
 *          above high               for hold_ms
 *   COOL ---------------> WATCHED ---------------> HOT
 *    ^  ^-------------------'                       |
 *    |     no longer above high                     |
 *    '----------------------------------------------'
 *                     below low
 *
 * A gap in the samples, or a clock that went back, starts the watch anew: nobody knows what happened in between. */
#include "optimizer/internal.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/buf.h"

#define GAP_MIN_MS 5000 /* samples further apart than this and than the hold time are not one observation */

struct remembered {
    char name[OPTIMIZER_NAME_MAX];
    enum heat heat[RESOURCE_COUNT];
    uint64_t since_ms[RESOURCE_COUNT];
    uint64_t sample; /* the last one this host was in */
    UT_hash_handle hh;
};

struct optimizer_memory {
    struct remembered *hosts;
    uint64_t sample, last_ms;
};

struct optimizer_memory *optimizer_memory_new(void)
{
    return mem_zalloc(sizeof(struct optimizer_memory));
}

static void forget(struct optimizer_memory *memory, struct remembered *host)
{
    HASH_DEL(memory->hosts, host);
    free(host);
}

void optimizer_memory_free(struct optimizer_memory *memory)
{
    struct remembered *host, *next;
    if (!memory)
        return;
    HASH_ITER (hh, memory->hosts, host, next)
        forget(memory, host);
    free(memory);
}

static size_t name_len(const char *name)
{
    return strnlen(name, OPTIMIZER_NAME_MAX - 1);
}

static struct remembered *recall(const struct optimizer_memory *memory, const char *name)
{
    struct remembered *host = NULL;
    if (memory && memory->hosts)
        HASH_FIND(hh, memory->hosts, name, name_len(name), host);
    return host;
}

static struct remembered *recall_or_add(struct optimizer_memory *memory, const char *name)
{
    struct remembered *host = recall(memory, name);
    if (!host) {
        host = mem_zalloc(sizeof *host);
        memcpy(host->name, name, name_len(name));
        HASH_ADD_KEYPTR(hh, memory->hosts, host->name, strlen(host->name), host);
    }
    return host;
}

static enum heat heat_after(enum heat heat, double used, double high, double low, bool held)
{
    switch (heat) {
    case HEAT_COOL:
    case HEAT_WATCHED:
        if (used <= high)
            return HEAT_COOL;
        return held ? HEAT_HOT : HEAT_WATCHED;
    case HEAT_HOT:
        return used < low ? HEAT_COOL : HEAT_HOT;
    }
    return HEAT_COOL;
}

static bool held(const struct optimizer_settings *settings, uint64_t since_ms, uint64_t now_ms)
{
    return now_ms >= since_ms && now_ms - since_ms >= settings->hold_ms;
}

void optimizer_observe(
    struct optimizer_memory *memory, const struct optimizer_settings *settings, const struct optimizer_input *input)
{
    struct optimizer_settings clean = settings_clean(settings);
    uint64_t now = input->now_ms, gap = clean.hold_ms > GAP_MIN_MS ? clean.hold_ms : GAP_MIN_MS;
    bool anew = now < memory->last_ms || now - memory->last_ms > gap;
    memory->sample++;
    memory->last_ms = now;

    struct view view;
    view_init(&view, input);
    for (size_t h = 0; h < input->host_count; h++) {
        struct remembered *host = recall_or_add(memory, input->hosts[h].name);
        host->sample = memory->sample;
        for (int r = 0; r < RESOURCE_COUNT; r++) {
            if (anew)
                host->heat[r] = HEAT_COOL;
            if (host->heat[r] == HEAT_COOL)
                host->since_ms[r] = now;
            host->heat[r] = heat_after(host->heat[r], view_utilization(&view, h, (enum resource)r, 0), clean.high[r],
                clean.low[r], held(&clean, host->since_ms[r], now));
        }
    }
    view_free(&view);

    struct remembered *host, *next;
    HASH_ITER (hh, memory->hosts, host, next)
        if (host->sample != memory->sample)
            forget(memory, host);
}

enum heat memory_heat(const struct optimizer_memory *memory, const struct optimizer_settings *settings,
    const char *name, enum resource resource, uint64_t now_ms, uint64_t *for_ms)
{
    const struct remembered *host = recall(memory, name);
    *for_ms = 0;
    if (!host || host->heat[resource] == HEAT_COOL)
        return HEAT_COOL;
    if (now_ms > host->since_ms[resource])
        *for_ms = now_ms - host->since_ms[resource];
    /* Between two samples a watch may have come to its end. */
    return held(settings, host->since_ms[resource], now_ms) ? HEAT_HOT : host->heat[resource];
}

enum optimizer_verdict optimizer_verdict(const struct optimizer_memory *memory,
    const struct optimizer_settings *settings, const struct optimizer_input *input, size_t host, uint64_t *hot_for_ms)
{
    enum optimizer_verdict verdict = VERDICT_BALANCED;
    uint64_t longest_ms = 0;
    for (int r = 0; host < input->host_count && r < RESOURCE_COUNT; r++) {
        uint64_t for_ms;
        enum heat heat =
            memory_heat(memory, settings, input->hosts[host].name, (enum resource)r, input->now_ms, &for_ms);
        if (heat == HEAT_COOL)
            continue;
        if (for_ms > longest_ms)
            longest_ms = for_ms;
        if (heat == HEAT_HOT)
            verdict = VERDICT_HOT;
        else if (verdict == VERDICT_BALANCED)
            verdict = VERDICT_WATCHING;
    }
    if (hot_for_ms)
        *hot_for_ms = longest_ms;
    return verdict;
}
