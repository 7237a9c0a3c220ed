#include "hostd/dispatch.h"

#include <inttypes.h>

#include "proto/api.pb-c.h"
#include "proto/bounded.h"

/* Each checks nothing but that the body is the message it should be; the handlers check what is in it. */
#define ROUTE(name, type, call)                                                                                        \
    static bool route_##name(struct dispatch *d, struct wire_request *request, const uint8_t *body, size_t len)        \
    {                                                                                                                  \
        Drover__##type *message = BOUNDED_UNPACK(name##_request, body, len);                                           \
        if (!message)                                                                                                  \
            return false;                                                                                              \
        call;                                                                                                          \
        drover__##name##_request__free_unpacked(message, NULL);                                                        \
        return true;                                                                                                   \
    }

ROUTE(partition_start, PartitionStartRequest, partition_start(d->partitions, message, request))
ROUTE(partition_stop, PartitionStopRequest, partition_stop(d->partitions, message, request))
ROUTE(migrate_check, MigrateCheckRequest, migrate_check(d->partitions, message, request))
ROUTE(migrate_prepare, MigratePrepareRequest, migrate_prepare(d->partitions, message, request))
ROUTE(migrate_start, MigrateStartRequest, migrate_start(d->partitions, message, request))
ROUTE(migrate_cancel, MigrateCancelRequest, migrate_cancel(d->partitions, message, request))
ROUTE(migrate_query, MigrateQueryRequest, migrate_query(d->partitions, message, request))
ROUTE(migrate_resolve, MigrateResolveRequest, migrate_resolve(d->partitions, message, request))
ROUTE(storage_check, StorageCheckRequest, storage_check(d->partitions, message, request))
ROUTE(storage_move, StorageMoveRequest, storage_move(d->partitions, message, request))
ROUTE(storage_query, StorageQueryRequest, storage_query(d->partitions, message, request))
ROUTE(storage_finish, StorageFinishRequest, storage_finish(d->partitions, message, request))
ROUTE(storage_leave, StorageLeaveRequest, storage_leave(d->partitions, message, request))
ROUTE(migrate_forecast, MigrateForecastRequest, migrate_forecast(d->partitions, message, request))
ROUTE(console_read, ConsoleReadRequest, console_read(d->console, message, request))
ROUTE(console_write, ConsoleWriteRequest, console_write(d->console, message, request))

static const struct {
    uint32_t method;
    bool (*route)(struct dispatch *d, struct wire_request *request, const uint8_t *body, size_t len);
} routes[] = {
    {DROVER__METHOD__PARTITION_START, route_partition_start},
    {DROVER__METHOD__PARTITION_STOP, route_partition_stop},
    {DROVER__METHOD__MIGRATE_CHECK, route_migrate_check},
    {DROVER__METHOD__MIGRATE_PREPARE, route_migrate_prepare},
    {DROVER__METHOD__MIGRATE_START, route_migrate_start},
    {DROVER__METHOD__MIGRATE_CANCEL, route_migrate_cancel},
    {DROVER__METHOD__MIGRATE_QUERY, route_migrate_query},
    {DROVER__METHOD__MIGRATE_RESOLVE, route_migrate_resolve},
    {DROVER__METHOD__STORAGE_CHECK, route_storage_check},
    {DROVER__METHOD__STORAGE_MOVE, route_storage_move},
    {DROVER__METHOD__STORAGE_QUERY, route_storage_query},
    {DROVER__METHOD__STORAGE_FINISH, route_storage_finish},
    {DROVER__METHOD__STORAGE_LEAVE, route_storage_leave},
    {DROVER__METHOD__MIGRATE_FORECAST, route_migrate_forecast},
    {DROVER__METHOD__CONSOLE_READ, route_console_read},
    {DROVER__METHOD__CONSOLE_WRITE, route_console_write},
};

static bool brings_guest(uint32_t method)
{
    return method == DROVER__METHOD__PARTITION_START || method == DROVER__METHOD__MIGRATE_PREPARE;
}

void dispatch_request(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct dispatch *d = user;
    struct err err;
    (void)peer;
    if (!request)
        return; /* hosts take no notes */
    if (wire_request_principal(request)->kind != PRINCIPAL_CONTROLLER) {
        err_set(&err, ERR_DENIED, "only controllers may ask a host");
        wire_reply_error(request, &err);
        return;
    }
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (routes[i].method != method)
            continue;
        if (brings_guest(method) && partitions_shutting_down(d->partitions)) {
            err_set(&err, ERR_WRONG_STATE, "this host is being shut down: it takes no guests until it is up again");
            wire_reply_error(request, &err);
            return;
        }
        if (!routes[i].route(d, request, body, len)) {
            err_set(&err, ERR_PROTOCOL, "the request's body makes no sense");
            wire_reply_error(request, &err);
        }
        return;
    }
    err_set(&err, ERR_UNSUPPORTED, "a host does not answer method %" PRIu32, method);
    wire_reply_error(request, &err);
}
