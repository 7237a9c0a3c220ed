#include "controller/jobs/admission.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "controller/state/state.h"

struct load {
    unsigned out, in, link;
};

struct verdict {
    uint64_t job_id;
    char from[STATE_NAME_MAX], to[STATE_NAME_MAX];
    bool admitted;
    struct load load; /* at work on its hosts when it was decided */
    size_t waiting;   /* before it */
};

struct admission {
    struct optimizer_limits limits;
    struct verdict *verdicts; /* by job id */
    size_t count;
};

/* The hosts and the link of a move, as numbers from 0 on, each less than the number of all ends. */
struct way {
    size_t from, to, link;
};

/* One of two hosts of a move. */
struct end {
    const char *host;
    size_t *number; /* in its way */
};

struct link {
    const struct way *hosts;
    size_t *number;
};

static int end_compare(const void *a, const void *b)
{
    return strcmp(((const struct end *)a)->host, ((const struct end *)b)->host);
}

static int link_compare(const void *a, const void *b)
{
    const struct way *x = ((const struct link *)a)->hosts, *y = ((const struct link *)b)->hosts;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return x->to < y->to ? -1 : x->to > y->to;
}

static void number_hosts(const struct admission_move *moves, size_t count, struct way *ways)
{
    struct end *ends = mem_zalloc((2 * count + 1) * sizeof *ends);
    for (size_t i = 0; i < count; i++) {
        ends[2 * i] = (struct end){moves[i].from, &ways[i].from};
        ends[2 * i + 1] = (struct end){moves[i].to, &ways[i].to};
    }
    qsort(ends, 2 * count, sizeof *ends, end_compare);
    for (size_t i = 0, number = 0; i < 2 * count; i++) {
        number += i > 0 && end_compare(&ends[i - 1], &ends[i]) != 0;
        *ends[i].number = number;
    }
    free(ends);
}

static void number_links(size_t count, struct way *ways)
{
    struct link *links = mem_zalloc((count + 1) * sizeof *links);
    for (size_t i = 0; i < count; i++)
        links[i] = (struct link){&ways[i], &ways[i].link};
    qsort(links, count, sizeof *links, link_compare);
    for (size_t i = 0, number = 0; i < count; i++) {
        number += i > 0 && link_compare(&links[i - 1], &links[i]) != 0;
        *links[i].number = number;
    }
    free(links);
}

static bool fits(const struct load *load, const struct optimizer_limits *limits)
{
    return load->out < limits->outgoing && load->in < limits->incoming && load->link < limits->link;
}

/* `at_work`: of a host what it sends and what it receives, of a link both; by their numbers. */
static void begin(struct load *at_work, const struct way *way)
{
    at_work[way->from].out++;
    at_work[way->to].in++;
    at_work[way->link].link++;
}

static void decide(struct admission *a, const struct admission_move *moves, const struct way *ways)
{
    struct load *at_work = mem_zalloc((2 * a->count + 1) * sizeof *at_work);
    size_t waiting = 0;
    for (size_t i = 0; i < a->count; i++)
        if (moves[i].admitted)
            begin(at_work, &ways[i]);
    for (size_t i = 0; i < a->count; i++) {
        struct verdict *v = &a->verdicts[i];
        *v = (struct verdict){.job_id = moves[i].job_id, .admitted = moves[i].admitted, .waiting = waiting};
        snprintf(v->from, sizeof v->from, "%s", moves[i].from);
        snprintf(v->to, sizeof v->to, "%s", moves[i].to);
        v->load = (struct load){at_work[ways[i].from].out, at_work[ways[i].to].in, at_work[ways[i].link].link};
        if (v->admitted)
            continue;
        v->admitted = fits(&v->load, &a->limits);
        if (v->admitted)
            begin(at_work, &ways[i]);
        else
            waiting++;
    }
    free(at_work);
}

struct admission *admission_new(const struct admission_move *moves, size_t count, const struct optimizer_limits *limits)
{
    struct admission *a = mem_zalloc(sizeof *a);
    struct way *ways = mem_zalloc((count + 1) * sizeof *ways);
    a->limits = *limits;
    a->count = count;
    a->verdicts = mem_zalloc((count + 1) * sizeof *a->verdicts);
    number_hosts(moves, count, ways);
    number_links(count, ways);
    decide(a, moves, ways);
    free(ways);
    return a;
}

void admission_free(struct admission *admission)
{
    if (!admission)
        return;
    free(admission->verdicts);
    free(admission);
}

static void explain(const struct verdict *v, const struct optimizer_limits *limits, char reason[static 256])
{
    char queue[48] = "";
    if (v->waiting)
        snprintf(queue, sizeof queue, "; %zu more wait%s before it", v->waiting, v->waiting == 1 ? "s" : "");
    if (v->load.out >= limits->outgoing)
        snprintf(reason, 256, "host %.63s sends %u VMs already, and may send %u at once%s", v->from, v->load.out,
            limits->outgoing, queue);
    else if (v->load.in >= limits->incoming)
        snprintf(reason, 256, "host %.63s receives %u VMs already, and may receive %u at once%s", v->to, v->load.in,
            limits->incoming, queue);
    else
        snprintf(reason, 256, "%u VMs are on their way from host %.63s to %.63s already, and %u may be at once%s",
            v->load.link, v->from, v->to, limits->link, queue);
}

static int verdict_compare(const void *key, const void *verdict)
{
    uint64_t id = *(const uint64_t *)key, other = ((const struct verdict *)verdict)->job_id;
    return id < other ? -1 : id > other;
}

bool admission_ask(const struct admission *a, uint64_t job_id, char reason[static 256])
{
    const struct verdict *v = bsearch(&job_id, a->verdicts, a->count, sizeof *a->verdicts, verdict_compare);
    if (!v || v->admitted)
        return true;
    explain(v, &a->limits, reason);
    return false;
}
