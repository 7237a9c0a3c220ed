#include "controller/jobs/admission.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct load {
    unsigned out, in, link;
};

/* What is at work on the hosts of `move`. */
static struct load load_of(
    const struct admission_move *moves, const bool *works, size_t count, const struct admission_move *move)
{
    struct load load = {0};
    for (size_t i = 0; i < count; i++) {
        if (!works[i])
            continue;
        bool from = strcmp(moves[i].from, move->from) == 0, to = strcmp(moves[i].to, move->to) == 0;
        load.out += from;
        load.in += to;
        load.link += from && to;
    }
    return load;
}

static bool fits(const struct load *load, const struct optimizer_limits *limits)
{
    return load->out < limits->outgoing && load->in < limits->incoming && load->link < limits->link;
}

static void explain(const struct admission_move *move, const struct load *load, const struct optimizer_limits *limits,
    size_t before, char reason[static 256])
{
    char queue[48] = "";
    if (before)
        snprintf(queue, sizeof queue, "; %zu more wait%s before it", before, before == 1 ? "s" : "");
    if (load->out >= limits->outgoing)
        snprintf(reason, 256, "host %.63s sends %u VMs already, and may send %u at once%s", move->from, load->out,
            limits->outgoing, queue);
    else if (load->in >= limits->incoming)
        snprintf(reason, 256, "host %.63s receives %u VMs already, and may receive %u at once%s", move->to, load->in,
            limits->incoming, queue);
    else
        snprintf(reason, 256, "%u VMs are on their way from host %.63s to %.63s already, and %u may be at once%s",
            load->link, move->from, move->to, limits->link, queue);
}

bool admission_decide(const struct admission_move *moves, size_t count, const struct optimizer_limits *limits,
    uint64_t job_id, char reason[static 256])
{
    size_t waiting = 0;
    bool *works = mem_zalloc((count + 1) * sizeof *works), admitted = true;
    for (size_t i = 0; i < count; i++)
        works[i] = moves[i].admitted;
    for (size_t i = 0; i < count && moves[i].job_id <= job_id; i++) {
        struct load load = load_of(moves, works, count, &moves[i]);
        if (works[i])
            continue;
        works[i] = fits(&load, limits);
        if (moves[i].job_id == job_id && !works[i]) {
            explain(&moves[i], &load, limits, waiting, reason);
            admitted = false;
        }
        waiting += !works[i];
    }
    free(works);
    return admitted;
}
