/* When moves end that begin in order as soon as their hosts have a place free. Moves at work share evenly
 * what each host can send and receive; a move goes as fast as its link would, divided among as many as share the fuller
 * end of it. Between two ends nothing
 * changes, so the simulation goes from end to end. */
#include "optimizer/optimizer.h"

#include <math.h>
#include <stdlib.h>

#include "base/buf.h"

struct work {
    double left_bytes, rest_s; /* to be sent, and what it takes besides */
    double end_s;              /* < 0: not yet */
    double rate;               /* at which it sends now */
    bool begun;
};

struct tally {
    unsigned out, in;
};

static bool may_begin(
    const struct optimizer_transfer *t, const struct tally *tally, unsigned link, const struct optimizer_limits *limits)
{
    return tally[t->from].out < limits->outgoing && tally[t->to].in < limits->incoming && link < limits->link;
}

static void begin_what_may(const struct optimizer_transfer *list, struct work *work, size_t count, struct tally *tally,
    const struct optimizer_limits *limits)
{
    for (size_t i = 0; i < count; i++) {
        unsigned link = 0;
        for (size_t k = 0; k < count; k++)
            link += work[k].begun && work[k].end_s < 0 && list[k].from == list[i].from && list[k].to == list[i].to;
        if (work[i].begun || !may_begin(&list[i], tally, link, limits))
            continue;
        work[i].begun = true;
        tally[list[i].from].out++;
        tally[list[i].to].in++;
    }
}

static bool sends(const struct work *work)
{
    return work->begun && work->end_s < 0 && work->rest_s <= 0;
}

/* The slower of its shares: of what its source sends, and of what its target receives. */
static double rate(const struct optimizer_transfer *list, const struct work *work, size_t count, size_t which)
{
    unsigned out = 0, in = 0;
    for (size_t i = 0; i < count; i++) {
        out += sends(&work[i]) && list[i].from == list[which].from;
        in += sends(&work[i]) && list[i].to == list[which].to;
    }
    return list[which].bytes_per_s / (out > in ? out : in);
}

/* How long nothing changes: until a move ends what it is at. INFINITY: nothing is at work. */
static double step_length(const struct optimizer_transfer *list, struct work *work, size_t count)
{
    double step_s = INFINITY;
    for (size_t i = 0; i < count; i++) {
        work[i].rate = sends(&work[i]) ? rate(list, work, count, i) : 0;
        if (work[i].begun && work[i].end_s < 0)
            step_s = fmin(step_s, sends(&work[i]) ? work[i].left_bytes / work[i].rate : work[i].rest_s);
    }
    return step_s;
}

static void advance(struct work *work, double step_s)
{
    if (work->rate > 0)
        work->left_bytes -= step_s * work->rate;
    else
        work->rest_s = work->rest_s - step_s > 1e-9 ? work->rest_s - step_s : 0;
}

double optimizer_schedule(
    const struct optimizer_transfer *list, size_t count, size_t host_count, const struct optimizer_limits *limits)
{
    struct work *work = mem_zalloc((count + 1) * sizeof *work);
    struct tally *tally = mem_zalloc((host_count + 1) * sizeof *tally);
    double now_s = 0;
    for (size_t i = 0; i < count; i++)
        work[i] = (struct work){list[i].bytes, list[i].fixed_s, -1, 0, false};
    for (size_t done = 0; done < count;) {
        begin_what_may(list, work, count, tally, limits);
        double step_s = step_length(list, work, count);
        if (!isfinite(step_s))
            break; /* a limit of none: nothing may begin */
        now_s += step_s;
        for (size_t i = 0; i < count; i++)
            if (work[i].begun && work[i].end_s < 0)
                advance(&work[i], step_s);
        for (size_t i = 0; i < count; i++) {
            if (!work[i].begun || work[i].end_s >= 0 || work[i].rest_s > 0 || work[i].left_bytes > 1e-3)
                continue;
            work[i].end_s = now_s;
            tally[list[i].from].out--;
            tally[list[i].to].in--;
            done++;
        }
    }
    free(work);
    free(tally);
    return now_s;
}
