#include "storage/image.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/loop.h"

#define IMAGE_TIMEOUT_MS 30000
#define IMAGE_WORDS_MAX  511 /* of what it says when it fails */

struct image {
    image_fn fn; /* NULL: told, or nobody waits */
    void *user;
    uv_process_t process;
    uv_pipe_t words;
    struct loop_timer *timer;
    char said[IMAGE_WORDS_MAX + 1];
    size_t said_len;
    bool raw, timed_out, freed;
    bool reaped; /* its pid may be another's */
    int64_t status;
    unsigned open; /* handles of the child that are */
    struct err failure;
};

static void image_end(struct image *image, const struct err *err)
{
    image_fn fn = image->fn;
    image->fn = NULL;
    loop_timer_stop(image->timer);
    if (fn)
        fn(image->user, err);
}

static void raw_made(void *user)
{
    image_end(user, NULL);
}

static void image_destroy(struct image *image)
{
    loop_timer_free(image->timer);
    free(image);
}

/* Told when the child is reaped and everything it said is read. */
static void handle_closed(uv_handle_t *handle)
{
    struct image *image = handle->data;
    struct err err;
    if (--image->open > 0)
        return;
    if (image->freed) {
        image_destroy(image);
        return;
    }
    image->said[strcspn(image->said, "\n")] = '\0';
    if (image->status == 0) {
        image_end(image, NULL);
        return;
    }
    err_set(&err, image->timed_out ? ERR_TIMEOUT : ERR_INVALID, "%s",
        image->timed_out ? "qemu-img did not end in time"
        : image->said[0] ? image->said
                         : "qemu-img failed");
    image_end(image, &err);
}

static void child_exited(uv_process_t *process, int64_t status, int signal)
{
    struct image *image = process->data;
    image->reaped = true;
    image->status = status ? status : signal;
    uv_close((uv_handle_t *)process, handle_closed);
}

static void words_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct image *image = handle->data;
    (void)suggested;
    size_t left = IMAGE_WORDS_MAX - image->said_len;
    static char rest[256]; /* what is too much is read and forgotten */
    *out = left ? uv_buf_init(image->said + image->said_len, (unsigned)left) : uv_buf_init(rest, sizeof rest);
}

static void words_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct image *image = stream->data;
    if (n > 0 && buf->base == image->said + image->said_len)
        image->said_len += (size_t)n;
    if (n < 0)
        uv_close((uv_handle_t *)stream, handle_closed);
}

/* Ends the child, or the wait for more words of one that has ended: what it started may hold its stderr open. */
static void image_hurry(struct image *image)
{
    if (!image->reaped)
        uv_process_kill(&image->process, SIGKILL);
    else if (!uv_is_closing((uv_handle_t *)&image->words))
        uv_close((uv_handle_t *)&image->words, handle_closed);
}

static void image_overdue(void *user)
{
    struct image *image = user;
    if (image->raw) {
        raw_made(image);
        return;
    }
    image->timed_out = !image->reaped;
    image_hurry(image);
}

static int image_spawn(uv_loop_t *loop, const struct image_config *config, struct image *image, struct err *err)
{
    char size[32];
    snprintf(size, sizeof size, "%" PRIu64, config->bytes);
    const char *plain[] = {config->qemu_img, "create", "-q", "-f", config->format, "--", config->path, size, NULL};
    const char *overlay[] = {config->qemu_img, "create", "-q", "-f", config->format, "-b", config->backing, "-F",
        config->backing_format, "--", config->path, size, NULL};
    uv_pipe_init(loop, &image->words, 0);
    uv_stdio_container_t stdio[] = {{.flags = UV_IGNORE}, {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&image->words}};
    uv_process_options_t options = {
        .exit_cb = child_exited,
        .file = config->qemu_img,
        .args = (char **)(uintptr_t)(config->backing ? overlay : plain),
        .stdio = stdio,
        .stdio_count = 3,
    };
    image->process.data = image->words.data = image;
    int rc = uv_spawn(loop, &image->process, &options);
    if (rc < 0) {
        image->freed = true;
        image->open = 2;
        uv_close((uv_handle_t *)&image->words, handle_closed);
        uv_close((uv_handle_t *)&image->process, handle_closed);
        return err_set(err, rc == UV_ENOENT ? ERR_NOT_FOUND : ERR_INTERNAL, "%s cannot be run: %s", config->qemu_img,
            uv_strerror(rc));
    }
    image->open = 2;
    uv_read_start((uv_stream_t *)&image->words, words_alloc, words_read);
    loop_timer_start(image->timer, IMAGE_TIMEOUT_MS, 0);
    return 0;
}

int image_make(
    uv_loop_t *loop, const struct image_config *config, image_fn fn, void *user, struct err *err, struct image **out)
{
    bool raw = strcmp(config->format, "raw") == 0;
    if (raw && truncate(config->path, (off_t)config->bytes) < 0)
        return err_errno(
            err, ERR_INVALID, errno, "cannot make %.400s %" PRIu64 " bytes long", config->path, config->bytes);
    struct image *image = mem_zalloc(sizeof *image);
    *image = (struct image){.fn = fn, .user = user, .raw = raw};
    image->timer = loop_timer_new(loop, image_overdue, image);
    if (raw)
        loop_timer_start(image->timer, 0, 0);
    else if (image_spawn(loop, config, image, err) < 0)
        return -1;
    *out = image;
    return 0;
}

void image_free(struct image *image)
{
    if (!image)
        return;
    image->fn = NULL;
    image->freed = true;
    if (image->open == 0)
        image_destroy(image);
    else
        image_hurry(image);
}
