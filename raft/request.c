#include "base/ensure.h"
#include "raft/internal.h"

void request_list_init(struct request_list *list)
{
    *list = (struct request_list){.last = &list->first};
}

void request_push(struct request_list *list, struct request *request)
{
    request->next = NULL;
    *list->last = request;
    list->last = &request->next;
    list->count++;
    list->bytes += request->bytes;
}

void request_remove(struct request_list *list, struct request *request)
{
    struct request **at = &list->first;
    while (*at != request) {
        ENSURE(*at);
        at = &(*at)->next;
    }
    *at = request->next;
    if (!request->next)
        list->last = at;
    request->next = NULL;
    list->count--;
    list->bytes -= request->bytes;
}

struct request *request_pop(struct request_list *list)
{
    struct request *request = list->first;
    if (request)
        request_remove(list, request);
    return request;
}

void request_end(struct replica *replica, struct request *request, const struct err *err)
{
    raft_free(request->entry.base);
    request->entry = (struct raft_buffer){0};
    if (err) {
        request->failed = true;
        request->err = *err;
    }
    request_push(&replica->done, request);
    kick_arm(replica->kick);
}
