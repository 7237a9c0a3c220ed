#include "tests/unit/optimizer/cluster.h"

#include <stdio.h>
#include <string.h>

void cluster_init(struct cluster *c)
{
    memset(c, 0, sizeof *c);
    c->input.hosts = c->hosts;
    c->input.vms = c->vms;
    c->input.now_ms = 1000000;
}

size_t cluster_host(struct cluster *c, const char *name, double cores, double memory_gib, double iops)
{
    struct optimizer_host *host = &c->hosts[c->input.host_count];
    snprintf(host->name, sizeof host->name, "%s", name);
    host->accepts = true;
    host->capacity[RESOURCE_CPU] = cores;
    host->capacity[RESOURCE_MEMORY] = memory_gib * GIB;
    host->capacity[RESOURCE_IOPS] = iops;
    return c->input.host_count++;
}

size_t cluster_vm(struct cluster *c, const char *name, size_t host, double cores, double memory_gib, double iops)
{
    struct optimizer_vm *vm = &c->vms[c->input.vm_count];
    snprintf(vm->name, sizeof vm->name, "%s", name);
    vm->host = host;
    vm->movable = true;
    vm->move_cost_s = 3;
    vm->demand[RESOURCE_CPU] = cores;
    vm->demand[RESOURCE_MEMORY] = memory_gib * GIB;
    vm->demand[RESOURCE_IOPS] = iops;
    return c->input.vm_count++;
}

double cluster_used(const struct cluster *c, size_t host, enum resource resource)
{
    double used = c->hosts[host].overhead[resource];
    for (size_t v = 0; v < c->input.vm_count; v++)
        if (c->vms[v].host == host)
            used += c->vms[v].demand[resource];
    return used;
}

double cluster_utilization(const struct cluster *c, size_t host, enum resource resource)
{
    double capacity = c->hosts[host].capacity[resource];
    return capacity > 0 ? cluster_used(c, host, resource) / capacity : 0;
}

void cluster_apply(struct cluster *c, const struct optimizer_plan *plan)
{
    for (size_t m = 0; m < plan->move_count; m++) {
        c->vms[plan->moves[m].vm].host = plan->moves[m].to;
        c->vms[plan->moves[m].vm].moved_ms = c->input.now_ms;
    }
}

/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static double between(uint64_t *state, double low, double high)
{
    return low + (high - low) * ((double)(next(state) >> 11) / 9007199254740992.0);
}

void cluster_random(struct cluster *c, uint64_t seed)
{
    uint64_t s = seed * 2654435761u + 1;
    char name[OPTIMIZER_NAME_MAX];
    cluster_init(c);
    size_t hosts = 1 + next(&s) % CLUSTER_HOSTS_MAX, vms = next(&s) % (CLUSTER_VMS_MAX + 1);
    for (size_t h = 0; h < hosts; h++) {
        snprintf(name, sizeof name, "h%zu", h);
        size_t i =
            cluster_host(c, name, between(&s, 1, 64), between(&s, 4, 256), next(&s) % 3 ? between(&s, 500, 20000) : 0);
        c->hosts[i].accepts = next(&s) % 8 != 0;
        c->hosts[i].overhead[RESOURCE_CPU] = between(&s, 0, 0.5);
    }
    double scale = between(&s, 0.05, 2.0); /* how loaded the whole is */
    for (size_t v = 0; v < vms; v++) {
        snprintf(name, sizeof name, "vm%zu", v);
        /* Squared, so that the first hosts get most of them. */
        double at = between(&s, 0, 1);
        size_t i = cluster_vm(c, name, (size_t)(at * at * (double)hosts), scale * between(&s, 0, 4),
            scale * between(&s, 0.1, 16), scale * between(&s, 0, 800));
        c->vms[i].movable = next(&s) % 6 != 0;
        c->vms[i].move_cost_s = between(&s, 0.5, 60);
        if (next(&s) % 10 == 0)
            c->vms[i].moved_ms = c->input.now_ms - next(&s) % 300000;
    }
}
