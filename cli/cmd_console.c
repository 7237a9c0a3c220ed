/* drover vm console: the guest's serial console on this terminal.
 *
 * One read is always under way; it answers as soon as the guest has written something. What is typed goes out in
 * writes, one at a time so that it stays in order. When the connection is lost (the leader died) reading goes on at the
 * same offset with the next leader; what was being written then is dropped and said so, because typing it twice could
 * do harm. */
#include <errno.h>
#include <stdio.h>
#include <termios.h>

#include "base/ensure.h"
#include "cli/cmd_vm.h"
#include "proto/bounded.h"

#define ESCAPE       0x1d /* Ctrl-] as in telnet */
#define READ_BYTES   (64u << 10)
#define WRITE_BYTES  4096u /* what a host takes at once */
#define READ_WAIT_MS 1000
#define CALL_MS      5000

struct console {
    struct cli *cli;
    const char *vm;
    uint64_t offset;
    struct buf typed;
    bool reading, writing, lost, done;
    struct err err; /* why it is done; ERR_NONE: as it should be */
};

static void console_fail(struct console *c, const struct err *err)
{
    if (err->code == ERR_CANCELLED)
        return; /* we closed the connection ourselves */
    if (err_retryable(err->code)) {
        c->lost = true;
        return;
    }
    c->err = *err;
    c->done = true;
}

static void console_show(struct console *c, const Drover__ConsoleReadReply *reply)
{
    c->offset = reply->offset + reply->data.len;
    fwrite(reply->data.data, 1, reply->data.len, stdout);
    if (fflush(stdout) != 0)
        c->done = true; /* nobody looks any more */
}

static void read_request(const struct console *c, uint32_t wait_ms, Drover__ConsoleReadRequest *out)
{
    drover__console_read_request__init(out);
    out->vm = (char *)c->vm;
    out->offset = c->offset;
    out->max_bytes = READ_BYTES;
    out->wait_ms = wait_ms;
}

static void on_read(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct console *c = user;
    c->reading = false;
    if (err) {
        console_fail(c, err);
        return;
    }
    Drover__ConsoleReadReply *reply = BOUNDED_UNPACK(console_read_reply, body, len);
    if (!reply) {
        struct err bad;
        err_set(&bad, ERR_PROTOCOL, "the controller's answer cannot be read");
        console_fail(c, &bad);
        return;
    }
    console_show(c, reply);
    drover__console_read_reply__free_unpacked(reply, NULL);
}

static void on_written(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    struct console *c = user;
    c->writing = false;
    if (!err)
        return;
    console_fail(c, err);
    if (c->lost)
        fprintf(stderr, "\r\n[drover: the connection was lost; the last keys may not have arrived]\r\n");
}

static void on_typed(uv_poll_t *poll, int status, int events)
{
    struct console *c = poll->data;
    uint8_t keys[256];
    ssize_t n = status < 0 || !(events & UV_READABLE) ? 0 : read(STDIN_FILENO, keys, sizeof keys);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    uint8_t *escape = n > 0 ? memchr(keys, ESCAPE, (size_t)n) : NULL;
    if (n <= 0 || escape)
        c->done = true;
    if (n > 0)
        buf_append(&c->typed, keys, escape ? (size_t)(escape - keys) : (size_t)n);
}

/* Reads at once, over elections: at the beginning, and whenever the connection was lost. */
static int console_sync(struct console *c, struct err *err, size_t *got)
{
    Drover__ConsoleReadRequest request;
    Drover__ConsoleReadReply *reply;
    read_request(c, 0, &request);
    if (cli_call(c->cli, DROVER__METHOD__CONSOLE_READ, &request.base, &drover__console_read_reply__descriptor, err,
            &reply) < 0)
        return err_wrap(err, "vm console %.64s", c->vm);
    *got = reply->data.len;
    console_show(c, reply);
    drover__console_read_reply__free_unpacked(reply, NULL);
    return 0;
}

static void console_calls(struct console *c, struct wire_peer *peer)
{
    if (!c->reading) {
        Drover__ConsoleReadRequest request;
        read_request(c, READ_WAIT_MS, &request);
        c->reading = true;
        wire_call(peer, DROVER__METHOD__CONSOLE_READ, &request.base, CALL_MS, on_read, c);
    }
    if (!c->writing && c->typed.len > 0) {
        Drover__ConsoleWriteRequest request = DROVER__CONSOLE_WRITE_REQUEST__INIT;
        request.vm = (char *)c->vm;
        request.data.len = c->typed.len < WRITE_BYTES ? c->typed.len : WRITE_BYTES;
        request.data.data = c->typed.data;
        c->writing = true;
        wire_call(peer, DROVER__METHOD__CONSOLE_WRITE, &request.base, CALL_MS, on_written, c);
        buf_consume(&c->typed, request.data.len);
    }
}

static int console_loop(struct console *c, struct err *err)
{
    struct connection *connection = c->cli->connection;
    while (!c->done && !connect_interrupted(connection)) {
        struct wire_peer *peer = connect_peer(connection);
        size_t got;
        if (peer && !c->lost) {
            console_calls(c, peer);
            uv_run(connect_loop(connection), UV_RUN_ONCE);
        } else if (c->reading || c->writing) {
            uv_run(connect_loop(connection), UV_RUN_ONCE); /* their ends are still to come */
        } else {
            c->lost = false;
            if (console_sync(c, err, &got) < 0)
                return -1;
        }
    }
    if (c->err.code == ERR_NONE)
        return 0;
    *err = c->err;
    return err_wrap(err, "vm console %.64s", c->vm);
}

static int console_interactive(struct console *c, struct err *err)
{
    struct termios before, raw;
    uv_poll_t poll;
    if (tcgetattr(STDIN_FILENO, &before) < 0)
        return err_set(err, ERR_INVALID, "vm console: needs a terminal; --log prints what there is and ends");
    if (connect_catch_interrupt(c->cli->connection, err) < 0)
        return -1;
    fprintf(stderr, "[drover: console of %s; Ctrl-] ends it]\n", c->vm);
    raw = before;
    cfmakeraw(&raw);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    ENSURE(uv_poll_init(connect_loop(c->cli->connection), &poll, STDIN_FILENO) == 0);
    poll.data = c;
    ENSURE(uv_poll_start(&poll, UV_READABLE, on_typed) == 0);

    int status = console_loop(c, err);

    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    fprintf(stderr, "\n[drover: console closed]\n");
    uv_close((uv_handle_t *)&poll, NULL);
    connect_close(c->cli->connection); /* ends the calls under way while `c` and `poll` are still there */
    c->cli->connection = NULL;
    return status;
}

static int console_run(struct cli *cli, const struct args *args, struct err *err)
{
    struct console c = {.cli = cli, .vm = args->words[0]};
    size_t got = 0;
    if (cli->format != OUTPUT_TABLE)
        return err_set(err, ERR_INVALID, "vm console: prints the console as it is; -o has no meaning here");
    int status = console_sync(&c, err, &got);
    if (status == 0 && args_on(args, "log"))
        while (status == 0 && got > 0 && !c.done)
            status = console_sync(&c, err, &got);
    else if (status == 0)
        status = console_interactive(&c, err);
    buf_free(&c.typed);
    return status;
}

static const struct flag console_flags[] = {
    {"log", 0, FLAG_SWITCH, .help = "print what the console has shown lately, and end"},
    {NULL},
};

const struct command cmd_vm_console = {
    .path = "vm console",
    .arguments = "VM",
    .kind = COMMAND_OTHER,
    .summary = "the guest's serial console on this terminal",
    .text = "What you type goes to the guest, Ctrl-C too. Ctrl-] "
            "ends it. The console stays with the guest when it migrates.",
    .example = "drover vm console web-1\ndrover vm console web-1 --log",
    .flags = console_flags,
    .run = console_run,
};
