#include "raft/disk.h"

#include <raft/uv.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "raft/logdir.h"

/* Longer than any write may take, so that the backend's own retries never happen (see disk.h). */
#define DISK_RETRY_MS 86400000u

/* A write under way: of entries or of a snapshot. They end in the order they began, or nearly so: the oldest is
 * watched. */
struct disk_write {
    struct disk_write *next;
    struct disk *disk;
    const char *what;
    uint64_t started_ms;
    uint64_t shortenings; /* that were asked for before it */
    union {
        struct raft_io_append append;
        struct raft_io_snapshot_put put;
    };
    union {
        struct raft_io_append *append_request;
        struct raft_io_snapshot_put *put_request;
    };
};

/* The log loses its entries from `index` on; others take their place, but are not on the disk yet. */
struct disk_shortening {
    struct disk_shortening *next;
    uint64_t number;
    raft_index index;
};

struct disk {
    struct raft_io io;      /* first: libraft gives us back this pointer */
    struct raft_io backend; /* the backend's functions; its state hangs at `io` */
    struct raft_uv_transport no_transport;
    struct disk_network network;
    struct disk_write *writes, **last_write; /* oldest first */
    struct disk_shortening *shortenings;     /* newest first */
    uint64_t shortening_count;
    raft_index next_index; /* of the entry that is appended next */
    raft_index read_index; /* of the snapshot read last */
    raft_term read_term;
    raft_io_tick_cb tick;
    raft_io_close_cb closed;
    uv_loop_t *loop;
    char *directory;
    uint64_t stall_ms;
    bool may_be_empty;
    raft_id self;
};

void disk_fail(const char *what, int status, const char *detail)
{
    log_event(LOG_ERROR, "raft.disk_failed", "doing=%s cause=%s detail=%s", LOG_QUOTE(what),
        LOG_QUOTE(status ? raft_strerror(status) : "no answer"), LOG_QUOTE(detail));
    _exit(err_exit_status(ERR_INTERNAL));
}

/* ---- the transport that is none ---- */

static int no_init(struct raft_uv_transport *transport, raft_id id, const char *address)
{
    (void)transport, (void)id, (void)address;
    return 0;
}

static int no_listen(struct raft_uv_transport *transport, raft_uv_accept_cb cb)
{
    (void)transport, (void)cb;
    return 0;
}

static int no_connect(struct raft_uv_transport *transport, struct raft_uv_connect *request, raft_id id,
    const char *address, raft_uv_connect_cb cb)
{
    (void)transport, (void)request, (void)id, (void)address, (void)cb;
    return RAFT_NOCONNECTION;
}

static void no_close(struct raft_uv_transport *transport, raft_uv_transport_close_cb cb)
{
    cb(transport);
}

/* ---- writes, watched ---- */

static struct disk_write *write_begin(struct disk *disk, const char *what)
{
    struct disk_write *write = mem_zalloc(sizeof *write);
    *disk->last_write = write;
    disk->last_write = &write->next;
    write->disk = disk;
    write->what = what;
    write->started_ms = uv_now(disk->loop);
    write->shortenings = disk->shortening_count;
    return write;
}

static void write_end(struct disk_write *write, int status)
{
    struct disk *disk = write->disk;
    struct disk_write **at = &disk->writes;
    while (*at != write)
        at = &(*at)->next;
    *at = write->next;
    if (!write->next)
        disk->last_write = at;
    if (status != 0 && status != RAFT_CANCELED)
        disk_fail(write->what, status, disk->io.errmsg);
    free(write);
}

/* The marker of the shortenings under way (see logdir.h) names the first entry that any of them takes away. */
static void mark_shortenings(struct disk *disk)
{
    struct err err;
    raft_index first = 0;
    for (const struct disk_shortening *s = disk->shortenings; s; s = s->next)
        first = first == 0 || s->index < first ? s->index : first;
    if (first > 0 ? logdir_mark(disk->directory, first, &err) : logdir_unmark(disk->directory, &err))
        disk_fail("mark where the log is shortened", RAFT_IOERR, err.message);
}

/* Of the shortenings, those from `at` on, down to the oldest, are over. */
static void drop_shortenings(struct disk_shortening **at)
{
    for (struct disk_shortening *next, *s = *at; s; s = next) {
        next = s->next;
        free(s);
    }
    *at = NULL;
}

/* What was shortened before these entries were written is so for good. The marker must not outlive the moment in which
 * somebody is told that they are safe: it would take them away. */
static void end_shortenings(struct disk *disk, uint64_t number)
{
    struct disk_shortening **at = &disk->shortenings;
    while (*at && (*at)->number > number)
        at = &(*at)->next;
    if (!*at)
        return;
    drop_shortenings(at);
    mark_shortenings(disk);
}

static void append_done(struct raft_io_append *append, int status)
{
    struct disk_write *write = append->data;
    struct raft_io_append *request = write->append_request;
    struct disk *disk = write->disk;
    uint64_t shortenings = write->shortenings;
    write_end(write, status);
    if (status == 0)
        end_shortenings(disk, shortenings);
    request->cb(request, status);
}

static int disk_append(struct raft_io *io, struct raft_io_append *request, const struct raft_entry entries[],
    unsigned n, raft_io_append_cb cb)
{
    struct disk *disk = (struct disk *)io;
    struct disk_write *write = write_begin(disk, "append entries");
    write->append.data = write;
    write->append_request = request;
    request->cb = cb;
    disk->next_index += n;
    int status = disk->backend.append(io, &write->append, entries, n, append_done);
    if (status != 0)
        disk_fail("append entries", status, io->errmsg);
    return 0;
}

static void put_done(struct raft_io_snapshot_put *put, int status)
{
    struct disk_write *write = put->data;
    struct raft_io_snapshot_put *request = write->put_request;
    write_end(write, status);
    request->cb(request, status);
}

static int disk_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *request,
    const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct disk *disk = (struct disk *)io;
    struct disk_write *write = write_begin(disk, "write a snapshot");
    write->put.data = write;
    write->put_request = request;
    request->cb = cb;
    if (trailing == 0) /* another member's: it takes the place of the log */
        disk->next_index = snapshot->index + 1;
    int status = disk->backend.snapshot_put(io, trailing, &write->put, snapshot, put_done);
    if (status != 0)
        disk_fail("write a snapshot", status, io->errmsg);
    return 0;
}

static int disk_set_term(struct raft_io *io, raft_term term)
{
    int status = ((struct disk *)io)->backend.set_term(io, term);
    if (status != 0)
        disk_fail("write the term", status, io->errmsg);
    return 0;
}

static int disk_set_vote(struct raft_io *io, raft_id id)
{
    int status = ((struct disk *)io)->backend.set_vote(io, id);
    if (status != 0)
        disk_fail("write the vote", status, io->errmsg);
    return 0;
}

static void shortening_begin(struct disk *disk, raft_index index)
{
    struct disk_shortening *shortening = mem_alloc(sizeof *shortening);
    *shortening =
        (struct disk_shortening){.next = disk->shortenings, .number = ++disk->shortening_count, .index = index};
    disk->shortenings = shortening;
    disk->next_index = index;
    mark_shortenings(disk);
}

/* libraft asks before every append; nearly always there is nothing to take away. */
static int disk_truncate(struct raft_io *io, raft_index index)
{
    struct disk *disk = (struct disk *)io;
    if (index < disk->next_index)
        shortening_begin(disk, index);
    int status = disk->backend.truncate(io, index);
    if (status != 0)
        disk_fail("truncate the log", status, io->errmsg);
    return 0;
}

/* Two faults of libraft around reading a snapshot to send it (legacyLoadSnapshotCb()): when the read fails, its
 * callback frees a snapshot that was never filled in, so the callback must not be called; and when a newer snapshot has
 * been taken meanwhile, it sends the newer one's index with the older one's term. disk_send(), which it calls from
 * within, puts that right. */
struct disk_read {
    struct raft_io_snapshot_get get;
    struct raft_io_snapshot_get *request;
    struct disk *disk;
};

static void get_done(struct raft_io_snapshot_get *get, struct raft_snapshot *snapshot, int status)
{
    struct disk_read *read = get->data;
    struct raft_io_snapshot_get *request = read->request;
    struct disk *disk = read->disk;
    free(read);
    if (status != 0)
        disk_fail("read a snapshot", status, "");
    disk->read_index = snapshot->index;
    disk->read_term = snapshot->term;
    request->cb(request, snapshot, status);
}

static int disk_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *request, raft_io_snapshot_get_cb cb)
{
    struct disk_read *read = mem_zalloc(sizeof *read);
    read->get.data = read;
    read->disk = (struct disk *)io;
    read->request = request;
    request->cb = cb;
    int status = ((struct disk *)io)->backend.snapshot_get(io, &read->get, get_done);
    if (status != 0)
        disk_fail("read a snapshot", status, io->errmsg);
    return 0;
}

/* ---- life ---- */

static int disk_init(struct raft_io *io, raft_id id, const char *address)
{
    struct disk *disk = (struct disk *)io;
    disk->self = id;
    return disk->backend.init(io, id, address);
}

static bool only_voter(const struct raft_configuration *configuration, raft_id id)
{
    bool own = false;
    unsigned voters = 0;
    for (unsigned i = 0; i < configuration->n; i++) {
        voters += configuration->servers[i].role == RAFT_VOTER;
        own = own || (configuration->servers[i].role == RAFT_VOTER && configuration->servers[i].id == id);
    }
    return own && voters == 1;
}

/* By the newest configuration: the last in the entries, else the snapshot's. */
static bool elects_itself(
    const struct disk *disk, const struct raft_snapshot *snapshot, const struct raft_entry *entries, size_t n)
{
    struct raft_configuration configuration;
    while (n > 0 && entries[n - 1].type != RAFT_CHANGE)
        n--;
    if (n == 0)
        return snapshot && only_voter(&snapshot->configuration, disk->self);
    if (raft_configuration_decode(&entries[n - 1].buf, &configuration) != 0)
        return false; /* libraft will say so */
    bool own = only_voter(&configuration, disk->self);
    raft_configuration_close(&configuration);
    return own;
}

/* libraft 0.22.1 makes an only voter the leader of the term it finds (convertToCandidate()), which may be one it has
 * led before: what it had appended then and not made durable would be another entry of the same index and term on a
 * standby that has it, for ever. So it starts in a new term. */
static int disk_load(struct raft_io *io, raft_term *term, raft_id *voted_for, struct raft_snapshot **snapshot,
    raft_index *start_index, struct raft_entry **entries, size_t *n)
{
    struct disk *disk = (struct disk *)io;
    struct err err;
    if (logdir_prepare(disk->directory, &err)) {
        snprintf(io->errmsg, sizeof io->errmsg, "%.*s", (int)sizeof io->errmsg - 1, err.message);
        return err.code == ERR_NOT_FOUND ? RAFT_NOTFOUND : err.code == ERR_CORRUPT ? RAFT_CORRUPT : RAFT_IOERR;
    }
    int status = disk->backend.load(io, term, voted_for, snapshot, start_index, entries, n);
    if (status == 0 && !disk->may_be_empty && !*snapshot && *n == 0)
        return RAFT_NOTFOUND;
    if (status == 0)
        disk->next_index = *start_index + *n;
    if (status == 0 && elects_itself(disk, *snapshot, *entries, *n)) {
        (void)disk_set_term(io, ++*term);
        *voted_for = 0;
    }
    return status;
}

static void disk_tick(struct raft_io *io)
{
    struct disk *disk = (struct disk *)io;
    if (disk->writes && uv_now(disk->loop) - disk->writes->started_ms > disk->stall_ms)
        disk_fail(disk->writes->what, 0, "a write has not come back; is the disk full or broken?");
    disk->tick(io);
}

static int disk_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb receive)
{
    struct disk *disk = (struct disk *)io;
    disk->tick = tick;
    int status = disk->backend.start(io, msecs, disk_tick, receive);
    if (status != 0)
        return status;
    return disk->network.start(disk->network.user, io, receive);
}

static int disk_send(
    struct raft_io *io, struct raft_io_send *request, const struct raft_message *message, raft_io_send_cb done)
{
    struct disk *disk = (struct disk *)io;
    if (message->type == RAFT_INSTALL_SNAPSHOT && message->install_snapshot.last_index == disk->read_index)
        ((struct raft_message *)message)->install_snapshot.last_term =
            disk->read_term; /* memory of the request's own */
    return disk->network.send(disk->network.user, request, message, done);
}

static void disk_closed(struct raft_io *io)
{
    struct disk *disk = (struct disk *)io;
    disk->network.stop(disk->network.user);
    disk->closed(io);
}

static void disk_close(struct raft_io *io, raft_io_close_cb closed)
{
    struct disk *disk = (struct disk *)io;
    disk->closed = closed;
    disk->network.stop(disk->network.user);
    disk->backend.close(io, disk_closed);
}

int disk_new(uv_loop_t *loop, const char *directory, uint64_t stall_ms, bool may_be_empty,
    const struct disk_network *network, struct err *err, struct disk **out)
{
    struct disk *disk = mem_zalloc(sizeof *disk);
    disk->loop = loop;
    disk->network = *network;
    disk->stall_ms = stall_ms;
    disk->may_be_empty = may_be_empty;
    disk->last_write = &disk->writes;
    disk->no_transport = (struct raft_uv_transport){
        .version = 1, .init = no_init, .listen = no_listen, .connect = no_connect, .close = no_close};
    int status = raft_uv_init(&disk->io, loop, directory, &disk->no_transport);
    if (status != 0) {
        err_set(err, ERR_INTERNAL, "the raft directory %s: %s", directory, raft_strerror(status));
        free(disk);
        return -1;
    }
    disk->directory = mem_strdup(directory);
    raft_uv_set_disk_retry(&disk->io, DISK_RETRY_MS);
    raft_uv_set_auto_recovery(
        &disk->io, false);               /* it would put spoilt entries aside and vote as if they had never been */
    raft_uv_set_tracer(&disk->io, NULL); /* it would format a line for every step, to throw it away */
    disk->backend = disk->io;
    disk->io.init = disk_init;
    disk->io.load = disk_load;
    disk->io.start = disk_start;
    disk->io.close = disk_close;
    disk->io.send = disk_send;
    disk->io.append = disk_append;
    disk->io.truncate = disk_truncate;
    disk->io.set_term = disk_set_term;
    disk->io.set_vote = disk_set_vote;
    disk->io.snapshot_put = disk_snapshot_put;
    disk->io.snapshot_get = disk_snapshot_get;
    *out = disk;
    return 0;
}

struct raft_io *disk_io(struct disk *disk)
{
    return &disk->io;
}

bool disk_idle(const struct disk *disk)
{
    return !disk->writes;
}

void disk_free(struct disk *disk)
{
    if (!disk)
        return;
    raft_uv_close(&disk->io);
    drop_shortenings(&disk->shortenings);
    free(disk->directory);
    free(disk);
}
