/* A host that copies a disk, as drover-hostd promises to: how it ends is in the files, whatever the host remembers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "proto/api.pb-c.h"
#include "sim_hosts.h"

#define COPY_MS 2500u

void sim_disk(struct sim *sim, const char *vm_id, char out[64])
{
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(sim->state, vm_id);
    assert_non_null(spec);
    snprintf(out, 64, "%s", spec->disks[0]->path);
}

static void copy_run(struct sim *sim)
{
    struct sim_storage *s = &sim->storage;
    if (!s->begun || s->over || s->slow || sim->now_ms - s->start_ms < COPY_MS)
        return;
    s->over = true;
    s->committed = !s->fails;
}

/* The host that knows nothing goes by what somebody has said, and keeps to that. */
static bool in_doubt(struct sim_storage *s, const Drover__StorageQueryRequest *query)
{
    if (!s->blind || !s->over || !query->fence)
        return false;
    assert_string_equal(query->vm_id, "vm-1");
    if (!query->move->settled[0])
        return true;
    s->blind = false;
    s->committed = strcmp(query->move->settled, SIM_TARGET) == 0;
    return false;
}

static void *answer(struct sim *sim, const Drover__StorageQueryRequest *query)
{
    bool fence = query->fence;
    struct sim_storage *s = &sim->storage;
    Drover__MigrateQueryReply *reply = pb_new(&drover__migrate_query_reply__descriptor);
    if (fence && !s->over) {
        s->over = s->shut = true; /* called off, or never to begin */
    }
    if (in_doubt(s, query)) {
        reply->outcome = DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT;
        struct err err;
        err_set(&err, ERR_UNAVAILABLE, "the directory is not the one");
        reply->error = pb_error(&err);
    } else if (s->over && (fence || !s->forgets))
        reply->outcome =
            s->committed ? DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN : DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    else
        reply->outcome = s->begun && !s->over ? DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY
                                              : DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
    return reply;
}

static int begin(struct sim *sim, struct err *err)
{
    struct sim_storage *s = &sim->storage;
    if (s->shut)
        return err_set(err, ERR_CANCELLED, "called off");
    if (s->over && s->forgets)
        return err_set(err, ERR_EXISTS, "the target exists");
    if (!s->begun)
        s->start_ms = sim->now_ms;
    s->begun = true;
    return 0;
}

int sim_storage_call(struct sim *sim, uint32_t method, const void *request, struct err *err, void **reply)
{
    char disk[64];
    copy_run(sim);
    switch (method) {
    case DROVER__METHOD__STORAGE_CHECK: {
        Drover__StorageCheckReply *checked = pb_new(&drover__storage_check_reply__descriptor);
        pb_string(&checked->target, SIM_TARGET);
        pb_string(&checked->format, "raw");
        *reply = checked;
        return 0;
    }
    case DROVER__METHOD__STORAGE_MOVE:
        *reply = pb_new(&drover__storage_move_reply__descriptor);
        return begin(sim, err);
    case DROVER__METHOD__STORAGE_QUERY:
        *reply = answer(sim, request);
        return 0;
    case DROVER__METHOD__STORAGE_FINISH:
        sim_disk(sim, "vm-1", disk); /* the log must name the new file before the old one goes */
        assert_string_equal(disk, SIM_TARGET);
        assert_true(sim->storage.committed);
        sim->storage.removed++;
        *reply = pb_new(&drover__storage_finish_reply__descriptor);
        return 0;
    default:
        return err_set(err, ERR_UNSUPPORTED, "method %u", method);
    }
}
