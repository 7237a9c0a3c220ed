#include "hostd/action.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "proto/api.pb-c.h"

struct actions {
    struct ledger *ledger;
    struct action *list;
};

struct actions *actions_open(struct ledger *ledger)
{
    struct actions *actions = mem_zalloc(sizeof *actions);
    actions->ledger = ledger;
    return actions;
}

static void answer(struct wire_request *request, uint32_t method, enum err_code code, const char *text)
{
    if (code != ERR_NONE) {
        struct err err;
        err_set(&err, code, "%s", text);
        wire_reply_error(request, &err);
    } else if (method == DROVER__METHOD__PARTITION_START) {
        Drover__PartitionStartReply reply = DROVER__PARTITION_START_REPLY__INIT;
        wire_reply(request, &reply.base);
    } else if (method == DROVER__METHOD__PARTITION_STOP) {
        Drover__PartitionStopReply reply = DROVER__PARTITION_STOP_REPLY__INIT;
        reply.detail = (char *)(uintptr_t)text;
        wire_reply(request, &reply.base);
    } else if (method == DROVER__METHOD__MIGRATE_PREPARE) {
        Drover__MigratePrepareReply reply = DROVER__MIGRATE_PREPARE_REPLY__INIT;
        reply.address = (char *)(uintptr_t)text;
        wire_reply(request, &reply.base);
    } else if (method == DROVER__METHOD__STORAGE_MOVE) {
        Drover__StorageMoveReply reply = DROVER__STORAGE_MOVE_REPLY__INIT;
        wire_reply(request, &reply.base);
    } else if (method == DROVER__METHOD__STORAGE_LEAVE) {
        Drover__StorageLeaveReply reply = DROVER__STORAGE_LEAVE_REPLY__INIT;
        wire_reply(request, &reply.base);
    } else if (method == DROVER__METHOD__STORAGE_FINISH) {
        Drover__StorageFinishReply reply = DROVER__STORAGE_FINISH_REPLY__INIT;
        reply.detail = (char *)(uintptr_t)text;
        wire_reply(request, &reply.base);
    } else {
        ENSURE(method == DROVER__METHOD__MIGRATE_START);
        Drover__MigrateStartReply reply = DROVER__MIGRATE_START_REPLY__INIT;
        wire_reply(request, &reply.base);
    }
}

static void action_end(struct action *action, enum err_code code, const char *text, bool remember)
{
    struct actions *all = action->all;
    DL_DELETE(all->list, action);
    if (remember)
        ledger_remember(all->ledger, action->key, code, text);
    for (size_t i = 0; i < action->request_count; i++)
        answer(action->requests[i], action->key.method, code, text);
    free(action->requests);
    free(action);
}

void actions_close(struct actions *actions)
{
    if (!actions)
        return;
    while (actions->list)
        action_end(actions->list, ERR_UNAVAILABLE, "drover-hostd is stopping", false);
    free(actions);
}

static void action_join(struct action *action, struct wire_request *request)
{
    action->requests = mem_realloc(action->requests, (action->request_count + 1) * sizeof(struct wire_request *));
    action->requests[action->request_count++] = request;
}

struct action *action_begin(
    struct actions *actions, uint32_t method, const Drover__ActionKey *key, struct wire_request *request)
{
    struct ledger_key name = {.method = method};
    if (key) {
        name.job_id = key->job_id;
        name.step = key->step;
        name.created_ms = key->created_ms > 0 ? key->created_ms : 0;
    }
    const struct ledger_result *known = ledger_find(actions->ledger, name);
    if (known) {
        answer(request, method, known->code, known->text);
        return NULL;
    }
    struct action *action;
    DL_FOREACH(actions->list, action)
    {
        if (ledger_key_same(&action->key, &name)) {
            action_join(action, request);
            return NULL;
        }
    }
    action = mem_zalloc(sizeof *action);
    *action = (struct action){.all = actions, .key = name};
    action_join(action, request);
    DL_APPEND(actions->list, action);
    return action;
}

void action_done(struct action *action, const char *text)
{
    action_end(action, ERR_NONE, text, true);
}

void action_fail(struct action *action, const struct err *err)
{
    action_end(action, err->code, err->message, !err_retryable(err->code));
}
