#include "proto/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

#include "base/cleanup.h"
#include "base/file.h"

#define KEY_FILE_MAX 1024

static void key_wipe_text(char (*text)[KEY_FILE_MAX])
{
    key_wipe(*text, sizeof *text);
}
#define cleanup_secret __attribute__((cleanup(key_wipe_text)))

void key_wipe(void *memory, size_t len)
{
    explicit_bzero(memory, len);
}

int key_parse(const char *text, struct err *err, uint8_t out[KEY_BYTES])
{
    uint8_t key[KEY_BYTES];
    if (strlen(text) != KEY_TEXT - 1 || zmq_z85_decode(key, text) == NULL)
        return err_set(err, ERR_INVALID, "not a key: it must be %d characters of Z85", KEY_TEXT - 1);
    memcpy(out, key, KEY_BYTES);
    key_wipe(key, sizeof key);
    return 0;
}

void key_format(const uint8_t key[KEY_BYTES], char out[static KEY_TEXT])
{
    zmq_z85_encode(out, key, KEY_BYTES);
}

int key_generate(struct err *err, struct key_pair *out)
{
    char public_text[KEY_TEXT], secret_text[KEY_TEXT];
    if (zmq_curve_keypair(public_text, secret_text) < 0)
        return err_set(err, ERR_UNSUPPORTED, "cannot make a key pair: %s", zmq_strerror(errno));
    zmq_z85_decode(out->public_key, public_text);
    zmq_z85_decode(out->secret_key, secret_text);
    key_wipe(secret_text, sizeof secret_text);
    return 0;
}

/* Writes a file that must not exist yet; on failure nothing is left of it. */
static int key_file_create(const char *path, const char *text, mode_t mode, struct err *err)
{
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0 && errno == EEXIST)
        return err_set(err, ERR_EXISTS, "%s exists already; keys are never overwritten", path);
    if (fd < 0)
        return err_errno(err,
            errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND
            : errno == EACCES                   ? ERR_DENIED
                                                : ERR_INTERNAL,
            errno, "cannot create %s", path);
    size_t len = strlen(text);
    ssize_t written = write(fd, text, len);
    int failure = written < 0 ? errno : (size_t)written < len ? ENOSPC : 0;
    if (!failure && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
        failure = errno;
    if (!failure)
        return 0;
    unlink(path);
    return err_errno(err, ERR_INTERNAL, failure, "cannot write %s", path);
}

/* A file's name lasts once its directory is written; a key that is enrolled cannot be made again. */
static int key_directory_sync(const char *prefix, struct err *err)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(prefix, '/');
    if (!slash)
        return file_sync_directory(".", err);
    snprintf(directory, sizeof directory, "%.*s", slash == prefix ? 1 : (int)(slash - prefix), prefix);
    return file_sync_directory(directory, err);
}

int key_save(const char *prefix, const struct key_pair *key, struct err *err)
{
    char secret_path[PATH_MAX], public_path[PATH_MAX], public_text[KEY_TEXT], secret_text[KEY_TEXT];
    if (strlen(prefix) + sizeof ".key" > PATH_MAX)
        return err_set(err, ERR_INVALID, "path too long: %s", prefix);
    snprintf(secret_path, sizeof secret_path, "%s.key", prefix);
    snprintf(public_path, sizeof public_path, "%s.pub", prefix);
    key_format(key->public_key, public_text);
    key_format(key->secret_key, secret_text);

    cleanup_secret char text[KEY_FILE_MAX];
    snprintf(text, sizeof text,
        "# Secret key of a Drover principal: never leaves this machine.\npublic %s\nsecret %s\n", public_text,
        secret_text);
    key_wipe(secret_text, sizeof secret_text);
    if (key_file_create(secret_path, text, 0600, err) < 0)
        return -1;
    snprintf(text, sizeof text, "%s\n", public_text);
    if (key_file_create(public_path, text, 0644, err) < 0)
        goto no_public;
    if (key_directory_sync(prefix, err) < 0)
        goto no_names;
    return 0;
no_names: /* a pair that was not said to be made is not to be found, and in the way, when it is made again */
    unlink(public_path);
no_public:
    unlink(secret_path);
    return -1;
}

/* Reads a small text file. It stays on the stack, so that no copy of a secret is left on the heap. */
static int key_file_read(const char *path, bool secret, struct err *err, char (*out)[KEY_FILE_MAX])
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_INTERNAL, errno, "cannot open key file %s", path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot examine %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "%s is not a regular file", path);
    if (secret && st.st_uid != 0 && st.st_uid != geteuid())
        return err_set(err, ERR_DENIED,
            "the secret key %s belongs to user %u, who can read and "
            "exchange it: make a new pair, or, if that user is to "
            "be trusted, chown %u %s",
            path, (unsigned)st.st_uid, (unsigned)geteuid(), path);
    if (secret && (st.st_mode & 077) != 0)
        return err_set(err, ERR_DENIED, "others may read the secret key %s (mode %04o): chmod 600 %s", path,
            (unsigned)(st.st_mode & 07777), path);
    ssize_t n = read(fd, *out, sizeof *out);
    if (n < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot read %s", path);
    if (n == (ssize_t)sizeof *out)
        return err_set(err, ERR_INVALID, "%s is too large for a key file", path);
    (*out)[n] = '\0';
    if (strlen(*out) != (size_t)n)
        return err_set(err, ERR_INVALID, "%s is not a key file", path);
    return 0;
}

/* The key behind `label` in a line of its own; an empty label takes the first line that is no comment. */
static int key_file_find(const char *path, const char *text, const char *label, struct err *err, uint8_t out[KEY_BYTES])
{
    size_t label_len = strlen(label);
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (*line == '#' || *line == '\n' || strncmp(line, label, label_len) != 0)
            continue;
        const char *value = line + label_len;
        char key[KEY_TEXT] = "";
        if (strcspn(value, "\n") == KEY_TEXT - 1)
            memcpy(key, value, KEY_TEXT - 1);
        int rc = key_parse(key, err, out);
        key_wipe(key, sizeof key);
        return rc == 0 ? 0 : err_wrap(err, "%s", path);
    }
    return err_set(err, ERR_INVALID, "%s holds no %skey", path, label);
}

int key_load(const char *path, struct err *err, struct key_pair *out)
{
    cleanup_secret char text[KEY_FILE_MAX];
    struct key_pair key;
    int rc = key_file_read(path, true, err, &text);
    if (rc == 0)
        rc = key_file_find(path, text, "public ", err, key.public_key);
    if (rc == 0)
        rc = key_file_find(path, text, "secret ", err, key.secret_key);
    if (rc == 0) {
        char secret_text[KEY_TEXT], derived_text[KEY_TEXT], public_text[KEY_TEXT];
        key_format(key.secret_key, secret_text);
        key_format(key.public_key, public_text);
        if (zmq_curve_public(derived_text, secret_text) < 0 || strcmp(derived_text, public_text) != 0)
            rc = err_set(err, ERR_CORRUPT, "%s: the public key does not belong to the secret key", path);
        key_wipe(secret_text, sizeof secret_text);
    }
    if (rc == 0)
        *out = key;
    key_wipe(&key, sizeof key);
    return rc;
}

int key_load_public(const char *path, struct err *err, uint8_t out[KEY_BYTES])
{
    char text[KEY_FILE_MAX];
    if (key_file_read(path, false, err, &text) < 0)
        return -1;
    return key_file_find(path, text, "", err, out);
}
