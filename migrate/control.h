/* control: the engine's control socket. Events go to every client; a new client is sent the latest `listening` and
 * `phase`. */
#ifndef MIGRATE_CONTROL_H
#define MIGRATE_CONTROL_H

#include <jansson.h>
#include <uv.h>

#include "base/err.h"

struct control;

enum control_verb { CONTROL_CANCEL, CONTROL_BANDWIDTH, CONTROL_CPU };

struct control_command {
    enum control_verb verb;
    uint64_t amount; /* bandwidth: bytes/s; cpu: thousandths of a core; 0: not limited */
};

/* What a client's line asks for. Pure. */
MUST_CHECK int control_parse(const json_t *message, struct err *err, struct control_command *out);

/* `on_command` is called for every command that makes sense. Take: control_close(). */
MUST_CHECK int control_open(uv_loop_t *loop, const char *path,
    void (*on_command)(void *user, const struct control_command *command), void *user, struct err *err,
    struct control **out);
/* Sends an event; takes `fields` (NULL: none) and adds "event". `sticky` events are sent again to later clients, the
 * last of each name. */
void control_event(struct control *control, const char *event, json_t *fields, bool sticky);
/* Closes after what was sent has left. NULL is fine. */
void control_close(struct control *control);

#endif
