/* What hostd reads of what others wrote: an engine's events and record, a partition's record, and QEMU's monitor. The
 * first byte says which decoder gets the rest. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "base/qmp.h"
#include "hostd/partition/record.h"
#include "hostd/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One event a line, as from the control socket. */
static void fuzz_events(const uint8_t *data, size_t size)
{
    struct report report = {0};
    while (size > 0) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t len = end ? (size_t)(end - data) : size;
        json_t *event = json_loadb((const char *)data, len, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(event))
            report_apply(&report, event);
        json_decref(event);
        data += len + (end != NULL);
        size -= len + (end != NULL);
    }
    Drover__MigrationProgress progress;
    report_progress(&report, 1, &progress);
    report_clear(&report);
}

static void fuzz_record(const uint8_t *data, size_t size)
{
    struct record record, again;
    struct err err;
    if (record_parse((const char *)data, size, &err, &record) < 0)
        return;
    cleanup_free char *text = record_format(&record);
    ENSURE(record_parse(text, strlen(text), &err, &again) == 0);
    ENSURE(again.state == record.state && again.generation == record.generation);
    record_clear(&again);
    record_clear(&record);
}

/* ---- the monitor ---- */

struct talk {
    unsigned calls, replies, closed;
};

static void talk_reply(void *user, const struct err *err, json_t *result)
{
    struct talk *talk = user;
    ENSURE(err || result);
    talk->replies++;
}

static void talk_event(void *user, const char *event, json_t *data, uint64_t at_ns)
{
    (void)user;
    ENSURE(event && json_is_object(data) && at_ns <= clock_now_ns());
}

static void talk_closed(void *user, const struct err *err)
{
    struct talk *talk = user;
    (void)err;
    talk->closed++;
}

static int monitor_listen(char directory[static 32], char path[static 64])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(directory, "/tmp/fuzz-qmp-XXXXXX");
    ENSURE(mkdtemp(directory));
    snprintf(path, 64, "%s/socket", directory);
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ENSURE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0);
    return fd;
}

/* All that is said by a QEMU that then goes away; each command must end exactly once. */
static void fuzz_monitor(const uint8_t *data, size_t size)
{
    uv_loop_t loop;
    struct qmp *qmp;
    struct err err;
    struct talk talk = {.calls = 2};
    char directory[32], path[64];
    const struct qmp_options options = {.on_event = talk_event, .on_closed = talk_closed, .user = &talk};
    ENSURE(uv_loop_init(&loop) == 0);
    cleanup_fd int server = monitor_listen(directory, path);
    ENSURE(qmp_open(&loop, path, &options, &err, &qmp) == 0);
    qmp_command(qmp, "query-status", NULL, 1000, talk_reply, &talk);
    qmp_command(qmp, "cont", NULL, 1000, talk_reply, &talk);
    int fd = accept(server, NULL, NULL);
    ENSURE(fd >= 0);
    (void)!send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(fd, SHUT_WR);
    while (!talk.closed)
        uv_run(&loop, UV_RUN_ONCE);
    ENSURE(talk.replies == talk.calls);
    qmp_close(qmp);
    close(fd);
    unlink(path);
    rmdir(directory);
    uv_run(&loop, UV_RUN_DEFAULT);
    loop_close(&loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 'e')
        fuzz_events(data + 1, size - 1);
    else if (data[0] == 'o')
        (void)record_phase_parse((const char *)data + 1, size - 1, "m-1");
    else if (data[0] == 'p')
        fuzz_record(data + 1, size - 1);
    else if (data[0] == 'q')
        fuzz_monitor(data + 1, size - 1);
    return 0;
}
