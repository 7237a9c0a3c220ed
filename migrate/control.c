#include "migrate/control.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/jsonline.h"
#include "proto/limits.h"

#define CLIENTS_MAX      8
#define COMMAND_LINE_MAX 4096

struct control_client {
    struct control_client *prev, *next;
    struct control *control;
    struct jsonline *stream;
};

struct control {
    uv_loop_t *loop;
    struct jsonline_server *server;
    struct control_client *clients;
    json_t *sticky; /* event name -> event */
    void (*on_command)(void *user, const struct control_command *command);
    void *user;
};

static int amount_of(const json_t *message, const char *key, uint64_t most, struct err *err, uint64_t *out)
{
    const json_t *value = json_object_get(message, key);
    json_int_t amount = json_integer_value(value);
    if (!json_is_integer(value) || amount < 0 || (uint64_t)amount > most)
        return err_set(err, ERR_INVALID, "%s must be a whole number from 0 to %" PRIu64, key, most);
    *out = (uint64_t)amount;
    return 0;
}

int control_parse(const json_t *message, struct err *err, struct control_command *out)
{
    const char *command = json_string_value(json_object_get(message, "command"));
    struct control_command parsed = {.verb = CONTROL_CANCEL};
    int rc = 0;
    if (command && strcmp(command, "bandwidth") == 0) {
        parsed.verb = CONTROL_BANDWIDTH;
        rc = amount_of(message, "bytes_per_s", LIMITS_BYTES_PER_S, err, &parsed.amount);
    } else if (command && strcmp(command, "cpu") == 0) {
        parsed.verb = CONTROL_CPU;
        rc = amount_of(message, "millicores", LIMITS_MILLICORES, err, &parsed.amount);
    } else if (!command || strcmp(command, "cancel") != 0) {
        rc = err_set(err, ERR_INVALID, "the commands are cancel, bandwidth and cpu");
    }
    if (rc == 0)
        *out = parsed;
    return rc;
}

static void client_free(struct control_client *client)
{
    DL_DELETE(client->control->clients, client);
    jsonline_close(client->stream);
    free(client);
}

static void client_on_message(void *user, json_t *message)
{
    struct control_client *client = user;
    struct control_command command;
    struct err err;
    if (control_parse(message, &err, &command) == 0)
        client->control->on_command(client->control->user, &command);
    else
        jsonline_send(client->stream, json_pack("{s:s, s:s}", "event", "refused", "message", err.message));
}

static void client_on_closed(void *user, const struct err *err)
{
    (void)err;
    client_free(user);
}

static void control_on_accept(void *user, int fd)
{
    struct control *control = user;
    struct control_client *client = mem_zalloc(sizeof *client);
    struct jsonline_options options = {
        .on_message = client_on_message, .on_closed = client_on_closed, .user = client, .max_line = COMMAND_LINE_MAX};
    struct control_client *other;
    int count;
    DL_COUNT(control->clients, other, count);
    if (count >= CLIENTS_MAX) {
        close(fd);
        free(client);
        return;
    }
    client->control = control;
    if (jsonline_open(control->loop, fd, &options, NULL, &client->stream) < 0) {
        free(client);
        return;
    }
    DL_APPEND(control->clients, client);
    const char *name;
    json_t *event;
    json_object_foreach(control->sticky, name, event) jsonline_send(client->stream, json_incref(event));
}

int control_open(uv_loop_t *loop, const char *path,
    void (*on_command)(void *user, const struct control_command *command), void *user, struct err *err,
    struct control **out)
{
    struct control *control = mem_zalloc(sizeof *control);
    control->loop = loop;
    control->on_command = on_command;
    control->user = user;
    if (jsonline_listen(loop, path, control_on_accept, control, err, &control->server) < 0) {
        free(control);
        return err_wrap(err, "control socket");
    }
    control->sticky = json_object();
    *out = control;
    return 0;
}

void control_event(struct control *control, const char *event, json_t *fields, bool sticky)
{
    if (!fields)
        fields = json_object();
    json_object_set_new(fields, "event", json_string(event));
    if (sticky)
        json_object_set(control->sticky, event, fields);
    struct control_client *client;
    DL_FOREACH(control->clients, client)
    {
        jsonline_send(client->stream, json_incref(fields));
    }
    json_decref(fields);
}

void control_close(struct control *control)
{
    if (!control)
        return;
    while (control->clients)
        client_free(control->clients);
    jsonline_server_close(control->server);
    json_decref(control->sticky);
    free(control);
}
