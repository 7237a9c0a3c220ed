/* When moves end that begin in order as soon as their hosts have a place free. Moves at work share evenly what each
 * host can send and receive; a move goes as fast as its link would, divided among as many as share the fuller end of
 * it. Between two ends nothing changes, so the simulation goes from end to end.
 *
 * It runs on the controllers' loop for hosts with a thousand VMs: what is counted is kept, so that an end costs a look
 * at those that wait and at those at work, and nothing is looked at for each pair of them. */
#include "optimizer/optimizer.h"

#include <math.h>
#include <stdlib.h>

#include "base/buf.h"

/* A transfer: waiting, at its fixed part, sending, ended. */
struct work {
    double left_bytes, rest_s; /* to be sent, and what it takes besides */
    double rate;               /* at which it sends now */
    size_t link;
};

struct tally {
    unsigned out, in;                 /* transfers at work */
    unsigned sending, being_received; /* of these */
};

struct schedule {
    const struct optimizer_transfer *list;
    const struct optimizer_limits *limits;
    struct work *work;         /* beside list */
    struct tally *tally;       /* by host */
    unsigned *links;           /* at work, by link */
    size_t *waiting, *at_work; /* indices, in the order of the list and of beginning */
    size_t waiting_count, at_work_count;
};

struct link {
    size_t from, to, transfer;
};

static int by_ends(const void *a, const void *b)
{
    const struct link *x = a, *y = b;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

/* Gives every transfer the number of its pair of hosts. */
static void number_links(const struct optimizer_transfer *list, size_t count, struct work *work)
{
    struct link *links = mem_zalloc((count + 1) * sizeof *links);
    size_t number = 0;
    for (size_t i = 0; i < count; i++)
        links[i] = (struct link){list[i].from, list[i].to, i};
    qsort(links, count, sizeof *links, by_ends);
    for (size_t i = 0; i < count; i++) {
        number += i > 0 && by_ends(&links[i - 1], &links[i]) != 0;
        work[links[i].transfer].link = number;
    }
    free(links);
}

static void schedule_open(struct schedule *s, size_t count, size_t host_count)
{
    s->work = mem_zalloc((count + 1) * sizeof *s->work);
    s->tally = mem_zalloc((host_count + 1) * sizeof *s->tally);
    s->links = mem_zalloc((count + 1) * sizeof *s->links);
    s->waiting = mem_zalloc((count + 1) * sizeof *s->waiting);
    s->at_work = mem_zalloc((count + 1) * sizeof *s->at_work);
    s->waiting_count = count;
    for (size_t i = 0; i < count; i++) {
        s->work[i] = (struct work){.left_bytes = s->list[i].bytes, .rest_s = s->list[i].fixed_s};
        s->waiting[i] = i;
    }
    number_links(s->list, count, s->work);
}

static void schedule_close(struct schedule *s)
{
    free(s->work);
    free(s->tally);
    free(s->links);
    free(s->waiting);
    free(s->at_work);
}

static bool may_begin(const struct schedule *s, size_t i)
{
    const struct optimizer_transfer *t = &s->list[i];
    return s->tally[t->from].out < s->limits->outgoing && s->tally[t->to].in < s->limits->incoming &&
           s->links[s->work[i].link] < s->limits->link;
}

static void begin_sending(struct schedule *s, size_t i)
{
    s->tally[s->list[i].from].sending++;
    s->tally[s->list[i].to].being_received++;
}

static void begin(struct schedule *s, size_t i)
{
    s->at_work[s->at_work_count++] = i;
    s->tally[s->list[i].from].out++;
    s->tally[s->list[i].to].in++;
    s->links[s->work[i].link]++;
    if (s->work[i].rest_s <= 0)
        begin_sending(s, i);
}

static void end(struct schedule *s, size_t i)
{
    struct tally *from = &s->tally[s->list[i].from], *to = &s->tally[s->list[i].to];
    from->out--;
    from->sending--;
    to->in--;
    to->being_received--;
    s->links[s->work[i].link]--;
}

static void begin_what_may(struct schedule *s)
{
    size_t kept = 0;
    for (size_t k = 0; k < s->waiting_count; k++) {
        size_t i = s->waiting[k];
        if (may_begin(s, i))
            begin(s, i);
        else
            s->waiting[kept++] = i;
    }
    s->waiting_count = kept;
}

/* The slower of its shares: of what its source sends, and of what its target receives. */
static double rate(const struct schedule *s, size_t i)
{
    unsigned out = s->tally[s->list[i].from].sending, in = s->tally[s->list[i].to].being_received;
    return s->list[i].bytes_per_s / (out > in ? out : in);
}

/* How long nothing changes: until a move ends what it is at. INFINITY: nothing is at work. */
static double step_length(struct schedule *s)
{
    double step_s = INFINITY;
    for (size_t k = 0; k < s->at_work_count; k++) {
        struct work *w = &s->work[s->at_work[k]];
        bool sends = w->rest_s <= 0;
        w->rate = sends ? rate(s, s->at_work[k]) : 0;
        step_s = fmin(step_s, sends ? w->left_bytes / w->rate : w->rest_s);
    }
    return step_s;
}

/* True: a place is free. */
static bool advance(struct schedule *s, double step_s)
{
    size_t kept = 0, before = s->at_work_count;
    for (size_t k = 0; k < s->at_work_count; k++) {
        size_t i = s->at_work[k];
        struct work *w = &s->work[i];
        if (w->rate > 0) {
            w->left_bytes -= step_s * w->rate;
        } else if (w->rest_s > 0) {
            w->rest_s = w->rest_s - step_s > 1e-9 ? w->rest_s - step_s : 0;
            if (w->rest_s <= 0)
                begin_sending(s, i);
        }
        if (w->rest_s <= 0 && w->left_bytes <= 1e-3)
            end(s, i);
        else
            s->at_work[kept++] = i;
    }
    s->at_work_count = kept;
    return kept < before;
}

double optimizer_schedule(
    const struct optimizer_transfer *list, size_t count, size_t host_count, const struct optimizer_limits *limits)
{
    struct schedule s = {.list = list, .limits = limits};
    double now_s = 0;
    bool place = true;
    schedule_open(&s, count, host_count);
    while (s.waiting_count || s.at_work_count) {
        if (place)
            begin_what_may(&s);
        double step_s = step_length(&s);
        if (!isfinite(step_s))
            break; /* a limit of none: nothing may begin */
        now_s += step_s;
        place = advance(&s, step_s);
    }
    schedule_close(&s);
    return now_s;
}
