/* Private to api/: one request on its way to its answer, and the tables of methods. */
#ifndef CONTROLLER_API_CALL_H
#define CONTROLLER_API_CALL_H

#include "controller/controller.h"
#include "controller/pb.h"
#include "controller/state/effect.h"
#include "proto/api.pb-c.h"

struct api_call {
    struct controller *c;
    struct wire_request *request; /* to be answered exactly once */
    struct wire_peer *peer;
    struct principal actor;
    ProtobufCMessage *message; /* owned */
};

enum api_access {
    API_READ,   /* users; through a linearizable read unless stale */
    API_CHANGE, /* users; on the leader */
    API_HOST,   /* hosts; on the leader */
};

struct api_method {
    uint32_t number;
    enum api_access access;
    const ProtobufCMessageDescriptor *request;
    void (*run)(struct api_call *call); /* must end in one of the functions below */
};
/* Each ended by run = NULL. */
extern const struct api_method api_vm_methods[], api_storage_methods[], api_cluster_methods[], api_job_methods[],
    api_host_methods[];

/* The three ways to answer; each frees the call. */
void api_reply(struct api_call *call, const void *message);
void api_fail(struct api_call *call, const struct err *err);
/* Submits the job (taken) and answers with it. */
void api_job(struct api_call *call, Drover__JobCreate *create);

/* A new job of the kind on `target`. Take. */
Drover__JobCreate *api_job_new(Drover__JobKind kind, const char *target);
/* The VM by name. */
MUST_CHECK int api_vm(const struct api_call *call, const char *name, struct err *err, struct state_vm *out);
/* Name of a host that exists; empty is fine and means none. */
MUST_CHECK int api_host(const struct api_call *call, const char *name, struct err *err);
/* The job with what this leader knows of it besides the log. Take. NULL: no such job. */
Drover__Job *api_job_message(struct controller *c, uint64_t id);
/* An unfinished or ended job as the answer. */
void api_reply_job(struct api_call *call, uint64_t id);
/* True while a list with `message` too fits one answer; what does not fit is for the next page. */
bool api_room(size_t *used, const void *message);
static inline uint32_t api_limit(uint32_t asked, uint32_t most)
{
    return asked && asked < most ? asked : most;
}

#endif
