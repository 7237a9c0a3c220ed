#include "hostd/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "base/unixsock.h"
#include "hostd/partition/partition.h"

#define CONSOLE_READ_MAX    (64u << 10)
#define CONSOLE_WRITE_MAX   4096
#define CONSOLE_READERS     64
#define CONSOLE_WAIT_MAX_MS 60000
#define CONSOLE_TRIM_BYTES  (1 << 20)
#define READ_DELAY_MS       10
#define WRITER_IDLE_MS      10000

/* Somebody who waits for output. */
struct reader {
    struct reader *prev, *next;
    struct console *console;
    struct wire_request *request;
    char vm_id[PATHS_ID_MAX];
    uint64_t offset;
    uint32_t max;
    uv_fs_event_t changes;
    struct loop_timer *timer;
};

/* A connection to a guest's serial port. */
struct writer {
    struct writer *prev, *next;
    struct console *console;
    char vm_id[PATHS_ID_MAX];
    uv_pipe_t pipe;
    struct loop_timer *idle;
    char sink[1024]; /* output is read from the log file; here it is only drained */
};

struct console {
    uv_loop_t *loop;
    struct partitions *partitions;
    struct reader *readers;
    struct writer *writers;
};

struct console *console_open(uv_loop_t *loop, struct partitions *partitions)
{
    struct console *console = mem_zalloc(sizeof *console);
    console->loop = loop;
    console->partitions = partitions;
    return console;
}

struct console_range console_range(uint64_t size, uint64_t offset, uint32_t max)
{
    uint64_t oldest = size > CONSOLE_KEPT_BYTES ? size - CONSOLE_KEPT_BYTES : 0;
    if (offset < oldest || offset > size)
        offset = oldest;
    uint64_t left = size - offset;
    uint32_t limit = max == 0 || max > CONSOLE_READ_MAX ? CONSOLE_READ_MAX : max;
    return (struct console_range){offset, left < limit ? (size_t)left : limit};
}

void console_trim(const char *directory)
{
    char path[PATH_MAX];
    struct stat st;
    cleanup_fd int fd = open(paths_file(directory, PATH_SERIAL_LOG, path), O_WRONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_blocks * 512 < CONSOLE_TRIM_BYTES)
        return;
    /* A file system without holes keeps all of it: no harm but to its space. */
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size - (off_t)CONSOLE_KEPT_BYTES) < 0)
        log_event(LOG_DEBUG, "console.untrimmed", "path=%s reason=%s", path, LOG_QUOTE(strerror(errno)));
}

/* Answers with what there is; false when there is nothing and `must` is not set. */
static bool read_answer(
    const struct partition *p, uint64_t offset, uint32_t max, bool must, struct wire_request *request)
{
    char path[PATH_MAX];
    struct stat st = {0};
    Drover__ConsoleReadReply reply = DROVER__CONSOLE_READ_REPLY__INIT;
    cleanup_free uint8_t *data = NULL;
    cleanup_fd int fd = p ? open(paths_file(partition_directory(p), PATH_SERIAL_LOG, path), O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0 && fstat(fd, &st) < 0)
        st.st_size = 0;
    struct console_range range = console_range((uint64_t)st.st_size, offset, max);
    if (range.bytes == 0 && !must)
        return false;
    data = mem_alloc(range.bytes + 1);
    ssize_t n = range.bytes ? pread(fd, data, range.bytes, (off_t)range.offset) : 0;
    reply.offset = range.offset;
    reply.data = (ProtobufCBinaryData){n > 0 ? (size_t)n : 0, data};
    wire_reply(request, &reply.base);
    return true;
}

static void reader_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void reader_end(struct reader *reader)
{
    DL_DELETE(reader->console->readers, reader);
    loop_timer_free(reader->timer);
    uv_close((uv_handle_t *)&reader->changes, reader_closed);
}

static void reader_try(struct reader *reader, bool must)
{
    struct partition *p = partition_find(reader->console->partitions, reader->vm_id);
    if (read_answer(p, reader->offset, reader->max, must || !p, reader->request))
        reader_end(reader);
}

static void reader_late(void *user)
{
    reader_try(user, true);
}

static void reader_changed(uv_fs_event_t *handle, const char *name, int events, int status)
{
    struct reader *reader = handle->data;
    (void)name;
    (void)events;
    if (status < 0)
        reader_try(reader, true);
    else /* a guest writes byte by byte: gather a little */
        loop_timer_start(reader->timer, READ_DELAY_MS, 0);
}

void console_read(struct console *console, const Drover__ConsoleReadRequest *m, struct wire_request *request)
{
    struct err err;
    char path[PATH_MAX];
    struct partition *p = partition_find(console->partitions, m->vm);
    struct reader *other;
    int waiting = 0;
    DL_COUNT(console->readers, other, waiting);
    if (!p) {
        err_set(&err, ERR_NOT_FOUND, "no partition of VM %.64s is on this host", m->vm);
        wire_reply_error(request, &err);
        return;
    }
    bool must = m->wait_ms == 0 || waiting >= CONSOLE_READERS;
    if (read_answer(p, m->offset, m->max_bytes, must, request))
        return;
    struct reader *reader = mem_zalloc(sizeof *reader);
    reader->console = console;
    reader->request = request;
    strcpy(reader->vm_id, partition_record(p)->vm_id);
    reader->offset = m->offset;
    reader->max = m->max_bytes;
    reader->timer = loop_timer_new(console->loop, reader_late, reader);
    ENSURE(uv_fs_event_init(console->loop, &reader->changes) == 0);
    reader->changes.data = reader;
    DL_APPEND(console->readers, reader);
    int rc = uv_fs_event_start(
        &reader->changes, reader_changed, paths_file(partition_directory(p), PATH_SERIAL_LOG, path), 0);
    loop_timer_start(reader->timer,
        rc < 0                             ? 0
        : m->wait_ms < CONSOLE_WAIT_MAX_MS ? m->wait_ms
                                           : CONSOLE_WAIT_MAX_MS,
        0);
}

static void writer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void writer_end(struct writer *writer)
{
    if (uv_is_closing((uv_handle_t *)&writer->pipe))
        return;
    DL_DELETE(writer->console->writers, writer);
    loop_timer_free(writer->idle);
    uv_close((uv_handle_t *)&writer->pipe, writer_closed);
}

static void writer_idle(void *user)
{
    writer_end(user);
}

static void writer_space(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct writer *writer = handle->data;
    *out = uv_buf_init(writer->sink, sizeof writer->sink);
}

static void writer_drained(uv_stream_t *pipe, ssize_t n, const uv_buf_t *unused)
{
    (void)unused;
    if (n < 0)
        writer_end(pipe->data);
}

static struct writer *writer_open(struct console *console, const struct partition *p, struct err *err)
{
    char path[PATH_MAX];
    int fd;
    if (unixsock_connect(paths_file(partition_directory(p), PATH_SERIAL, path), err, &fd) < 0) {
        err_wrap(err, "the guest's serial port");
        return NULL;
    }
    struct writer *writer = mem_zalloc(sizeof *writer);
    writer->console = console;
    strcpy(writer->vm_id, partition_record(p)->vm_id);
    ENSURE(uv_pipe_init(console->loop, &writer->pipe, 0) == 0);
    writer->pipe.data = writer;
    writer->idle = loop_timer_new(console->loop, writer_idle, writer);
    DL_APPEND(console->writers, writer);
    if (uv_pipe_open(&writer->pipe, fd) != 0 ||
        uv_read_start((uv_stream_t *)&writer->pipe, writer_space, writer_drained) != 0) {
        writer_end(writer);
        err_set(err, ERR_INTERNAL, "cannot use the guest's serial port");
        return NULL;
    }
    return writer;
}

struct typed {
    uv_write_t write;
    struct wire_request *request;
    char text[];
};

static void typed_done(uv_write_t *write, int status)
{
    struct typed *typed = (struct typed *)write;
    if (status < 0) {
        struct err err;
        err_set(&err, ERR_UNAVAILABLE, "the guest's serial port was closed: %s", uv_strerror(status));
        wire_reply_error(typed->request, &err);
    } else {
        Drover__ConsoleWriteReply reply = DROVER__CONSOLE_WRITE_REPLY__INIT;
        wire_reply(typed->request, &reply.base);
    }
    free(typed);
}

void console_write(struct console *console, const Drover__ConsoleWriteRequest *m, struct wire_request *request)
{
    struct err err;
    struct partition *p = partition_find(console->partitions, m->vm);
    struct writer *writer;
    DL_FOREACH(console->writers, writer)
    {
        if (strcmp(writer->vm_id, m->vm) == 0)
            break;
    }
    int rc = 0;
    if (!p || !partition_guest(p))
        rc = err_set(&err, ERR_NOT_FOUND, "no partition of VM %.64s is on this host", m->vm);
    else if (m->data.len == 0 || m->data.len > CONSOLE_WRITE_MAX)
        rc = err_set(&err, ERR_INVALID, "1 to %d bytes can be typed at once", CONSOLE_WRITE_MAX);
    else if (!writer && !(writer = writer_open(console, p, &err)))
        rc = -1;
    if (rc < 0) {
        wire_reply_error(request, &err);
        return;
    }
    struct typed *typed = mem_alloc(sizeof *typed + m->data.len);
    typed->request = request;
    memcpy(typed->text, m->data.data, m->data.len);
    uv_buf_t piece = uv_buf_init(typed->text, (unsigned)m->data.len);
    loop_timer_start(writer->idle, WRITER_IDLE_MS, 0);
    rc = uv_write(&typed->write, (uv_stream_t *)&writer->pipe, &piece, 1, typed_done);
    if (rc < 0)
        typed_done(&typed->write, rc);
}

void console_close(struct console *console)
{
    if (!console)
        return;
    while (console->readers)
        reader_try(console->readers, true);
    while (console->writers)
        writer_end(console->writers);
    free(console);
}
