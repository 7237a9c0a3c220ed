#include "migrate/side.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/loop.h"

#define LAST_WORDS_MS 1000u

static bool side_auth(void *user, const uint8_t public_key[KEY_BYTES], struct principal *out)
{
    const struct side *side = user;
    if (memcmp(public_key, side->peer_key, KEY_BYTES) != 0)
        return false;
    *out = (struct principal){.kind = PRINCIPAL_HOST, .name = "source"};
    return true;
}

void side_log_quota(const struct side *side)
{
    log_event(LOG_INFO, "migration.quota", "migration=%s bytes_per_s=%" PRIu64 " millicores=%" PRIu64,
        side->options->migration_id, quota_bytes_per_s(&side->quota), quota_millicores(&side->quota));
}

static void side_on_command(void *user, const struct control_command *command)
{
    struct side *side = user;
    switch (command->verb) {
    case CONTROL_CANCEL:
        side->on_cancel(side->user);
        return;
    case CONTROL_BANDWIDTH:
        quota_limit(&side->quota, QUOTA_HERE, command->amount);
        side->on_share(side->user);
        break;
    case CONTROL_CPU:
        quota_cpu(&side->quota, command->amount);
        break;
    }
    side_log_quota(side);
}

static void side_set_quota(struct side *side)
{
    quota_init(&side->quota);
    quota_limit(&side->quota, QUOTA_ASKED, side->options->bandwidth);
    quota_limit(&side->quota, QUOTA_HERE, side->options->share);
    quota_cpu(&side->quota, side->options->cpu);
    side_log_quota(side);
}

int side_open(struct side *side, const struct options *options, const struct guest_events *events,
    void (*on_cancel)(void *user), void (*on_share)(void *user), void *user, struct err *err)
{
    *side = (struct side){
        .options = options, .ram = {.fd = -1}, .on_cancel = on_cancel, .on_share = on_share, .user = user};
    side_set_quota(side);
    ENSURE(uv_loop_init(&side->loop) == 0);
    struct key_pair key;
    if (key_parse(options->key_peer, err, side->peer_key) < 0)
        return err_wrap(err, "key.peer");
    if (key_load(options->key_file, err, &key) < 0)
        return -1;
    int rc = wire_new(&side->loop, &key, "drover-migrate " DROVER_VERSION, side_auth, side, err, &side->wire);
    key_wipe(&key, sizeof key);
    if (rc < 0 || ram_open(options->ram_file, options->ram_bytes, err, &side->ram) < 0 ||
        control_open(&side->loop, options->control_socket, side_on_command, side, err, &side->control) < 0 ||
        (events && guest_open(&side->loop, options->qmp, events, err, &side->guest) < 0))
        return -1;
    return 0;
}

static void side_waited(void *user)
{
    struct side *side = user;
    uv_stop(&side->loop);
}

void side_close(struct side *side)
{
    side->closing = true;
    guest_close(side->guest);
    control_close(side->control);
    wire_free(side->wire);
    /* What was said last may leave; a client that does not read does not keep us. */
    struct loop_timer *bound = loop_timer_new(&side->loop, side_waited, side);
    loop_timer_start(bound, LAST_WORDS_MS, 0);
    loop_timer_unref(bound);
    uv_run(&side->loop, UV_RUN_DEFAULT);
    loop_timer_free(bound);
    loop_close(&side->loop);
    ram_close(&side->ram); /* not before: it may be being hashed until now */
}

void side_phase(struct side *side, const char *phase)
{
    log_event(LOG_INFO, "migration.phase", "migration=%s phase=%s", side->options->migration_id, phase);
    if (side->control)
        control_event(side->control, "phase", json_pack("{s:s}", "phase", phase), true);
}

void side_failed(struct side *side, const struct err *err)
{
    log_event(LOG_ERROR, "migration.failed", "migration=%s code=%s message=%s", side->options->migration_id,
        err_name(err->code), LOG_QUOTE(err->message));
    if (side->control)
        control_event(side->control, "failed",
            json_pack("{s:s, s:s}", "code", err_name(err->code), "message", err->message), true);
}

void side_refused(struct side *side, const char *message)
{
    log_event(LOG_WARN, "command.refused", "migration=%s message=%s", side->options->migration_id, LOG_QUOTE(message));
    control_event(side->control, "refused", json_pack("{s:s}", "message", message), false);
}

struct hash_work {
    uv_work_t request;
    struct side *side;
    side_hash_fn fn;
    void *user;
    int rc;
    struct err err;
    char hash[RAM_HASH_TEXT];
};

static void hash_work(uv_work_t *request)
{
    struct hash_work *work = (struct hash_work *)request;
    work->rc = ram_hash(&work->side->ram, &work->err, work->hash);
}

static void hash_done(uv_work_t *request, int status)
{
    struct hash_work *work = (struct hash_work *)request;
    if (status == 0 && !work->side->closing)
        work->fn(work->user, work->rc < 0 ? &work->err : NULL, work->hash);
    free(work);
}

void side_hash(struct side *side, side_hash_fn fn, void *user)
{
    struct hash_work *work = mem_zalloc(sizeof *work);
    work->side = side;
    work->fn = fn;
    work->user = user;
    ENSURE(uv_queue_work(&side->loop, &work->request, hash_work, hash_done) == 0);
}

struct flush_work {
    uv_work_t request;
    struct side *side;
    char **files; /* copies: the guest may be closed meanwhile */
    size_t count;
    void (*fn)(void *user);
    void *user;
};

static void flush_work(uv_work_t *request)
{
    struct flush_work *work = (struct flush_work *)request;
    for (size_t i = 0; i < work->count; i++) {
        cleanup_fd int fd = open(work->files[i], O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            (void)fdatasync(fd);
    }
}

static void flush_done(uv_work_t *request, int status)
{
    struct flush_work *work = (struct flush_work *)request;
    if (status == 0 && !work->side->closing)
        work->fn(work->user);
    for (size_t i = 0; i < work->count; i++)
        free(work->files[i]);
    free(work->files);
    free(work);
}

void side_flush(struct side *side, void (*fn)(void *user), void *user)
{
    struct flush_work *work = mem_zalloc(sizeof *work);
    const char *const *files;
    work->side = side;
    work->count = guest_disks(side->guest, &files);
    work->files = mem_zalloc((work->count + 1) * sizeof *work->files);
    for (size_t i = 0; i < work->count; i++)
        work->files[i] = mem_strdup(files[i]);
    work->fn = fn;
    work->user = user;
    ENSURE(uv_queue_work(&side->loop, &work->request, flush_work, flush_done) == 0);
}

void side_error_from(const Drover__ErrorInfo *info, struct err *err)
{
    if (info)
        err_set(err, err_from_name(info->code), "%s", info->message);
    else
        err_set(err, ERR_INTERNAL, "no reason given");
}
