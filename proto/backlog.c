#include "proto/backlog.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/ensure.h"

struct backlog {
    atomic_size_t bytes;
    atomic_size_t holders; /* its owner and every message */
};

/* The head of a message's memory: its bytes follow. */
struct counted {
    struct backlog *backlog;
    size_t bytes;
    uint8_t data[];
};

struct backlog *backlog_new(void)
{
    struct backlog *backlog = mem_zalloc(sizeof *backlog);
    atomic_init(&backlog->holders, 1);
    return backlog;
}

void backlog_drop(struct backlog *backlog)
{
    if (atomic_fetch_sub(&backlog->holders, 1) == 1)
        free(backlog);
}

size_t backlog_bytes(const struct backlog *backlog)
{
    return atomic_load(&backlog->bytes);
}

static void counted_free(void *data, void *hint)
{
    struct counted *counted = hint;
    (void)data;
    atomic_fetch_sub(&counted->backlog->bytes, counted->bytes);
    backlog_drop(counted->backlog);
    free(counted);
}

void backlog_message(struct backlog *backlog, size_t size, zmq_msg_t *out)
{
    struct counted *counted = mem_alloc(sizeof *counted + size);
    counted->backlog = backlog;
    counted->bytes = size;
    atomic_fetch_add(&backlog->bytes, size);
    atomic_fetch_add(&backlog->holders, 1);
    ENSURE(zmq_msg_init_data(out, counted->data, size, counted_free, counted) == 0);
}
