/* control: the engine's control socket. Events go to every client; a new client is sent the latest `listening` and
 * `phase`. */
#ifndef MIGRATE_CONTROL_H
#define MIGRATE_CONTROL_H

#include <jansson.h>
#include <uv.h>

#include "base/err.h"

struct control;

/* `on_cancel` is called for every cancel command. Take: control_close(). */
MUST_CHECK int control_open(uv_loop_t *loop, const char *path, void (*on_cancel)(void *user), void *user,
    struct err *err, struct control **out);
/* Sends an event; takes `fields` (NULL: none) and adds "event". `sticky` events are sent again to later clients, the
 * last of each name. */
void control_event(struct control *control, const char *event, json_t *fields, bool sticky);
/* Closes after what was sent has left. NULL is fine. */
void control_close(struct control *control);

#endif
